"""Write HDF5 whole or not at all: built in memory, then written as bytes.

libhdf5 that meets a full disk cannot close its file any more and takes the process down with it; bytes that do not fit are an
ordinary OSError, and the old file stays.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from diffphys.io.atomic import replacing


@contextmanager
def replacing_hdf5(path: Path | str, *, mode: int | None = None) -> Iterator[h5py.File]:
    """An empty HDF5 file to fill; it takes the place of `path` when the block ends without an exception.

    Args:
        path: the file.
        mode: its permissions from the first byte on, e.g. 0o600; the process's own if None.

    Raises:
        OSError: the folder is absent or not writable, or the disk is full; `path` is then as it was.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        yield file
    with replacing(path) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(temporary, flags, 0o666 if mode is None else mode), "wb") as out:
            out.write(buffer.getbuffer())
