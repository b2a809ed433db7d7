"""The folder of results: refused before the work when it cannot be used, filled at the end, never half-written."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

IMAGES = ("reconstruction.ome.tif", "uncertainty.ome.tif", "prediction.ome.tif")
RESULTS = (*IMAGES, "calibration.json", "figure.png", "run.json", "report.html")


class OutputFolder:
    """Results are written into a hidden folder beside their place and moved there when all of them are complete.

    Use as a context manager; `path(name)` is where to write, `publish()` moves everything that was written into place. What was
    not published when the block ends, by an exception or by Ctrl-C, is removed.

    Args:
        target: the folder; created if absent.
        names: the result files of this command; one of them already in the folder is a reason to refuse.
        overwrite: replace such files instead.

    Raises:
        ValueError: `target` is a file, or holds results and `overwrite` is off.
        OSError: the folder cannot be written.
    """

    def __init__(self, target: Path | str, *, names: Sequence[str] = RESULTS, overwrite: bool = False) -> None:
        self.target, self.names, self.overwrite = Path(target), tuple(names), overwrite
        self.staging: Path | None = None

    def __enter__(self) -> OutputFolder:
        for folder in (self.target, *self.target.parents):
            if folder.exists() and not folder.is_dir():
                raise ValueError(f"output folder {self.target} cannot be made: {folder} is a file; choose another --output")
        found = [n for n in self.names if (self.target / n).exists()]
        if found and not self.overwrite:
            raise ValueError(f"output folder {self.target} already holds {found[0]}; choose another, or add --overwrite")
        self.created = not self.target.exists()
        home = next(f for f in (self.target, *self.target.parents) if f.exists())
        self.staging = home / f".tmp-diffphys-{secrets.token_hex(6)}"
        atexit.register(self.__exit__)  # a Ctrl-C between here and the block's first line leaves nothing either
        try:
            self.staging.mkdir(mode=0o700)
        except OSError as error:
            raise ValueError(
                f"output folder {self.target} is not writable ({error.strerror}); choose another --output"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.staging is not None:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging = None
        atexit.unregister(self.__exit__)

    def path(self, name: str) -> Path:
        """Where to write the result `name`."""
        assert self.staging is not None, "use OutputFolder in a with statement"
        return self.staging / name

    def publish(self) -> list[str]:
        """Move what was written into the folder, `run.json` last, and drop results of an earlier run; their names."""
        assert self.staging is not None, "use OutputFolder in a with statement"
        written = sorted((p.name for p in self.staging.iterdir()), key=lambda n: (n == "run.json", n))
        self.target.mkdir(parents=True, exist_ok=True)
        for stale in set(self.names) - set(written):
            (self.target / stale).unlink(missing_ok=True)
        for name in written:
            os.replace(self.staging / name, self.target / name)
        return written
