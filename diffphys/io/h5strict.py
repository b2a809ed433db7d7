"""Read foreign HDF5 by a closed schema: only hard links, plain layouts, exact shapes and types, sizes checked before reading.

h5py follows external links, external storage and virtual datasets to any file, and a declared size costs nothing; so every
path component is asked for by its exact name and inspected before it is opened, and nothing is walked.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5o, h5s, h5t, h5z

MAX_BYTES = 4 * 2**30  # of one dataset, declared
TEXT_BYTES = 128
_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
_MAGIC = b"\x89HDF\r\n\x1a\n"


@contextmanager
def opened(path: Path | str) -> Iterator[h5py.File]:
    """The file, read-only; a one-line ValueError for anything that is not a plain HDF5 file."""
    path = Path(path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a named pipe must not block
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path.name} is not a regular file; expected an HDF5 file")
        if os.read(descriptor, 8) != _MAGIC:
            raise ValueError(f"{path.name} is not HDF5 (it does not begin with the HDF5 signature)")
    finally:
        os.close(descriptor)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _damaged(path.name, error) from None
    with file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError, OverflowError) as error:
            raise _damaged(path.name, error) from None


@contextmanager
def staged(path: Path | str, *, limit: int) -> Iterator[tuple[h5py.File, str]]:
    """A stranger's file, read whole into memory, and the sha256 of what was read; nothing can be swapped underneath.

    ValueError in one line for a link, a file with several names, one that is no plain HDF5 file or exceeds `limit` bytes.
    """
    content = _content(Path(path), limit)
    try:
        file = h5py.File(_Named(content, Path(path).name), "r")
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        raise _damaged(Path(path).name, error) from None
    with file:
        try:
            yield file, hashlib.sha256(content).hexdigest()
        except (OSError, RuntimeError, KeyError, MemoryError, OverflowError) as error:
            raise _damaged(Path(path).name, error) from None


class _Named(io.BytesIO):
    """Bytes that h5py calls by the file's name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.called = name

    def __repr__(self) -> str:
        return self.called


def _content(path: Path, limit: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if path.is_symlink():
            raise ValueError(f"{path.name} is a symbolic link; expected the file itself") from None
        raise error
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"{path.name} is not a regular file; expected an HDF5 file")
        if about.st_nlink != 1:
            raise ValueError(f"{path.name} has {about.st_nlink} names (hard links); expected a file of its own")
        content = file.read(limit + 1) if about.st_size <= limit else b""
    if about.st_size > limit or len(content) > limit:
        raise ValueError(f"{path.name} has {max(about.st_size, len(content))} bytes; at most {limit} are read")
    if not content.startswith(_MAGIC):
        raise ValueError(f"{path.name} is not HDF5 (it does not begin with the HDF5 signature)")
    return content


def _damaged(name: str, error: BaseException) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"cannot read {name} as HDF5 (damaged or cut short): {reason}")


def group(parent: h5py.Group, name: str) -> h5py.Group:
    """Member group of exactly this name, reached by a hard link."""
    _check_link(parent, name, h5o.TYPE_GROUP, "a group")
    return parent[name]


def expect_members(parent: h5py.Group, *, needed: Collection[str], optional: Collection[str] = ()) -> set[str]:
    """The members present; ValueError when one is missing or unknown."""
    there = {n for n in (*needed, *optional) if parent.id.links.exists(n.encode())}
    missing = [n for n in needed if n not in there]
    if missing:
        raise ValueError(f"{where(parent)} lacks {missing[0]!r}; expected {', '.join(needed)}")
    if len(parent.id) != len(there):
        names = (parent.id.get_objname_by_idx(i).decode("utf-8", "replace") for i in range(len(parent.id)))
        stranger = next(n for n in names if n not in there)
        raise ValueError(f"{where(parent)} has unknown member {stranger!r}; allowed: {', '.join((*needed, *optional))}")
    return there


def expect_attributes(item: Any, *, needed: Collection[str], optional: Collection[str] = ()) -> set[str]:
    """The attributes present; ValueError when one is missing or there are others."""
    there = {n for n in (*needed, *optional) if h5a.exists(item.id, n.encode())}
    missing = [n for n in needed if n not in there]
    if missing:
        raise ValueError(f"{where(item)} lacks attribute {missing[0]!r}; expected {', '.join(needed)}")
    if h5a.get_num_attrs(item.id) != len(there):
        raise ValueError(f"{where(item)} has unknown attributes; allowed: {', '.join((*needed, *optional))}")
    return there


