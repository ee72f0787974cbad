"""Weights, pictures and features out of names and numbers, the same as crates/lab/tests/seeded/mod.rs makes them.

A stream is a name; its values are hashes of the name and a counter, so that both languages make the same ones and only
the results of the comparison have to be kept.
"""

import numpy as np

REAL, MADE = "real", "made"
WIDTH, HEIGHT = 80, 64


def _mix(z):
    """The finaliser of SplitMix64, on an array of 64-bit numbers."""
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _hashes(name, counters):
    """FNV-1a of the name, mixed with each counter."""
    stream = 0xCBF29CE484222325
    for byte in name.encode():
        stream = ((stream ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        return _mix(np.uint64(stream) + np.asarray(counters, dtype=np.uint64))


def uniform(name, count):
    """The first numbers of a stream, in [-1, 1), without rounding."""
    return (_hashes(name, np.arange(count)) >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def weights(name, shape):
    """The tensor `name` of a network, of sizes that keep its features within bounds, as float32."""
    values = uniform(name, int(np.prod(shape)))
    if len(shape) == 4 and shape[0] == 1 and shape[2:] == [1, 1]:
        values = (values + 1) / 2  # a head of LPIPS: no weight is negative
    elif len(shape) == 4:
        values = values * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith(".bn.weight") or name.endswith(".running_var"):
        values = 1 + 0.2 * values
    else:
        values = 0.2 * values
    return values.astype(np.float32).reshape(shape)


def picture(kind, index, width=WIDTH, height=HEIGHT):
    """A picture [height, width, 3] of coloured squares under noise; the two kinds differ in both."""
    cell, coarse_weight, fine_weight, offset = {REAL: (16, 6, 2, 0), MADE: (8, 5, 1, 192)}[kind]
    y, x, channel = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    place = lambda x, y: (y * 1024 + x) * 3 + channel
    coarse = _hashes(f"{kind}/{index}/coarse", place(x // cell, y // cell)) >> np.uint64(56)
    fine = _hashes(f"{kind}/{index}/fine", place(x, y)) >> np.uint64(56)
    value = (coarse.astype(np.int64) * coarse_weight + fine.astype(np.int64) * fine_weight + offset) // 8
    return value.astype(np.uint8)


def features(kind, count, width):
    """Features [count, width] of no picture, for measures on more of them than a network makes in a test."""
    values = uniform(f"{kind}/features", count * width).reshape(count, width)
    values[:, : width // 2] += values[:, width // 2 :]
    if kind == MADE:
        values = values * 0.95 + 0.35
    return values.astype(np.float32)


def mask(width, height):
    """Two bands of roads across patches, as booleans [height, width]."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    patches = _hashes("mask", (y // 3) * 1024 + x // 3) >> np.uint64(61) == 0
    return ((x * 3 + y * 2) % 37 < 14) & (y % 40 > 5) | ((x + 200 - 2 * y) % 29 < 5) | patches
