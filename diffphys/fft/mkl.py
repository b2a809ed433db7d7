"""MKL's real FFT as a CPU lowering of the two primitives: find the packages, compile the bridge once, load it, register it.

The bridge (`mkl.cc`, ours) is compiled against the user's own jaxlib and MKL on first use and kept in the user's cache; no
binary ships. MKL itself comes from its own packages under the Intel Simplified Software License, which permits use and
unmodified redistribution; it is no part of this package.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax.interpreters import mlir

from diffphys.cache import folder
from diffphys.cores import cores
from diffphys.fft.primitives import c2r, native_c2r, native_r2c, r2c
from diffphys.io.atomic import replacing
from diffphys.types import Array

SOURCE = Path(__file__).with_name("mkl.cc")
FLAGS = ("-O2", "-std=c++17", "-shared", "-fPIC")
SMALL = 2**10  # real numbers; below it MKL gains nothing
TBB = 4  # MKL's number of the threading layer whose idle threads sleep: no spinning beside XLA's own threads


class Files(NamedTuple):
    """MKL as its packages installed it."""

    version: str
    library: Path
    threads: Path
    include: Path


def installed() -> Files | None:
    """MKL's files, or None where a package is absent. Nothing is loaded."""
    library, threads = _file("mkl", "libmkl_rt.so"), _file("tbb", "libtbb.so.12")
    header = _file("mkl-include", "mkl_dfti.h")
    if library is None or threads is None or header is None:
        return None
    return Files(metadata.version("mkl"), library, threads, header.parent)


def _file(package: str, start: str) -> Path | None:
    """First existing file of an installed package whose name begins so."""
    try:
        listed = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(f.locate())).resolve() for f in listed if f.name.startswith(start))
    return next((path for path in found if path.is_file()), None)


def enable(files: Files) -> Path:
    """Make MKL the CPU lowering of the primitives in this process; the path of the bridge.

    Raises:
        OSError, RuntimeError: it cannot be compiled, kept or loaded; one line.
    """
    path = build(files)
    ctypes.CDLL(str(files.threads))  # MKL looks for it by name, and not in its own folder
    ctypes.CDLL(str(files.library)).MKL_Set_Threading_Layer(TBB)
    bridge = ctypes.CDLL(str(path))
    for name in ("diffphys_mkl_r2c", "diffphys_mkl_c2r"):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(bridge, name)), platform="cpu")
    mlir.register_lowering(r2c, mlir.lower_fun(_r2c, multiple_results=False), platform="cpu")
    mlir.register_lowering(c2r, mlir.lower_fun(_c2r, multiple_results=False), platform="cpu")
    return path


def build(files: Files) -> Path:
    """The compiled bridge for this jaxlib, MKL and source, compiled now if the cache lacks it."""
    told = (SOURCE.read_text(), FLAGS, jaxlib.__version__, platform.machine(), *files)
    path = folder("fft") / f"mkl-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}.so"
    if path.is_file():
        return path
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        raise RuntimeError("there is no C++ compiler (Debian, Ubuntu: apt-get install g++)")
    include = [f"-isystem{jax.ffi.include_dir()}", f"-isystem{files.include}"]
    link = [str(files.library), f"-Wl,-rpath,{files.library.parent}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        command = [*compiler.split(), *FLAGS, *include, str(SOURCE), "-o", str(temporary), *link]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{compiler} did not finish {SOURCE.name} within 5 minutes") from None
        if done.returncode:
            first = next((line for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
            raise RuntimeError(f"{compiler} does not compile {SOURCE.name}: {' '.join(first.split())}")
    return path


def _r2c(x: Array, *, ndim: int) -> Array:
    if x.size < SMALL:
        return native_r2c(x, ndim=ndim)
    half = jax.ShapeDtypeStruct((*x.shape[:-1], x.shape[-1] // 2 + 1), jnp.complex64)
    return _call("diffphys_mkl_r2c", half, ndim)(x)


def _c2r(spectrum: Array, *, ndim: int, width: int) -> Array:
    real = jax.ShapeDtypeStruct((*spectrum.shape[:-1], width), jnp.float32)
    if real.size < SMALL:
        return native_c2r(spectrum, ndim=ndim, width=width)
    used = jax.ShapeDtypeStruct(spectrum.shape, jnp.complex64)  # the bridge makes its input Hermitian in place
    return _call("diffphys_mkl_c2r", (real, used), ndim, input_output_aliases={0: 1})(spectrum)[0]


def _call(name: str, out: Any, ndim: int, **more: Any) -> partial:
    call = jax.ffi.ffi_call(name, out, **more)
    return partial(call, rank=np.int64(ndim), threads=np.int64(cores()))
