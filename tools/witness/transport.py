#!/usr/bin/env python3
"""Makes and checks transport files (SPEC.md, section 9) with Python's zstandard, not with ours.

    python3 tools/witness/transport.py make format/tests/golden/train-00001.bin
        writes train-00001.bin.zst beside it, which the crate's tests read
    python3 tools/witness/transport.py check FILE.bin.zst FILE.bin
        expands a file of ours as one stream, and each frame by the seek table, and demands FILE.bin
"""
import pathlib
import struct
import sys

import zstandard

PAGE, BLOCK = 4096, 16


def parts(raw):
    """Header page, blocks of 16 images, and the rest of a raw shard."""
    count, c, h, w = struct.unpack_from("<QIII", raw, 24)
    end, block = PAGE + count * c * h * w, BLOCK * c * h * w
    blocks = [raw[at : min(at + block, end)] for at in range(PAGE, end, block)]
    return [raw[:PAGE], *blocks, raw[end:]]


def make(path):
    raw = parts(path.read_bytes())
    frames = [zstandard.ZstdCompressor(level=5).compress(part) for part in raw]
    table = b"".join(struct.pack("<II", len(f), len(r)) for f, r in zip(frames, raw))
    foot = struct.pack("<IBI", len(frames), 0, 0x8F92EAB1)
    head = struct.pack("<II", 0x184D2A5E, len(table) + len(foot))
    pathlib.Path(f"{path}.zst").write_bytes(b"".join(frames) + head + table + foot)


def check(packed, path):
    data, raw = packed.read_bytes(), path.read_bytes()
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
        assert stream.read() == raw, "as one stream"
    frames, descriptor, magic = struct.unpack_from("<IBI", data, len(data) - 9)
    start = len(data) - 9 - 8 * frames
    assert (descriptor, magic) == (0, 0x8F92EAB1), "footer"
    assert struct.unpack_from("<II", data, start - 8) == (0x184D2A5E, 8 * frames + 9), "head"
    at, expected = 0, parts(raw)
    assert frames == len(expected), "number of frames"
    for i, part in enumerate(expected):
        compressed, size = struct.unpack_from("<II", data, start + 8 * i)
        frame = data[at : at + compressed]
        about = zstandard.get_frame_parameters(frame)
        assert about.content_size == size == len(part) and about.has_checksum, f"frame {i}"
        assert zstandard.ZstdDecompressor().decompress(frame) == part, f"frame {i}"
        at += compressed
    assert at == start - 8, "end of the frames"
    print(f"{packed}: {frames} frames, {len(raw)} bytes in {len(data)}, as they must be")


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](*map(pathlib.Path, sys.argv[2:]))
