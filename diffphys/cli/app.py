"""The command-line program: its commands, and how every failure becomes one line and an exit code.

0: done. 2: the user's input cannot be used, one line on stderr. 130: stopped by Ctrl-C, finished work kept.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated

import typer

from diffphys.cli import benchmark, doctor, identification, measure, report, score, simulation, tools, training
from diffphys.cli.session import Interrupted, heeding_ctrl_c, say, use_cache

app = typer.Typer(
    name="diffphys",
    help="Calibrate a mismatched SHG or confocal microscope from the measurement and restore the image, with error bars.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("reconstruct")(measure.reconstruct)
app.command("calibrate")(measure.calibrate)
app.command("report")(report.report)
app.command("identify")(identification.identify)
app.command("simulate")(simulation.simulate)
app.command("optics")(tools.optics)
app.command("distil")(tools.distil)
app.command("demo")(tools.demo)
app.command("score")(score.score)
app.command("train")(training.train)
app.command("doctor")(doctor.doctor)
app.add_typer(benchmark.app, name="benchmark")


def _version(wanted: bool) -> None:
    if wanted:
        from diffphys import __version__

        typer.echo(f"diffphys {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""


_SEVERAL = ("--voxel-um", "--psf-voxel-um", "--shape", "--tile")  # options that take several numbers


def _join_numbers(arguments: Sequence[str]) -> list[str]:
    """`--voxel-um 0.2 0.1 0.1` -> `--voxel-um 0.2,0.1,0.1`: two numbers for images, three for stacks."""
    joined, rest = [], list(arguments)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] in _SEVERAL:
            values = list(takewhile(_is_number, rest))
            rest = rest[len(values) :]
            joined += [",".join(values)] if values else []
    return joined


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    arguments = _join_numbers(sys.argv[1:] if arguments is None else arguments)
    for reader in ("tifffile", "bioio"):
        logging.getLogger(reader).setLevel(logging.CRITICAL)  # its complaints come back as our one line
    use_cache()
    try:
        with heeding_ctrl_c():
            code = app(args=arguments, prog_name="diffphys", standalone_mode=False)
    except Interrupted as stop:
        return _stopped(str(stop))
    except (KeyboardInterrupt, typer.Abort):
        return _stopped("nothing was written")
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        line = one_line(error)
        if line is None:
            raise
        say("error", line)
        return 2
    return _stopped("nothing was written") if code == 130 else int(code or 0)


def _stopped(what: str) -> int:
    say("interrupted", what)
    return 130


def one_line(error: Exception) -> str | None:
    """What the user did wrong, on one line; None for an error of the program itself."""
    if hasattr(error, "format_message"):  # the option parser's own errors
        text = error.format_message()
    elif isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        text = "out of memory: crop the image or run on a machine with more"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    elif isinstance(error, KeyError):
        text = f"unknown name {error}"
    elif isinstance(error, (ValueError, OSError)):
        text = str(error)
    else:
        return None
    return " ".join(text.split())
