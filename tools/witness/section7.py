"""Section 7 of format/SPEC.md in NumPy: the order of an epoch, and flips and shifts with their draws.

    section7.py load/tests/golden/moved.bin

writes the 40 images of `golden()`, moved as epoch 3 of seed 7 moves them. The loader, the training pipeline and the
Python package are each compared with it.
"""

import sys
from pathlib import Path

import numpy as np

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
ORDER, AUGMENT = 0, 1


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def absorb(k, w):
    return mix(((k ^ w) + GOLDEN) & MASK)


def key(*words):
    k = 0
    for word in words:
        k = absorb(k, word)
    return k


def draw(k, n):
    return mix((k + (n + 1) * GOLDEN) & MASK)


def below(u, m):
    return (u * m) >> 64


def order(n, seed, epoch):
    """Numbers of the images of an epoch, in their order."""
    k = key(seed, ORDER, epoch)
    places = list(range(n))
    for i in range(n):
        j = i + below(draw(k, i), n - i)
        places[i], places[j] = places[j], places[i]
    return places


def move(image, seed, epoch, flip, shift):
    """Whether an image is mirrored, and by how many pixels it goes down and right."""
    k = key(seed, AUGMENT, epoch, image)
    mirrored = flip and below(draw(k, 0), 2) == 1
    down, right = (below(draw(k, n), 2 * shift + 1) - shift for n in (1, 2))
    return mirrored, down, right


def reflect(i, side):
    return (side - 1) - np.abs((side - 1) - np.abs(i))


def move_pixels(pixels, mirrored, down, right):
    """`pixels`, [C, H, W], moved."""
    _, height, width = pixels.shape
    columns = reflect(np.arange(width) - right, width)
    if mirrored:
        columns = width - 1 - columns
    return pixels[:, reflect(np.arange(height) - down, height)][:, :, columns]


def move_box(box, shape, mirrored, down, right):
    """A box in inclusive pixels, moved with the pixels of an image of `shape` (height, width)."""
    x0, y0, x1, y1 = box
    if x0 < 0:
        return [-1] * 4
    height, width = shape
    if mirrored:
        x0, x1 = width - 1 - x1, width - 1 - x0
    x0, x1 = max(x0 + right, 0), min(x1 + right, width - 1)
    y0, y1 = max(y0 + down, 0), min(y1 + down, height - 1)
    return [x0, y0, x1, y1] if x0 <= x1 and y0 <= y1 else [-1] * 4


def golden():
    """40 images of 3 x 6 x 8 bytes."""
    count = 40 * 3 * 6 * 8
    return (np.arange(count) * 151 % 251).astype(np.uint8).reshape(40, 3, 6, 8)


if __name__ == "__main__":
    moved = [move_pixels(pixels, *move(at, 7, 3, True, 3)) for at, pixels in enumerate(golden())]
    Path(sys.argv[1]).write_bytes(np.stack(moved).tobytes())
