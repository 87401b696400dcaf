"""Packs thousands of generated pictures and compares each pixel with Pillow's.

    pillow_differential.py TINYRES [--count N] [--seed S] [--keep DIR] [--only PART,...]
    pillow_differential.py --golden tests/golden/pictures [--count 60]

Draws pictures of every kind that Pillow reads, by the parts below, writes them as class folders, packs them with
`TINYRES pack --skip-bad`, and compares what was packed with `exif_transpose(Image.open(f)).convert("RGB")`. The
same seed draws the same pictures. `--count` is the number of pictures of each part.

    jpeg         subsampling, progressive, restart intervals, quality, grey, CMYK, YCCK, EXIF, ICC, comments
    jpeg-damage  the same with bytes changed, cut, inserted; segments doubled, dropped, moved
    exif         EXIF and XMP blocks, whole and mutated, in JPEG and PNG
    png          every kind of pixel, interlaced, animated, text chunks
    png-damage   the same with bytes changed, chunks cut, doubled, dropped
    gif, bmp, tiff, pnm, webp   every kind of these, by drawn_formats.py, under the name .jpg
    gif-damage and so on        the same with bytes changed or cut

With `--golden` writes small ones of them to drawn.zip, and to drawn.json the SHA-256 of the planar RGB bytes that
Pillow makes of each, or null. Otherwise prints for each part how many pictures both read with equal pixels, how many
both refuse, and the differences.
Exits with 1 if a picture that both read has other pixels (but for damaged lossy WebPs), or if Pillow reads one that was refused for a reason that
STRICTER does not list. Pictures that tinyres alone reads are counted, not listed: Pillow is as strict as it happens
to be.
"""

import argparse
import hashlib
import io
import json
import random
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from drawn_formats import SIDE, bmp, gif, plain_exif, pnm, saved, scene, tiff, webp
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo

ImageFile.MAXBLOCK = 2**20  # Pillow writes no JPEG whose header is longer than its buffer.
warnings.simplefilter("ignore")


# JPEG


def marker(code, body):
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


def segments(data):
    at = 2
    while True:
        code, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        yield code, at, at + 2 + length
        at += 2 + length
        if code == 0xDA:
            return


def jpeg(draw, **more):
    image = scene(draw)
    kind = draw.choice(["RGB"] * 5 + ["L", "CMYK", "CMYK"])
    options = {"quality": draw.randrange(5, 100), "progressive": draw.random() < 0.3, **more}
    if kind != "L":
        options["subsampling"] = draw.choice([0, 1, 2])
    if draw.random() < 0.3:
        options[draw.choice(["restart_marker_blocks", "restart_marker_rows"])] = draw.randrange(1, 5)
    if draw.random() < 0.3:
        options["exif"] = plain_exif(draw)
    if draw.random() < 0.2:
        options["icc_profile"] = draw.randbytes(draw.choice([100, 70000]))
    if draw.random() < 0.2:
        options["comment"] = draw.randbytes(50)
    if draw.random() < 0.1 and kind == "RGB":
        options |= {"keep_rgb": True, "subsampling": 0}
    data = saved(image.convert(kind), "JPEG", **options)
    if kind == "CMYK" and draw.random() < 0.7:
        # YCCK, an unknown transform, or no marker of Adobe's.
        start, end = next((a, b) for code, a, b in segments(data) if code == 0xEE)
        other = draw.choice([b"\x02", b"\x02", b"\x01", b"\x07", None])
        data = data[:start] + data[end:] if other is None else data[:end - 1] + other + data[end:]
    return data


