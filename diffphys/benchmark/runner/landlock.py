"""Landlock: from here on this process opens no file outside the given folders, whatever library asks.

HDF5 follows external links, external storage and virtual datasets wherever they point; the kernel then says no. Linux 5.13 or
newer; system calls 444 to 446.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Sequence
from pathlib import Path

_CREATE, _ADD, _RESTRICT, _NO_NEW_PRIVILEGES = 444, 445, 446, 38
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # bits of file rights by version of the interface; 16 from 5 on
_READ_FILE, _READ_FOLDER, _EXECUTE = 1 << 2, 1 << 3, 1 << 0
_NO_TCP = 3  # bind and connect, from version 4 on


def allow_reading(folders: Sequence[Path]) -> bool:
    """Read these folders, write nothing, open nothing else. False, and nothing changed, where the kernel has no Landlock."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)
    if version <= 0:
        return False
    rights = (1 << _RIGHTS.get(version, 16)) - 1
    handled = struct.pack("QQ", rights, _NO_TCP) if version >= 4 else struct.pack("Q", rights)
    ruleset = libc.syscall(_CREATE, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return False
    for folder in folders:
        place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _READ_FILE | _READ_FOLDER | _EXECUTE, place)
        done = libc.syscall(_ADD, ruleset, 1, rule, 0)
        os.close(place)
        if done:
            raise OSError(ctypes.get_errno(), f"landlock refuses {folder}")
    held = libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and libc.syscall(_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return held


def allow_one_more_file() -> None:
    """Without Landlock: one file may be open at a time from here on, so that an open HDF5 file cannot lead to a second."""
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))