def text(item: Any, name: str) -> str:
    """Attribute of fixed-length ASCII text."""
    kind = _attribute(item, name, scalar=True)
    if not isinstance(kind, h5t.TypeStringID) or kind.is_variable_str() or kind.get_size() > TEXT_BYTES:
        raise ValueError(f"attribute {name!r} of {where(item)} is not fixed-length text of at most {TEXT_BYTES} bytes")
    try:
        return bytes(item.attrs[name]).decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"attribute {name!r} of {where(item)} is not ASCII text") from None


def numbers(item: Any, name: str, *, length: int | None = None) -> np.ndarray:
    """Attribute of float64: a scalar (length None, shape ()) or a vector of 1 to 16 (length 0: any such)."""
    kind = _attribute(item, name, scalar=length is None)
    if kind != h5t.IEEE_F64LE:
        raise ValueError(f"attribute {name!r} of {where(item)} is not float64")
    value = np.asarray(item.attrs[name], np.float64)
    if length is not None and not (value.ndim == 1 and 1 <= value.size <= 16 and length in (0, value.size)):
        raise ValueError(
            f"attribute {name!r} of {where(item)} has shape {value.shape}; expected a vector of {length or '1-16'}"
        )
    if not np.isfinite(value).all():
        raise ValueError(f"attribute {name!r} of {where(item)} is not finite")
    return value


def number(item: Any, name: str) -> float:
    return float(numbers(item, name))


def array(parent: h5py.Group, name: str, shape: tuple[int, ...], *, dtype: Any = h5t.IEEE_F32LE) -> np.ndarray:
    """Member dataset of exactly this shape and type, finite; everything is checked before a byte of it is read."""
    _check_link(parent, name, h5o.TYPE_DATASET, "a dataset")
    data: h5py.Dataset = parent[name]
    here, plist, space = where(data), data.id.get_create_plist(), data.id.get_space()
    if plist.get_layout() not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED) or plist.get_external_count():
        raise ValueError(f"{here} is stored outside the file or virtual; expected plain storage")
    kind = data.id.get_type()
    if kind.committed() or kind != dtype:
        raise ValueError(f"{here} has type {data.dtype}; expected little-endian float{8 * dtype.get_size()}")
    if space.get_simple_extent_type() != h5s.SIMPLE or space.get_simple_extent_dims() != tuple(shape):
        raise ValueError(f"{here} has shape {space.get_simple_extent_dims()}; expected {tuple(shape)}")
    declared = int(np.prod(shape, dtype=np.float64)) * kind.get_size()
    if declared > MAX_BYTES:
        raise ValueError(f"{here} declares {declared} bytes; at most {MAX_BYTES} are read")
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if len(set(filters)) != len(filters) or not set(filters) <= _FILTERS:
        raise ValueError(f"{here} uses filters {filters}; allowed once each: deflate, shuffle, fletcher32")
    if plist.get_layout() == h5d.CHUNKED and any(c > n for c, n in zip(plist.get_chunk(), shape, strict=True)):
        raise ValueError(f"{here} has chunks {plist.get_chunk()} larger than its shape {tuple(shape)}")
    stored = data.id.get_storage_size()
    if not stored or (declared > 2**20 and declared > 1000 * stored):
        raise ValueError(f"{here} stores {stored} bytes for {declared}; expected real data")
    if h5a.get_num_attrs(data.id) > 16:
        raise ValueError(f"{here} has more than 16 attributes")
    value = data[()]
    if not np.isfinite(value).all():
        raise ValueError(f"{here} holds NaN or infinite values; expected finite numbers")
    return value


def where(item: Any) -> str:
    """`file.h5:/sample_00/y`, for messages."""
    return f"{Path(item.file.filename).name}:{item.name}"


def _check_link(parent: h5py.Group, name: str, kind: int, what: str) -> None:
    here = f"{where(parent).rstrip('/')}/{name}"
    if "/" in name or not name.isascii():
        raise ValueError(f"{here} is not a plain name")
    links = parent.id.links
    if not links.exists(name.encode()):
        raise ValueError(f"{here} does not exist")
    if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{here} is a soft or external link; expected {what} in the file itself")
    info = h5o.get_info(parent.id, name.encode())
    if info.type != kind or info.rc != 1:
        raise ValueError(f"{here} is not {what} with one name")


def _attribute(item: Any, name: str, *, scalar: bool) -> Any:
    attribute = h5a.open(item.id, name.encode())
    rank = len(attribute.shape)
    if (
        attribute.get_space().get_simple_extent_type() == h5s.NULL
        or rank != (0 if scalar else 1)
        or np.prod(attribute.shape) > 16
    ):
        raise ValueError(
            f"attribute {name!r} of {where(item)} has shape {attribute.shape}; expected a {'number' if scalar else 'vector'}"
        )
    kind = attribute.get_type()
    if kind.committed():
        raise ValueError(f"attribute {name!r} of {where(item)} has a committed type")
    return kind