def jpeg_damage(draw):
    data = bytearray(jpeg(draw))
    parts = list(segments(data))
    begin = parts[-1][2]
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        how = draw.randrange(14)
        if how == 0:  # bytes of the scan
            for _ in range(draw.randrange(1, 4)):
                data[draw.randrange(begin, len(data))] = draw.randrange(256)
        elif how == 1:
            at = draw.randrange(begin, len(data))
            data[at:at + draw.randrange(1, 40)] = b""
        elif how == 2:  # cut
            del data[draw.randrange(begin, len(data)):]
        elif how == 3:  # cut, with an end
            del data[draw.randrange(begin, len(data)):]
            data += b"\xff\xd9"
        elif how == 4:  # bytes before the end, or in its place
            junk = bytes(draw.randrange(255) for _ in range(draw.choice([1, 3, 20, 2000])))
            data[-2:] = junk + draw.choice([b"\xff\xd9", b"\xff\xd9", b"", b"\xff\xd9" + junk])
        elif how == 5:  # odd SOS parameters
            data[begin - 3:begin] = draw.choice([b"\0\0\0", b"\0\x3f\x11", draw.randbytes(3)])
        elif how == 6:  # version of JFIF
            at = data.find(b"JFIF\0")
            if at > 0:
                data[at + 5] = draw.choice([0, 2, 3, 255])
        elif how == 7:  # bytes between segments
            _, at, _ = draw.choice(parts)
            data[at:at] = draw.choice([b"\xff" * 3, b"\0" * 5, draw.randbytes(9).replace(b"\xff", b""), b"\xff\0ab"])
            break
        elif how == 8:  # Adobe's transform
            piece = marker(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([draw.choice([0, 1, 2, 3, 255])]))
            data[2:2] = piece
            if draw.random() < 0.5:
                at = data.find(b"JFIF\0")
                if at > 0:
                    data[at:at + 4] = b"JUNK"
            break
        elif how == 9:  # a restart marker
            at = data.find(b"\xff" + bytes([0xD0 + draw.randrange(8)]), begin)
            if at > 0:
                data[at + 1] = draw.randrange(0xD0, 0xD8)
        elif how == 10:  # a byte of the header
            data[draw.randrange(2, begin)] = draw.randrange(256)
        elif how == 11:  # a segment once more, dropped, or moved
            code, start, end = draw.choice(parts)
            piece = data[start:end]
            if draw.random() < 0.5:
                del data[start:end]
            if draw.random() < 0.5:
                _, at, _ = draw.choice(parts)
                data[at:at] = piece
            break
        elif how == 12:  # application segments of others, and stray markers
            data[2:2] = draw.choice([marker(0xE5, b"x" * 90), marker(0xFE, b""), b"\xff\xd3", b"\xff\x01", b"\xff\xff\xff"])
            break
        else:  # what follows the end
            data += draw.randbytes(draw.randrange(1, 3000))
    return bytes(data)


# EXIF and XMP


def directory(draw, order):
    """A TIFF of one directory with an orientation among other entries, in places mutated."""
    def short(value):
        return struct.pack(order + "H", value % 2**16)

    def long(value):
        return struct.pack(order + "L", value % 2**32)

    count = draw.randrange(1, 6)
    at = draw.randrange(count)
    first = 8 + draw.choice([0, 0, 0, 2, 10])
    values = first + 2 + 12 * count + 4
    rest = b""
    entries = []
    for index in range(count):
        if index == at or draw.random() < 0.05:
            value = draw.choice([1, 2, 3, 4, 5, 6, 6, 7, 8, 0, 9, 300])
            kind = draw.choice([3] * 12 + list(range(0, 19)))
            number = draw.choice([1] * 12 + [0, 2, 3, 9])
            plain = {1: bytes([value % 256]), 2: b"%d\0" % value, 3: short(value), 4: long(value), 6: bytes([value % 256]),
                     7: bytes([value % 256]), 8: short(value), 9: long(value), 13: long(value),
                     5: long(value * 3) + long(3), 10: long(-value * 2) + long(-2),
                     11: struct.pack(order + "f", value), 12: struct.pack(order + "d", value),
                     16: struct.pack(order + "Q", value)}.get(kind, short(value))
            if draw.random() < 0.1 and kind in (5, 10):
                plain = plain[:4] + draw.choice([long(0), long(1), long(2)])
            data = plain + b"".join([plain] * max(0, number - 1))
            tag = 0x0112
        else:
            tag = draw.choice([0x010E, 0x010F, 0x0110, 0x011A, 0x0128, 0x0131, 0x8769, 0x8825, 0xC4A5, 0x0111, 0x0113])
            kind, number = draw.choice([(2, 4), (2, 12), (3, 1), (4, 1), (5, 1), (7, 30), (77, 1)])
            data = draw.randbytes(number * {2: 1, 3: 2, 4: 4, 5: 8, 7: 1}.get(kind, 4))
        if len(data) <= 4:
            field = data.ljust(4, b"\0")
        else:
            field = long(draw.choice([values + len(rest)] * 8 + [9000, 2**32 - 1, values + len(rest) + 30]))
            rest += data
        if draw.random() < 0.04:
            number = draw.choice([0, 40, 1000, 2**31, 2**32 - 1])
        entries.append(short(tag) + short(kind) + long(number) + field)
    written = draw.choice([count] * 12 + [0, count - 1, count + 1, 65535])
    head = {"<": [b"II*\0"] * 12 + [b"II\0*", b"II+\0", b"IIxx"], ">": [b"MM\0*"] * 12 + [b"MM*\0", b"MM\0+", b"xxxx"]}[order]
    tiff = draw.choice(head) + long(draw.choice([first] * 15 + [0, 5000])) + b"\0" * (first - 8)
    tiff += short(written) + b"".join(entries) + long(draw.choice([0, 0, 5000, first])) + rest
    if draw.random() < 0.15:
        tiff = tiff[:draw.randrange(1, len(tiff))]
    if draw.random() < 0.1:
        tiff = bytearray(tiff)
        tiff[draw.randrange(len(tiff))] = draw.randrange(256)
    return bytes(tiff)


