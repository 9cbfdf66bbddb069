"""Compares folders in pairs, SOURCE TARGET [SOURCE TARGET...], by everything of a file that a replica must preserve:
kind, mode, owner, size, times, link target, which other paths are the same file, extended attributes, contents.
Says in one line for every pair how many files are the same, or which differs first; there it ends, with 1. Inode numbers and allocated blocks
are not compared: a replica need not have them."""

import hashlib
import os
import stat
import sys


def contents(path):
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def attributes(path):
    digest = hashlib.blake2b(digest_size=16)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    for name in names:
        digest.update(name.encode() + b"\0" + os.getxattr(path, name, follow_symlinks=False) + b"\0")
    return f"{len(names)}:{digest.hexdigest()}" if names else "-"


def paths(root):
    yield root
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            yield os.path.join(folder, name)


def manifest(root):
    files = {}
    first_path = {}
    for path in paths(root):
        info = os.lstat(path)
        name = os.path.relpath(path, root)
        same_as = first_path.setdefault(info.st_ino, name)
        what = "-"
        if stat.S_ISLNK(info.st_mode):
            what = os.readlink(path)
        elif stat.S_ISREG(info.st_mode) and same_as == name:
            what = contents(path)
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            what = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
        # The size of a folder is the number of its entries in ZFS: those are compared anyway.
        size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
        files[name] = (
            stat.filemode(info.st_mode), info.st_uid, info.st_gid, info.st_nlink, size, info.st_mtime_ns,
            attributes(path), what, same_as,
        )
    return files


def main(source_root, target_root):
    source = manifest(source_root)
    target = manifest(target_root)
    if len(source) < 2:
        sys.exit("the source is empty: nothing was compared")
    for name in sorted(source.keys() | target.keys()):
        if source.get(name) != target.get(name):
            sys.exit(f"{name!a} differs: source {source.get(name)}, target {target.get(name)}")
    print(f"{len(source)} files are the same on both sides", flush=True)


if __name__ == "__main__":
    for pair in range(1, len(sys.argv), 2):
        main(*sys.argv[pair : pair + 2])
