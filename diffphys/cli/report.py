"""`diffphys report`: the output folder of a run as one page to look at and to pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffphys.cli.session import progress, warn

RunFolder = Annotated[Path, typer.Argument(help="Output folder of reconstruct, calibrate or demo.", show_default=False)]
Page = Annotated[Path | None, typer.Option("--output", "-o", help="HTML file to write; RUN/report.html if left out.")]
Stack = Annotated[Path | None, typer.Option("--measurement", help="The measured stack, if it is no longer where it was.")]


def report(run: RunFolder, output: Page = None, measurement: Stack = None) -> None:
    """Write one self-contained HTML page of a finished run; a page that is there is replaced."""
    target = run / "report.html" if output is None else output
    if not target.resolve().parent.is_dir() or target.is_dir():
        raise ValueError(f"{target} cannot be written: expected a file in a folder that exists; choose another --output")
    from diffphys.cli.finished import read_run
    from diffphys.io.atomic import write_text
    from diffphys.report.run_page import page

    with progress("report") as update:
        update(0.05, "reading the run")
        finished = read_run(run, measurement=measurement)
        update(0.4, "drawing")
        write_text(target, page(finished))
    warn(finished.notes)
    print(f"report: {target}, {target.stat().st_size / 2**20:.1f} MiB")