def xmp(draw):
    value = draw.choice([*b"12345678", *b"0 9x"])
    text = draw.choice([
        '<x:xmpmeta><rdf:Description xmlns:tiff="x" tiff:Orientation="%c"/></x:xmpmeta>',
        "<x:xmpmeta><tiff:Orientation>%c</tiff:Orientation></x:xmpmeta>",
        "<tiff:Orientation>%c",
        'tiff:Orientation = "%c"',
        "tiff:Orientation='%c'",
        'tiff:Orientation="0%c"',
        '<a tiff:Orientation=""/><b tiff:Orientation="%c"/>',
        "<x:xmpmeta>no orientation %c</x:xmpmeta>",
        '\u00e9<a tiff:Orientation="%c"/>',
    ])
    return (text % value).encode()


def exif(draw):
    order = draw.choice("<>")
    tiff = directory(draw, order)
    kinds = draw.choice(["exif"] * 4 + ["xmp", "both", "both", "two"])
    if draw.random() < 0.6:
        data = saved(scene(draw), "JPEG", quality=90, **draw.choice([{}, {"dpi": (72, 72)}]))
        pieces = []
        if kinds != "xmp":
            prefix = draw.choice([b"Exif\0\0"] * 10 + [b"Exif\0\0Exif\0\0", b"Exif\0\xff", b"exif\0\0"])
            if kinds == "two":
                cut = draw.randrange(len(tiff) + 1)
                pieces += [prefix + tiff[:cut], b"Exif\0\0" + draw.choice([tiff[cut:], tiff])]
            else:
                pieces.append(prefix + tiff)
        if kinds in ("xmp", "both"):
            pieces += [b"http://ns.adobe.com/xap/1.0/\0" + xmp(draw) for _ in range(draw.choice([1, 1, 2]))]
        draw.shuffle(pieces)
        parts = list(segments(data))
        places = [2, 2, 2, parts[0][2], parts[-1][1]]
        for piece in pieces:
            at = draw.choice(places)
            fill = b"\xff" * draw.choice([0, 0, 0, 1, 4])
            data = data[:at] + fill + marker(0xE1, piece) + data[at:]
            places = [2]
        return "jpg", data
    image, info, options = scene(draw), PngInfo(), {}
    late = []
    if kinds != "xmp":
        how = draw.randrange(4)
        if how == 0:
            info.add(b"eXIf", tiff)
        elif how == 1:
            late.append(chunk(b"eXIf", tiff))
        elif how == 2:
            body = draw.choice([b"Exif\0\0", b""]) + tiff
            text = "\nexif\n%8d\n%s\n" % (len(body), "\n".join(body.hex()[i:i + 72] for i in range(0, 2 * len(body), 72)))
            if draw.random() < 0.1:
                text = text.replace("0", draw.choice([" ", "g", "\n"]), 1)
            info.add_text("Raw profile type exif", text, zip=draw.random() < 0.5)
        else:
            info.add(b"tEXt", b"exif\0" + tiff)
    if kinds != "exif":
        text = xmp(draw)
        how = draw.randrange(4)
        if how == 0:
            info.add(b"tEXt", b"XML:com.adobe.xmp\0" + text)
        elif how == 1:
            info.add_itxt("XML:com.adobe.xmp", text.decode(), zip=True)
        elif how == 2:
            late.append(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text))
        else:
            info.add_itxt("XML:com.adobe.xmp", text.decode())
    data = saved(image, "PNG", pnginfo=info, **options)
    return "png", data[:-12] + b"".join(late) + data[-12:]


