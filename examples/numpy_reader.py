"""Reads a tinyres shard with NumPy alone, and prints what is in it:

    python3 examples/numpy_reader.py shards/train-00000.bin

The reader is the one of format/SPEC.md, section 8: it checks every CRC, and returns views of the mapped
file. Read the whole set by reading each of the shards that `dataset.json` lists.
"""

import json, struct, zlib
import numpy as np

def read_shard(path):
    raw = np.memmap(path, np.uint8, "r")
    head = raw[:4096].tobytes()
    magic, version, flags, file_len, count, c, h, w, dtype, block, parts = struct.unpack_from("<8s2I2Q6I", head)
    assert magic == b"\x89TRS\r\n\x1a\n" and version == 1 and flags == 0, "not a shard of version 1"
    assert file_len == len(raw) and (dtype, block, parts) == (0, 16, 7), "cut, or of another kind"
    assert zlib.crc32(head[:4092]) == struct.unpack_from("<I", head, 4092)[0], "header"

    def section(i, dtype, *shape):
        offset, length, crc = struct.unpack_from("<QQI", head, 64 + 24 * i)
        part = raw[offset:offset + length]
        assert i == 0 or zlib.crc32(part) == crc, f"section {i}"
        return part.view(dtype).reshape(shape)

    images = section(0, "u1", count, c, h, w)
    for i, crc in enumerate(section(1, "<u4", -1)):
        assert zlib.crc32(images[i * block:(i + 1) * block]) == crc, f"image block {i}"
    labels, boxes = section(2, "<i8", count), section(3, "<i4", count, 4)
    ends, text = section(4, "<u4", count + 1), section(5, "u1", -1).tobytes()
    names = [text[a:b].decode() for a, b in zip(ends, ends[1:])]
    return images, labels, boxes, names, json.loads(section(6, "u1", -1).tobytes())


if __name__ == "__main__":
    import sys

    images, labels, boxes, names, metadata = read_shard(sys.argv[1])
    print(images.shape, images.dtype, "of", metadata["split"])
    for label, box, name in zip(labels, boxes, names):
        # A label of -1 is an image without one, as in the test split.
        print(name, metadata["classes"][label]["name"] if label >= 0 else "no label", box.tolist())
