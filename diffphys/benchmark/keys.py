"""Where the benchmark's randomness comes from: a published constant for public, a secret key for dev and hidden.

Every stream is HMAC-SHA256(key, version / modality / tier / index / purpose / attempt); knowing one stream tells nothing about
another. Losing the secret loses the tier, publishing it ends it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

import numpy as np

from diffphys.benchmark.tiers import VERSION

PUBLIC_KEY = b"diffphys benchmark, public tier"
SECRET_BYTES = 32


def make_secret(path: Path | str) -> bytes:
    """A new secret key in a new file of mode 0600; FileExistsError where the file is already there."""
    secret = os.urandom(SECRET_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except FileExistsError:
        raise ValueError(f"{path} already holds a secret; it is never overwritten: choose another file or use it") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret


def read_secret(path: Path | str) -> bytes:
    """The secret of a file that nobody else can read; ValueError in one line where it cannot be used."""
    path = Path(path)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise ValueError(f"{path} can be read by others (mode {stat.S_IMODE(mode):o}); make it private: chmod 600 {path}")
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"{path} holds no secret; expected {2 * SECRET_BYTES} hexadecimal digits")
    return secret


def key_of(tier: str, secret: bytes | None) -> bytes:
    """The key that a tier is drawn with."""
    if tier == "public":
        return PUBLIC_KEY
    if secret is None:
        raise ValueError(f"tier {tier} needs the secret key; pass --secret FILE, or let `benchmark create` make one")
    return secret


def stream(key: bytes, modality: str, tier: str, index: int, purpose: str, *, attempt: int = 0) -> np.random.Generator:
    """Random numbers of one purpose (scene, spec, photons, noise, ...) of one sample."""
    label = "/".join((VERSION, modality, tier, str(index), purpose, str(attempt)))
    digest = hmac.new(key, label.encode("ascii"), hashlib.sha256).digest()
    return np.random.default_rng(np.frombuffer(digest, "<u4"))