# PNG


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def packed(samples, bits):
    """Rows of samples `[height, width * channels]` as bytes."""
    if bits == 16:
        return [row.astype(">u2").tobytes() for row in samples]
    if bits == 8:
        return [row.astype(np.uint8).tobytes() for row in samples]
    rows = []
    for row in samples:
        digits = "".join(format(int(value), f"0{bits}b") for value in row)
        digits += "0" * (-len(digits) % 8)
        rows.append(int(digits, 2).to_bytes(len(digits) // 8, "big"))
    return rows


def png_chunks(draw):
    color, bits = draw.choice([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8),
                               (4, 8), (4, 16), (6, 8), (6, 16)])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    random_numbers = np.random.default_rng(draw.randrange(2**32))
    most = 2**bits
    if (color, bits) == (0, 16) and draw.random() < 0.5:
        most = draw.choice([256, 300])
    samples = random_numbers.integers(0, most, (SIDE, SIDE, channels))
    if draw.random() < 0.5:  # smooth, so that filters are used
        y, x = np.mgrid[:SIDE, :SIDE]
        samples = ((x + 2 * y)[..., None] * (1 + np.arange(channels)) * most // (8 * SIDE)) % most
    interlaced = draw.random() < 0.4
    grids = [samples[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [samples]
    raw = b"".join(b"\0" + row for grid in grids for row in packed(grid.reshape(len(grid), -1), bits))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, bits, color, 0, 0, int(interlaced)))]
    if color == 3:
        parts.append((b"PLTE", draw.randbytes(3 * draw.choice([2**bits, 2**bits, max(1, 2**bits * 3 // 4)]))))
    elif color in (2, 6) and draw.random() < 0.1:
        parts.append((b"PLTE", draw.randbytes(30)))
    if draw.random() < 0.4:
        body = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: draw.choice([draw.randbytes(2**bits), b"\xff\0\xff", b"\0"])}.get(color)
        if body:
            parts.append((b"tRNS", body))
    for piece in ((b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0"), (b"pHYs", struct.pack(">IIB", 10, 20, 1)),
                  (b"cHRM", struct.pack(">8I", *range(8))), (b"bKGD", b"\0\1"), (b"iCCP", b"x\0\0" + zlib.compress(b"y")),
                  (b"sBIT", b"\x08"), (b"tIME", b"\0" * 7), (b"prVt", b"abc"), (b"tEXt", b"Title\0x"), (b"sPLT", b"")):
        if draw.random() < 0.1:
            parts.append(piece)
    animated = draw.random() < 0.15
    if animated:
        frame = struct.pack(">IIIIIHHBB", 0, SIDE, SIDE, 0, 0, 1, 10, 0, 0)
        parts.append((b"acTL", struct.pack(">II", 2, 0)))
        if draw.random() < 0.7:
            parts.append((b"fcTL", frame))
    data = zlib.compress(raw)
    step = draw.choice([len(data), 100, 1000])
    parts += [(b"IDAT", data[at:at + step]) for at in range(0, len(data), step)]
    if animated:
        number = sum(kind == b"fcTL" for kind, _ in parts)
        parts.append((b"fcTL", struct.pack(">I", number) + frame[4:]))
        parts.append((b"fdAT", struct.pack(">I", number + 1) + zlib.compress(raw[::-1])))
    if draw.random() < 0.1:
        parts.append((b"tEXt", b"Comment\0late"))
    parts.append((b"IEND", b""))
    return parts


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(draw):
    if draw.random() < 0.4:
        kind = draw.choice(["RGB", "L", "P", "RGBA", "LA", "1"])
        return saved(scene(draw).convert(kind), "PNG", compress_level=draw.randrange(10))
    return SIGNATURE + b"".join(chunk(*part) for part in png_chunks(draw))


def png_damage(draw):
    parts = png_chunks(draw)
    how = draw.randrange(9)
    if how == 0:  # a chunk dropped, doubled or moved
        at = draw.randrange(1, len(parts))
        piece = parts[at]
        if draw.random() < 0.6:
            del parts[at]
        if draw.random() < 0.6:
            parts.insert(draw.randrange(1, len(parts) + 1), piece)
    elif how == 1:  # contents changed, with a right checksum
        at = draw.randrange(len(parts))
        kind, body = parts[at]
        if body:
            body = bytearray(body)
            body[draw.randrange(len(body))] = draw.randrange(256)
            parts[at] = kind, bytes(body)
    elif how == 2:  # contents cut, with a right checksum
        at = draw.randrange(len(parts))
        kind, body = parts[at]
        parts[at] = kind, body[:draw.randrange(len(body) + 1)]
    pieces = [chunk(*part) for part in parts]
    if how == 3:  # a wrong checksum
        at = draw.randrange(len(pieces))
        pieces[at] = pieces[at][:-1] + bytes([pieces[at][-1] ^ 1])
    data = SIGNATURE + b"".join(pieces)
    if how == 4:
        data = data[:draw.randrange(9, len(data))]
    elif how == 5:  # no end
        data = data[:-draw.choice([12, 8, 4, 1, 14, 20])]
    elif how == 6:
        at = draw.randrange(8, len(data))
        data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1:]
    elif how == 7:
        data += draw.randbytes(draw.randrange(1, 100))
    elif how == 8:  # the checksum of the compressed data
        at = data.rindex(b"IEND") - 4 - 4 - draw.randrange(1, 5)
        data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
    return data


# Other formats


def damaged(picture):
    """Pictures of a format with bytes changed, cut, or more behind the end."""
    def draw_one(draw):
        data = bytearray(picture(draw))
        how = draw.randrange(3)
        if how == 0:
            for _ in range(draw.randrange(1, 4)):
                data[draw.randrange(len(data))] = draw.randrange(256)
        elif how == 1:
            del data[draw.randrange(1, len(data)):]
        else:
            data += draw.randbytes(50)
        return "jpg", bytes(data)
    return draw_one


PARTS = {
    "jpeg": lambda draw: ("jpg", jpeg(draw)),
    "jpeg-damage": lambda draw: ("jpg", jpeg_damage(draw)),
    "exif": exif,
    "png": lambda draw: ("png", png(draw)),
    "png-damage": lambda draw: ("png", png_damage(draw)),
}
for picture in (gif, bmp, tiff, pnm, webp):
    # Under the name of another format: contents count.
    PARTS[picture.__name__] = lambda draw, picture=picture: ("jpg", picture(draw))
    PARTS[f"{picture.__name__}-damage"] = damaged(picture)


# The comparison


STRICTER = {
    "Premature end of JPEG file": "no end of image: libjpeg reads ahead, by how much depends on the bytes before",
    "fax code that stands for nothing": "damage: libtiff guesses where the next row begins",
    "fax that lacks rows": "the same",
    "code that stands for nothing": "damage: libtiff goes on with the next strip",
    "Unsupported marker type": "damage behind the rows that libtiff asks of a JPEG, which TurboJPEG reads to its end",
    "TIFF of a kind that is not read": "damage made an unusual kind of it, such as LAB or JPEG from before TIFF 6.0",
    "TIFF without strips and tiles": "damage of the directory, in which libtiff finds other tags than Pillow",
    "Invalid Chunk header": "damage of a container, which libwebp reads on through",
    "An expected chunk was missing": "the same",
    "Image too large": "the same",
    "Corrupt bitstream": "damage of a lossless WebP, which libwebp reads on through",
}
"""Reasons for which tinyres refuses a damaged picture that Pillow reads, and why that is right or bearable."""


def digest(image):
    return hashlib.sha256(np.asarray(image).transpose(2, 0, 1).tobytes()).hexdigest()


TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}


def upright(image):
    """Pillow's picture. Where exif_transpose fails, since it cannot write the other entries again or cannot read
    the EXIF data at all, turned as that would have turned it."""
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001: Pillow raises whatever comes up
        try:
            turn = TURNS.get(image.getexif().get(0x0112))
        except Exception:  # noqa: BLE001
            turn = None
        image = image if turn is None else image.transpose(turn)
    return image.convert("RGB")


def pillow(data):
    """What Pillow makes of it: the digest of its pixels, or None."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image = upright(image)
    except Exception:  # noqa: BLE001
        return None
    return digest(image) if image.size == (SIDE, SIDE) else None


def shards(folder):
    """Digest of each image by name, the reasons for those refused, and the names of those with warnings."""
    images, refused, warned = {}, {}, set()
    for path in sorted(folder.glob("*-*.bin")):
        raw = path.read_bytes()
        count, c, h, w = struct.unpack_from("<QIII", raw, 24)[0], *struct.unpack_from("<III", raw, 32)
        places = [struct.unpack_from("<QQ", raw, 64 + 24 * index) for index in range(7)]
        section = lambda index: raw[places[index][0]:sum(places[index])]  # noqa: E731
        ends = np.frombuffer(section(4), "<u4")
        for index in range(count):
            name = section(5)[ends[index]:ends[index + 1]].decode()
            at = places[0][0] + index * c * h * w
            images[name] = hashlib.sha256(raw[at:at + c * h * w]).hexdigest()
        about = json.loads(section(6))
        refused.update({bad["name"]: bad["reason"] for bad in about["refused"]})
        warned.update(image["name"] for image in about.get("warned", []))
    return images, refused, warned


def drawn(asked):
    pictures = {}
    for part in asked.only:
        draw = random.Random(f"{asked.seed} {part}")
        for index in range(asked.count):
            extension, data = PARTS[part](draw)
            pictures[f"train/{part}/{index:05}.{extension}"] = data
    return pictures


def golden(folder, asked):
    expected = {}
    with zipfile.ZipFile(folder / "drawn.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in drawn(asked).items():
            if len(data) < 2000:
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
                expected[name] = pillow(data)
    (folder / "drawn.json").write_text(json.dumps(expected, indent=0) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tinyres", nargs="?")
    parser.add_argument("--golden", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(PARTS))
    asked = parser.parse_args()
    if asked.golden:
        golden(asked.golden, asked)
        return False
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        root = (asked.keep or Path(scratch)) / "set"
        pictures = drawn(asked)
        # Good ones, of which there are as many: what is refused is to be the smaller part.
        for index in range(len(pictures)):
            pictures[f"train/0-good/{index:05}.jpg"] = GOOD
        for name, data in pictures.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        out = root.parent / "shards"
        command = [asked.tinyres, "pack", root, "-o", out, "--skip-bad", "--force"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        images, refused, warned = shards(out)
        for part in asked.only:
            found, examples = Counter(), []
            for name, data in pictures.items():
                if not name.startswith(f"train/{part}/"):
                    continue
                theirs, ours = pillow(data), images.get(name)
                if ours is None:
                    reason = refused.get(name, "")
                    stricter = part.endswith("-damage") and any(text in reason for text in STRICTER)
                    what = "both refuse" if theirs is None else "stricter" if stricter else "REFUSED"
                elif theirs is None:
                    what = "packed, but not by Pillow"
                elif ours == theirs:
                    what = "equal"
                else:
                    # Nothing in a lossy WebP tells that it is damaged; two decoders make different noise of it.
                    noise = part == "webp-damage" and b"VP8 " in data
                    what = "other noise" if noise else "OTHER PIXELS"
                found[what] += 1
                if what == "equal" and name in warned:
                    found["of these with a warning"] += 1
                if what not in ("equal", "both refuse", "packed, but not by Pillow"):
                    examples.append(f"  {what}: {name} {refused.get(name, '')}")
            failed |= found["REFUSED"] + found["OTHER PIXELS"] > 0
            print(part, dict(sorted(found.items())), flush=True)
            examples.sort(key=lambda line: line.startswith(("  stricter", "  other noise")))  # Failures first.
            print("\n".join(examples[:40]), end="\n" if examples else "")
    return failed


GOOD = saved(scene(random.Random(0)), "JPEG")
if __name__ == "__main__":
    sys.exit(main())
