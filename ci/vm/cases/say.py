"""A client that checks nothing, for a server that talks in clear. HOST PORT MESSAGE...: greets it on a connection for each
MESSAGE, says that, and prints the answer in one line, or `nothing`. What a MESSAGE is does not matter: it travels whole and
with the right checksums."""

import socket
import struct
import sys
import zlib

# Magic, versions from and to, the role of a control connection, no lane, no proof.
PREAMBLE = b"\x89zferry\n" + struct.pack("<HHBBH", 1, 1, 1, 0, 0) + bytes(16)
HELLO = '{"type":"hello","software":"say","limits":{"block_bytes_max":65536,"connections":1,"codecs":["raw"]}}'


def enveloped(message):
    body = message.encode()
    head = struct.pack("<II", len(body), zlib.crc32(body))
    return head + struct.pack("<I", zlib.crc32(head)) + body


def messages(stream):
    while len(head := stream.read(12)) == 12:
        yield stream.read(struct.unpack("<I", head[:4])[0]).decode()


def answer(server, message):
    with socket.create_connection(server, timeout=30) as connection:
        connection.sendall(PREAMBLE + enveloped(HELLO) + enveloped(message))
        for heard in messages(connection.makefile("rb")):
            if not heard.startswith(('{"type":"welcome"', '{"type":"ping"')):
                return heard
    return "nothing"


host, port, *said = sys.argv[1:]
for message in said:
    print(answer((host, int(port)), message))
