"""Where this user's computer keeps what can be made again: compiled programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder(part: str) -> Path:
    """The folder of one part ("xla", "fft") in the user's cache; it may be absent."""
    return _home() / "diffphys" / part


def _home() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home()))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
