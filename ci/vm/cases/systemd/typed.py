"""What a page of docs has its reader type, in the order in which it stands there, each command ended by a NUL.

    typed.py PAGE            commands behind a prompt (`web# `, `# `), in blocks of ```console
    typed.py PAGE LANGUAGE   the text of the blocks in that language, instead

A command goes on in the next line where it ends with a backslash, or where the next begins with `>`, as a shell shows
it. It must never leave out a line of a block: what is neither a prompt nor goes on with one is an error.
"""

import re
import sys

PROMPT = re.compile(r"[a-z.]*# ")


def blocks(page, language):
    """The text of each block in this language."""
    with open(page, encoding="utf-8") as file:
        return re.findall(rf"^```{language}\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)


def commands(block):
    """The commands of a block, without their prompts."""
    typed = []
    for line in block.splitlines():
        prompt = PROMPT.match(line)
        if prompt:
            typed.append(line[prompt.end() :])
        elif typed and typed[-1].endswith("\\"):
            typed[-1] = typed[-1][:-1] + line.strip()
        elif typed and line.startswith("> "):
            typed[-1] += "\n" + line[2:]
        else:
            sys.exit(f"neither a command nor more of one: {line}")
    return typed


def main(page, language=None):
    if language is None:
        found = [command for block in blocks(page, "console") for command in commands(block)]
    else:
        found = blocks(page, language)
    if not found:
        sys.exit(f"{page} has nothing like that")
    sys.stdout.write("".join(one + "\0" for one in found))


main(*sys.argv[1:])
