"""What a contestant hands in, and how it is called: `solve --input /input/challenge.h5 --output /output/submission.h5`.

A solver is a Python script (a file, or a folder with `solve.py`), or a container image with a program `solve` on its path,
or a script together with the image to run it in. `diffphys/benchmark/solver/` holds an example and a Dockerfile.

Each sample is a job of its own: the input is a challenge file with one sample named `sample_00`, whatever its place in the
tier, and the output is a submission for that file. Nothing is kept between jobs.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

ARGUMENTS = ("--input", "/input/challenge.h5", "--output", "/output/submission.h5")
_MAX_SCRIPT = 2**20
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:@-]{0,254}\Z")


@dataclass(frozen=True)
class Solver:
    """Code of a contestant.

    Attributes:
        script: file or folder with solve.py; None for an image with a `solve` of its own.
        image: name of a local container image; None runs the script under the organiser's Python.
    """

    script: Path | None = None
    image: str | None = None

    @classmethod
    def parse(cls, text: str, *, image: str | None = None) -> Solver:
        """`solve.py`, a folder, or `image:NAME`.

        Raises:
            ValueError: there is no such script, it is a link, or it is too large.
        """
        if text.startswith("image:"):
            return cls(image=_image(text.removeprefix("image:")))
        path = Path(text)
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"solver is {text!r}; expected a Python script, a folder with solve.py, or image:NAME")
        if path.is_dir() and not (path / "solve.py").is_file():
            raise ValueError(f"solver folder {text} has no solve.py; the program to run must have that name")
        return cls(script=path.resolve(), image=None if image is None else _image(image))

    def command(self) -> list[str]:
        """The call as seen inside the sandbox."""
        if self.script is None:
            return ["solve", *ARGUMENTS]
        return ["python3" if self.image else sys.executable, "/algo/solve.py", *ARGUMENTS]

    def stage(self, place: Path) -> Path | None:
        """What appears as /algo: a folder is bound as it is, a single file is copied into `place` as solve.py."""
        if self.script is None or self.script.is_dir():
            return self.script
        place.mkdir(mode=0o755)
        descriptor = os.open(self.script, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode) or os.fstat(descriptor).st_size > _MAX_SCRIPT:
                raise ValueError(f"solver {self.script} is not a plain file of at most {_MAX_SCRIPT} bytes")
            (place / "solve.py").write_bytes(file.read(_MAX_SCRIPT))
        (place / "solve.py").chmod(0o644)
        return place


def _image(name: str) -> str:
    if not _IMAGE.match(name):
        raise ValueError(f"image is {name!r}; expected a name like team/solver:1 or team/solver@sha256:...")
    return name
