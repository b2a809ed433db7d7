"""The system calls no job needs, as a BPF program for bubblewrap and as a profile for docker and podman.

After isolate and reliability notes of DOMjudge and moby: kernel keyrings, io_uring, bpf, perf, ptrace, mounts, namespaces,
modules, clocks, and every socket family but unix and internet (AF_VSOCK reaches the host without any network namespace).
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from typing import Any

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH, column below
_DENIED = {
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "fsmount": (432, 432), "fsconfig": (431, 431), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "setns": (308, 268), "unshare": (272, 97),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89), "quotactl": (179, 60),
    "syslog": (103, 116), "personality": (135, 92), "vhangup": (153, 58),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161), "setdomainname": (171, 162),
    "modify_ldt": (154, None), "ioperm": (173, None), "iopl": (172, None),
}  # fmt: skip
_SOCKET, _CLONE, _CLONE3, _IOCTL = (41, 198), (56, 220), (435, 435), (16, 29)
_FAMILIES = (1, 2, 10)  # unix, internet
_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag
_TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|..., BPF_RET
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; an argument's low half comes first
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_DENY, _ABSENT = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS


def supported() -> bool:
    """Whether there is a table for this processor."""
    return platform.machine() in _ARCHITECTURES


def program() -> bytes:
    """The filter for this processor: an array of struct sock_filter.

    Raises:
        ValueError: no table for this processor.
    """
    if not supported():
        raise ValueError(f"no system-call filter for {platform.machine()}; known: {', '.join(_ARCHITECTURES)}")
    arch, column = _ARCHITECTURES[platform.machine()]
    code = [_step(_LOAD, _ARCH), _step(_EQUAL, arch, skip_if=1), _step(_RETURN, _KILL), _step(_LOAD, _NUMBER)]
    if column == 0:
        code += _when(_AT_LEAST, 0x40000000, _DENY)  # x32 calls would pass under other numbers
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            code += _when(_EQUAL, number, _DENY)
    code += _when(_EQUAL, _CLONE3[column], _ABSENT)  # its flags lie in memory, out of sight; libc falls back to clone
    code += _inspect(_CLONE[column], 0, [*_when(_ANY_BIT, _NEW_NAMESPACES, _DENY), _step(_RETURN, _ALLOW)])
    code += _inspect(
        _IOCTL[column], 1, [s for r in _TERMINAL_INJECTION for s in _when(_EQUAL, r, _DENY)] + [_step(_RETURN, _ALLOW)]
    )
    families = [s for f in _FAMILIES for s in _when(_EQUAL, f, _ALLOW)]
    code += _inspect(_SOCKET[column], 0, [*families, _step(_RETURN, _DENY)])
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def descriptor() -> int:
    """The program in a file that lives in memory, ready to be passed on."""
    fd = os.memfd_create("seccomp")
    os.write(fd, program())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def profile() -> dict[str, Any]:
    """The same rules as an OCI seccomp profile."""
    deny = {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    families = [{"index": 0, "value": f, "op": "SCMP_CMP_EQ"} for f in _FAMILIES]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": [*_DENIED], **deny},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
            *(
                {"names": ["clone"], "args": [{"index": 0, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"}], **deny}
                for bit in (1 << i for i in range(32))
                if bit & _NEW_NAMESPACES
            ),
            *(
                {"names": ["socket"], "args": [{"index": 0, "value": f, "op": "SCMP_CMP_EQ"}], **deny}
                for f in range(46)
                if f not in {entry["value"] for entry in families}
            ),
            *(
                {"names": ["ioctl"], "args": [{"index": 1, "value": r, "op": "SCMP_CMP_EQ"}], **deny}
                for r in _TERMINAL_INJECTION
            ),
        ],
    }


def _step(code: int, value: int, *, skip_if: int = 0, skip_else: int = 0) -> bytes:
    return struct.pack("=HBBI", code, skip_if, skip_else, value)


def _when(test: int, value: int, then: int) -> list[bytes]:
    """If the loaded number passes the test, end with `then`."""
    return [_step(test, value, skip_else=1), _step(_RETURN, then)]


def _inspect(number: int, argument: int, body: list[bytes]) -> list[bytes]:
    """For this call, load an argument and run the body, which ends the program."""
    return [_step(_EQUAL, number, skip_else=len(body) + 1), _step(_LOAD, _ARGUMENT + 8 * argument), *body]
