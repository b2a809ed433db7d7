"""How a sandboxed job ended: a code from a fixed list, never the job's own words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Outcome of one job; everything but OK scores 0 for its sample."""

    OK = "OK"
    EXIT = "E_EXIT"
    CRASH = "E_CRASH"
    TIME = "E_TIME"
    CPU = "E_CPU"
    MEMORY = "E_MEMORY"
    DISK = "E_DISK"
    NO_OUTPUT = "E_NO_OUTPUT"
    EXTRA_FILES = "E_EXTRA_FILES"
    NOT_REGULAR = "E_NOT_REGULAR"
    FILE_TOO_BIG = "E_FILE_TOO_BIG"
    SUBMISSION = "E_SUBMISSION"
    READER_CRASH = "E_READER_CRASH"
    READER_TIME = "E_READER_TIME"


REMEDY = {
    Code.OK: "",
    Code.EXIT: "the solver ended with a non-zero exit status; run it on a public challenge first",
    Code.CRASH: "the solver was ended by a signal; run it on a public challenge first",
    Code.TIME: "the solver ran past the wall-clock limit; make it faster",
    Code.CPU: "the solver used more processor time than allowed; make it faster",
    Code.MEMORY: "the solver used more memory than allowed; use less",
    Code.DISK: "the solver wrote more than allowed; write submission.h5 only",
    Code.NO_OUTPUT: "the solver wrote no /output/submission.h5",
    Code.EXTRA_FILES: "/output holds more than submission.h5; write that file only",
    Code.NOT_REGULAR: "/output/submission.h5 is not a plain file; write the file itself, no link",
    Code.FILE_TOO_BIG: "/output/submission.h5 is larger than twice its arrays; write float32, one copy",
    Code.SUBMISSION: "the submission does not follow the format; check it with `diffphys benchmark validate`",
    Code.READER_CRASH: "the submission is damaged HDF5; write it with `diffphys.io.submission`",
    Code.READER_TIME: "the submission is damaged HDF5; write it with `diffphys.io.submission`",
}


@dataclass(frozen=True)
class Verdict:
    """One job's end.

    Attributes:
        code: the outcome.
        output: bytes of `/output/submission.h5`, hostile until read by `jail`; empty unless code is OK.
        log: first 64 KiB of stdout and stderr without control characters; for the organiser's eyes only.
        seconds: wall time, start and end of the sandbox included.
        peak_bytes: largest resident memory seen by the watch, all processes together.
        detail: what the organiser may want to know, one line.
    """

    code: Code
    output: bytes = b""
    log: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    detail: str = ""


class NoSandbox(ValueError):
    """No backend contains a stranger's code on this machine; the message begins with E_NO_SANDBOX and names the remedy."""
