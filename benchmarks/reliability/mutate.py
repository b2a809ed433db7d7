"""Structured mutations of HDF5 and TIFF files: most of the damage goes where the structure is."""

from __future__ import annotations

import random
import re
import struct

_EDGES = (
    0,
    1,
    2,
    3,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x7FFFFFFFFFFFFFFF,
    0xFFFFFFFFFFFFFFFF,
)
_HDF5_MARKS = re.compile(rb"\x89HDF|OHDR|OCHK|TREE|SNOD|HEAP|GCOL|FRHP|FHDB|BTHD|BTLF|FSHD|x_hat|sample_|z_step")


def structure(content: bytes) -> list[int]:
    """Offsets where the file's own structure lies: HDF5 signatures, TIFF header and directories."""
    if content[:4] == b"\x89HDF":
        return [m.start() for m in _HDF5_MARKS.finditer(content)] + [0, 8, 24, 40]
    return _tiff(content)


def _tiff(content: bytes) -> list[int]:
    end = "<" if content[:2] == b"II" else ">"
    offset, found = struct.unpack_from(end + "I", content, 4)[0], [0, 2, 4]
    while offset and offset + 2 <= len(content) and len(found) < 4000:
        count = struct.unpack_from(end + "H", content, offset)[0]
        found += [offset, *(offset + 2 + 12 * i for i in range(count))]
        last = offset + 2 + 12 * count
        offset = struct.unpack_from(end + "I", content, last)[0] if last + 4 <= len(content) else 0
    return found


def mutate(content: bytes, places: list[int], rng: random.Random) -> bytes:
    """One to eight changes."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        near = rng.random() < 0.85
        at = rng.choice(places) + rng.randrange(0, 96) if near else rng.randrange(len(damaged) or 1)
        at = min(at, max(len(damaged) - 1, 0))
        _change(damaged, at, rng)
    return bytes(damaged)


def _change(damaged: bytearray, at: int, rng: random.Random) -> None:
    kind = rng.randrange(10)
    size = rng.choice((1, 2, 4, 8))
    if kind < 2 and damaged:
        damaged[at] ^= 1 << rng.randrange(8)
    elif kind < 6:
        value = rng.choice((*_EDGES, len(damaged), rng.getrandbits(64))) & (1 << 8 * size) - 1
        damaged[at : at + size] = value.to_bytes(size, rng.choice(("little", "little", "big")))
    elif kind == 6:
        source = rng.randrange(len(damaged) or 1)
        damaged[at : at + 16 * size] = damaged[source : source + 16 * size]
    elif kind == 7:
        del damaged[at : at + rng.choice((1, 4, 64, 512))]
    elif kind == 8:
        damaged[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
    else:
        del damaged[max(at, 64) :]
