"""Draws GIF, BMP, TIFF, PNM and WebP files of every kind that Pillow reads, for pillow_differential.py.

Pillow writes some of them. It cannot write the others, so each format but WebP has a small writer here, which takes
the kind of pixels, their layout and their compression from a random generator.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIDE = 32


def scene(draw, side=SIDE):
    """A picture with smooth parts, edges and noise, of which no two mirror images are equal."""
    y, x = np.mgrid[:side, :side]
    red, green = 255 * x / side, (255 * y / side + draw.randrange(256)) % 256
    blue = np.where((x + 2 * y + draw.randrange(13)) % 13 < 5, 230, 20)
    pixels = np.stack([red, green, blue], -1)
    if draw.random() < 0.3:
        noise = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, pixels.shape)
        pixels[side // 2:] = noise[side // 2:]
    return Image.fromarray(pixels.astype(np.uint8))


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def plain_exif(draw):
    exif = Image.Exif()
    exif[0x0112] = draw.randrange(10)
    return exif.tobytes()


def samples(draw, shape, most):
    """Numbers below `most`: noise, or a smooth picture, which has long runs."""
    numbers = np.random.default_rng(draw.randrange(2**32))
    if draw.random() < 0.5:
        return numbers.integers(0, most, shape)
    y, x = np.mgrid[:shape[0], :shape[1]]
    return ((x + 2 * y)[..., None] // 5 * (1 + np.arange(shape[2])) * most // 40) % most


def codes(numbers, bits, first_low):
    """Codes of LZW that are never longer than `bits`, as bytes."""
    digits = [format(number, f"0{bits}b") for number in numbers]
    if first_low:
        joined = "".join(reversed(digits))
        return int(joined, 2).to_bytes(-(-len(joined) // 8), "little")
    joined = "".join(digits)
    joined += "0" * (-len(joined) % 8)
    return int(joined, 2).to_bytes(len(joined) // 8, "big")


# GIF


def gif(draw):
    if draw.random() < 0.4:
        frames = draw.choice([0, 0, 2])
        image = scene(draw).convert(draw.choice(["P", "L", "1", "RGB"]))
        return saved(image, "GIF", save_all=frames > 0, interlace=draw.choice([0, 1]),
                     append_images=[scene(draw) for _ in range(frames)], **draw.choice([{}, {"transparency": draw.randrange(4)}]))
    bits = draw.randrange(1, 9)
    depth = max(bits, 2)
    start = [draw.choice([0, 0, draw.randrange(SIDE)]) for _ in range(2)]
    extent = [SIDE - at if draw.random() < 0.6 else draw.randrange(1, SIDE - at + 1) for at in start]
    screen = [SIDE if at + length < SIDE or draw.random() < 0.8 else draw.choice([0, 1, 20])
              for at, length in zip(start, extent)]

    def palette():
        if draw.random() < 0.1:  # says nothing
            return bytes(level for level in range(2**bits) for _ in range(3))
        return draw.randbytes(3 * 2**bits)

    overall, local = draw.random() < 0.7, draw.random() < 0.3
    head = b"GIF8" + draw.choice([b"7a", b"9a"]) + struct.pack("<HH", *screen)
    head += bytes([0x80 * overall | bits - 1, draw.randrange(2**bits), 0]) + (palette() if overall else b"")
    for _ in range(draw.choice([0, 1, 1, 2])):
        head += draw.choice([
            b"!\xf9\x04" + bytes([draw.choice([0, 1, 5, 9]), 3, 0, draw.randrange(2**bits)]) + b"\0",
            b"!\xfe\x05hello\0",
            b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0",
            b"!\x01\x02ab\x01c\0",
        ])
    interlaced = draw.random() < 0.4
    pixels = samples(draw, (extent[1], extent[0], 1), 2**bits)[..., 0]
    if interlaced:
        pixels = np.concatenate([pixels[first::step] for first, step in ((0, 8), (4, 8), (2, 4), (1, 2))])
    numbers = []
    for at in range(0, pixels.size, 2**depth - 2):  # A clear code before a longer one would be due.
        numbers += [2**depth, *pixels.ravel()[at:at + 2**depth - 2].tolist()]
    data = codes([*numbers, 2**depth + 1], depth + 1, first_low=True)
    frame = b"," + struct.pack("<HHHH", *start, *extent) + bytes([0x80 * local | 0x40 * interlaced | bits - 1])
    frame += (palette() if local else b"") + bytes([depth])
    step = draw.choice([255, 255, 7])
    frame += b"".join(bytes([len(data[at:at + step])]) + data[at:at + step] for at in range(0, len(data), step)) + b"\0"
    return head + frame * draw.choice([1, 1, 2]) + draw.choice([b";", b";", b";junk", b""])


# BMP


def bmp(draw):
    if draw.random() < 0.3:
        return saved(scene(draw).convert(draw.choice(["RGB", "P", "L", "1", "RGBA"])), "BMP")
    bits = draw.choice([1, 4, 8, 16, 24, 32])
    old = bits <= 24 and bits != 16 and draw.random() < 0.2
    colors = draw.choice([0, 2**bits, max(1, 2**bits - 3)]) if bits <= 8 and not old else 0
    palette = draw.randbytes((3 if old else 4) * (colors or 2**bits)) if bits <= 8 else b""
    compression, masks = 0, b""
    rows = samples(draw, (SIDE, SIDE, 1), 2**bits)[..., 0]
    if bits in (4, 8) and not old and draw.random() < 0.5:
        compression = 2 if bits == 4 else 1
        data = b"".join(run_lengths(draw, row.tolist(), bits) + b"\0\0" for row in rows)
        data = data[:-2] + draw.choice([b"\0\1", b"\0\0\0\1", b"\0\0"])
    else:
        if bits in (16, 32) and draw.random() < 0.6:
            compression = 3
            masks = draw.choice({16: [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)],
                                 32: [(0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000), (0xFF000000, 0xFF0000, 0xFF00),
                                      (0xFF00, 0xFF0000, 0xFF000000)]}[bits])
            masks = struct.pack("<3L", *masks)
        digits = ["".join(format(int(value), f"0{bits}b") for value in row) for row in rows]
        data = b"".join(int(row, 2).to_bytes(SIDE * bits // 8, "big") for row in digits)
    height = -SIDE if not old and compression in (0, 3) and draw.random() < 0.3 else SIDE
    if old:
        head = struct.pack("<LHHHH", 12, SIDE, SIDE, 1, bits)
    else:
        size = draw.choice([40, 40, 52, 56, 108, 124])
        head = struct.pack("<LllHHLLllLL", size, SIDE, height, 1, bits, compression, len(data), 9, 9, colors, 0)
        head += masks.ljust(size - 40, b"\0")[:max(size - 40, 0)] if size > 40 else masks
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<LHHL", start + len(data), 0, 0, start) + head + palette + data


def run_lengths(draw, row, bits):
    """A row of indices, as runs and as plain indices."""
    out, at = b"", 0

    def pack(indices):
        if bits == 8:
            return bytes(indices)
        indices = indices + [0] * (len(indices) % 2)
        return bytes(16 * left + right for left, right in zip(indices[::2], indices[1::2]))

    while at < len(row):
        same = next((n for n in range(1, len(row) - at) if row[at + n] != row[at]), len(row) - at)
        if same < 3 and len(row) - at >= 3 and draw.random() < 0.8:
            plain = pack(row[at:at + min(len(row) - at, draw.randrange(3, 9))])
            count = min(len(plain) * 8 // bits, len(row) - at)
            out += bytes([0, count]) + plain + b"\0" * (len(plain) % 2)
            at += count
        else:
            out += bytes([same]) + pack([row[at], row[at]])[:1]
            at += same
    return out


# PNM


def pnm(draw):
    if draw.random() < 0.2:
        return saved(scene(draw).convert(draw.choice(["RGB", "L", "1"])), "PPM")
    kind = draw.choice("1234556677f")
    space = lambda: draw.choice([" ", "\n", "\t", " # text\n", "\r\n"])  # noqa: E731
    if kind == "f":
        rows = np.random.default_rng(draw.randrange(2**32)).normal(120, 100, (SIDE, SIDE))
        order = draw.choice("<>")
        scale = draw.choice([1, 0.5]) * (-1 if order == "<" else 1)
        return b"Pf\n%d %d\n%g\n" % (SIDE, SIDE, scale) + rows.astype(order + "f4").tobytes()
    if kind == "7":
        kind = "6"
    channels = 3 if kind in "36" else 1
    most = 1 if kind in "14" else draw.choice([1, 2, 100, 254, 255, 255, 256, 1000, 65535])
    rows = samples(draw, (SIDE, SIDE, channels), most + 1).reshape(SIDE, -1)
    if most == 65535 and draw.random() < 0.5:
        rows = rows % 300
    head = f"P{kind}{space()}{SIDE}{space()}{SIDE}" + ("" if kind in "14" else f"{space()}{most}")
    if kind == "4":
        return head.encode() + b"\n" + np.packbits(rows, axis=1).tobytes()
    if kind in "123":
        joined = "".join(f"{value}{draw.choice(['', ' ']) if kind == '1' else space()}" for value in rows.ravel())
        return (head + "\n" + joined).encode()
    return head.encode() + b"\n" + rows.astype(">u2" if most > 255 else np.uint8).tobytes()


# WebP


def webp(draw):
    image = scene(draw).convert(draw.choice(["RGB", "RGBA", "L"]))
    if image.mode == "RGBA" and draw.random() < 0.5:
        image.putalpha(image.getchannel(0))
    more = {"exif": plain_exif(draw)} if draw.random() < 0.3 else {}
    if draw.random() < 0.15:
        more |= {"save_all": True, "append_images": [scene(draw)]}
    if draw.random() < 0.5:
        return saved(image, "WEBP", lossless=True, exact=True, **more)
    return saved(image, "WEBP", quality=draw.randrange(101), method=draw.randrange(3), **more)


# TIFF


# Photometric interpretation, bits, samples, kinds of extra samples, sample format. All that Pillow reads but LAB,
# and two that it does not convert to RGB.
TIFFS = [
    *[(0, bits, 1, (), 1) for bits in (1, 2, 4, 8)], *[(1, bits, 1, (), 1) for bits in (1, 2, 4, 8, 12, 16, 16)],
    (0, 16, 1, (), 1), (1, 8, 1, (), 2), (1, 16, 1, (), 2), (1, 32, 1, (), 1), (1, 32, 1, (), 2), (1, 32, 1, (), 3), (0, 32, 1, (), 3),
    (1, 8, 2, (0,), 1), (1, 8, 2, (1,), 1), (1, 8, 2, (2,), 1), (2, 8, 3, (), 1), (2, 8, 3, (), 1), (2, 8, 4, (), 1),
    *[(2, 8, 4, (kind,), 1) for kind in (0, 1, 2, 999)], *[(2, 8, 5, (kind, 0), 1) for kind in (0, 1, 2)],
    *[(2, 8, 6, (kind, 0, 0), 1) for kind in (0, 1, 2)], (2, 16, 3, (), 1), (2, 16, 4, (), 1),
    *[(2, 16, 4, (kind,), 1) for kind in (0, 1, 2)], *[(3, bits, 1, (), 1) for bits in (1, 2, 4, 8, 8)],
    (3, 8, 2, (0,), 1), (3, 8, 2, (2,), 1), (5, 8, 4, (), 1), (5, 8, 5, (0,), 1), (5, 8, 6, (0, 0), 1), (5, 16, 4, (), 1),
    (6, 8, 1, (), 1), (2, 32, 3, (), 1),
]
JPEGS = {(1, 1): "L", (2, 3): "RGB", (6, 3): "RGB", (5, 4): "CMYK"}


def tiff(draw):
    if draw.random() < 0.25:
        return pillow_tiff(draw)
    order, big = draw.choice("<>"), False
    if order == "<":  # Pillow does not read BigTIFF in the other order.
        big = draw.random() < 0.2
    photometric, bits, channels, extra, kind = draw.choice(TIFFS)
    compression = draw.choice([1, 1, 5, 5, 8, 32946, 32773, 50000])
    if bits == 8 and (photometric, channels) in JPEGS and draw.random() < 0.4:
        compression = 7
    if photometric == 6 and channels == 3 or compression == 7:
        photometric, compression = draw.choice([5 if channels == 4 else 6 if channels == 3 else 1, photometric]), 7
    if order == ">" and compression != 1 and (kind > 1 or bits == 32):
        compression = 1  # Pillow swaps the bytes twice.
    planar = 2 if channels > 1 and draw.random() < 0.3 else 1
    if planar == 2 and (bits != 8 and compression == 1 or compression == 7):
        planar = 1  # Pillow reads raw planes as bytes.
    reverse = kind == 1 and not extra and bits <= 8 and photometric in (0, 1, 3) and compression != 7 and draw.random() < 0.1
    predictor = 2 if compression in (5, 8, 32946, 50000) and bits >= 8 and bits != 12 and draw.random() < 0.5 else 1
    tiled = draw.random() < 0.4
    if planar == 2 and tiled and compression == 1 and channels == 4 and not extra:
        planar = 1  # Pillow takes a fourth plane of no kind for none, and miscounts the bytes of a row.
    size = [draw.choice([16, 32, 48]), draw.choice([16, 32, 48])] if tiled else [SIDE, draw.choice([1, 5, 8, 32, 100])]
    if photometric == 6 and compression == 7:
        size = [-(-length // 16) * 16 for length in size]
    rows = -(-SIDE // size[1]) * size[1] if tiled else SIDE
    columns = -(-SIDE // size[0]) * size[0]
    if kind == 3:
        pixels = np.random.default_rng(draw.randrange(2**32)).normal(120, 150, (rows, columns, channels))
    else:
        most = draw.choice([2**bits, min(2**bits, 300)])
        pixels = samples(draw, (rows, columns, channels), most) - (draw.choice([0, 100]) if kind == 2 else 0)
    parts, more = [], {}
    layers = [pixels] if planar == 1 else [pixels[..., [at]] for at in range(channels)]
    tables = compression == 7 and draw.random() < 0.4
    for layer in layers:
        for top in range(0, rows, size[1]):
            for left in range(0, columns, size[0]):
                piece = layer[top:top + size[1], left:left + size[0]]
                parts.append(jpeg_part(draw, piece, photometric, tables, more) if compression == 7 else
                             part(piece, bits, kind, order, compression, predictor, reverse))
    entries = {256: (3, [SIDE]), 257: (3, [SIDE]), 258: (3, [bits] * draw.choice([channels, channels, 1])), 259: (3, [compression]),
               262: (3, [photometric]), 277: (3, [channels]), 284: (3, [planar]), **more}
    if kind != 1 or draw.random() < 0.3:
        entries[339] = 3, [kind] * channels
    if extra:
        entries[338] = 3, list(extra)
    if reverse:
        entries[266] = 3, [2]
    if predictor > 1:
        entries[317] = 3, [predictor]
    if photometric == 3:
        entries[320] = 3, [draw.randrange(65536) for _ in range(3 * 2**bits)]
    if draw.random() < 0.2:
        entries[0x0112] = 3, [draw.randrange(1, 9)]
    wide = draw.choice([4, 4, 16 if big else 4, 3])
    if tiled:
        entries |= {322: (wide, [size[0]]), 323: (3, [size[1]]), 324: (4, []), 325: (wide, list(map(len, parts)))}
    else:
        entries |= {278: (4, [size[1]]), 273: (4, []), 279: (wide, list(map(len, parts)))}
    return tiff_file(order, big, entries, parts)


def part(piece, bits, kind, order, compression, predictor, reverse):
    if kind == 3:
        rows = piece.astype(order + "f4").view(order + "u4")
    else:
        rows = piece.astype(np.int64) % 2**bits
    if predictor == 2:
        rows = np.concatenate([rows[:, :1], np.diff(rows.astype(np.int64), axis=1)], 1) % 2**bits
    rows = rows.reshape(len(rows), -1)
    if bits in (8, 16, 32):
        data = rows.astype(f"{order}u{bits // 8}").tobytes()
    else:
        data = b""
        for row in rows:
            digits = "".join(format(int(value), f"0{bits}b") for value in row)
            digits += "0" * (-len(digits) % 8)
            data += int(digits, 2).to_bytes(len(digits) // 8, "big")
    if compression == 5:
        numbers = [number for at in range(0, len(data), 250) for number in (256, *data[at:at + 250])]
        data = codes([*numbers, 257], 9, first_low=False)
    elif compression in (8, 32946):
        data = zlib.compress(data)
    elif compression == 32773:
        out, at = b"", 0
        while at < len(data):
            same = next((n for n in range(1, min(128, len(data) - at)) if data[at + n] != data[at]), min(128, len(data) - at))
            if same > 2:
                out, at = out + bytes([257 - same, data[at]]), at + same
            else:
                plain = data[at:at + 5]
                out, at = out + bytes([len(plain) - 1]) + plain, at + len(plain)
        data = out + b"\x80"
    elif compression == 50000:
        blocks = [data[at:at + 2**16] for at in range(0, len(data), 2**16)]  # A frame of plain blocks.
        data = b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(
            struct.pack("<L", len(block) << 3 | (block is blocks[-1]))[:3] + block for block in blocks)
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data) if reverse else data


def jpeg_part(draw, piece, photometric, tables, more):
    channels = piece.shape[2]
    mode = JPEGS[photometric, channels]
    image = Image.frombytes(mode, piece.shape[1::-1], piece.astype(np.uint8).tobytes())
    options = {"quality": 80, "streamtype": 2 if tables else 0}
    if channels == 3:
        options["subsampling"] = 0
        if photometric == 2:
            options["keep_rgb"] = True
        else:
            options["subsampling"] = more.setdefault("subsampling", draw.choice([0, 1, 2]))
    data = saved(image, "JPEG", **options)
    if tables:
        more[347] = 7, saved(image, "JPEG", **options | {"streamtype": 1})
    if photometric == 6:
        more[530] = 3, [[1, 1], [2, 1], [2, 2]][options["subsampling"]]
    return data


def tiff_file(order, big, entries, parts):
    entries = {tag: entry for tag, entry in entries.items() if tag != "subsampling"}
    count, offset, inline = (">Q" if order == ">" else "<Q", order + "Q", 8) if big else (order + "H", order + "L", 4)
    letters = {3: "H", 4: "L", 7: "B", 16: "Q"}
    start = 16 if big else 8
    places = next(tag for tag in (273, 324) if tag in entries)
    entries[places] = entries[places][0], [0] * len(parts)
    at = start + struct.calcsize(count) + len(entries) * (20 if big else 12) + inline
    outside, fields = {}, b""
    for tag in sorted(entries):
        kind, values = entries[tag]
        size = struct.calcsize("=" + letters[kind]) * len(values)
        if size > inline:
            outside[tag] = at
            at += size + size % 2
    for index, piece in enumerate(parts):
        entries[places][1][index] = at
        at += len(piece)
    rest = b""
    for tag in sorted(entries):
        kind, values = entries[tag]
        body = struct.pack(order + str(len(values)) + letters[kind], *values)
        fields += struct.pack(order + "HH", tag, kind) + struct.pack(offset, len(values))
        fields += struct.pack(offset, outside[tag]) if tag in outside else body.ljust(inline, b"\0")
        if tag in outside:
            rest += body + b"\0" * (len(body) % 2)
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(order + "HHHQ", 43, 8, 0, start) if big else struct.pack(order + "HL", 42, start))
    return head + struct.pack(count, len(entries)) + fields + struct.pack(offset, 0) + rest + b"".join(parts)


def pillow_tiff(draw):
    image = scene(draw)
    more = {"tiffinfo": {0x0112: draw.randrange(1, 9)}} if draw.random() < 0.3 else {}
    if draw.random() < 0.4:  # fax
        image = image.convert("1", dither=draw.choice([Image.Dither.NONE, Image.Dither.FLOYDSTEINBERG]))
        info = more.setdefault("tiffinfo", {})
        info[262] = draw.choice([0, 1])
        compression = draw.choice(["group3", "group3", "group4", "group4", "tiff_ccitt"])
        if compression == "group3":
            info[292] = draw.choice([0, 1, 4, 5])
        return saved(image, "TIFF", compression=compression, strip_size=draw.choice([16, 64, 4096]), **more)
    mode = draw.choice(["RGB", "L", "P", "1", "RGBA", "LA", "CMYK"])
    compression = draw.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
    return saved(image.convert(mode), "TIFF", compression=compression, **more)
