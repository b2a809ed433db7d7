"""The chain of directories in a TIFF, walked before a library does: damage can lead it, and a reader, round for ever."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

MOST = 100_000  # directories of one file
_CLASSIC, _BIG = 42, 43


def check_chain(path: Path | str) -> int:
    """Number of directories of a TIFF.

    Raises:
        ValueError: one line; the chain returns to a directory it has been at, or has more than `MOST` entries.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2), "")
        version = _number(file, 2, f"{order}H") if order else None
        if version not in (_CLASSIC, _BIG):
            return 0  # no TIFF: the library says so in its own words
        start, count, entry, link = (4, "H", 12, "I") if version == _CLASSIC else (8, "Q", 20, "Q")
        offset, seen = _number(file, start, order + link), set[int]()
        while offset:
            if offset in seen or len(seen) >= MOST:
                what = "leads back to itself" if offset in seen else f"has more than {MOST} entries"
                raise ValueError(f"{path.name} is damaged: its list of images {what}; copy the file again from its source")
            seen.add(offset)
            entries = _number(file, offset, order + count)
            if entries is None or offset + struct.calcsize(f"={count}") + entries * entry > size:
                return len(seen) - 1  # the last one is cut short: the library says so
            offset = _number(file, offset + struct.calcsize(f"={count}") + entries * entry, order + link)
        return len(seen)


def _number(file: BinaryIO, offset: int, kind: str) -> int | None:
    """The number at an offset; None beyond the end."""
    file.seek(offset)
    content = file.read(struct.calcsize(kind))
    return struct.unpack(kind, content)[0] if len(content) == struct.calcsize(kind) else None
