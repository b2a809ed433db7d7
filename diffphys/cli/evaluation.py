"""`diffphys benchmark evaluate` and `leaderboard`: run a stranger's solver in a sandbox; show what was measured and printed."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffphys.cli.session import progress

if TYPE_CHECKING:
    from diffphys.benchmark.store import Store

_DATABASE = typer.Option("--database", help="SQLite file of the organiser; on a local disk.", show_default=False)
Database = Annotated[Path | None, _DATABASE]


def evaluate(
    solver: Annotated[str, typer.Argument(help="Script, folder with solve.py, or image:NAME.", show_default=False)],
    challenge: Annotated[Path, typer.Option("--challenge", help="Challenge file of the tier.", show_default=False)],
    truth: Annotated[Path | None, typer.Option("--truth", help="Its truth file; public needs none.")] = None,
    method: Annotated[str, typer.Option("--method", help="Name on the leaderboard.")] = "Submission",
    image: Annotated[str | None, typer.Option("--image", help="Run the script in this container image.")] = None,
    database: Database = None,
    report: Annotated[Path | None, typer.Option("--report", help="Everything, for the organiser only (JSON, 0600).")] = None,
    wall_s: Annotated[float, typer.Option("--wall-s", min=1, help="Seconds per sample.")] = 900.0,
    memory_gib: Annotated[float, typer.Option("--memory-gib", min=0.25, help="Memory per sample.")] = 4.0,
) -> None:
    """Run a solver on a tier inside a sandbox, score it, and print what the contestant may know."""
    from diffphys.benchmark.evaluate import evaluate as judge
    from diffphys.benchmark.runner import Limits, Solver
    from diffphys.benchmark.store import Store

    if image is not None and solver.startswith("image:"):
        raise ValueError("--image is for scripts; a solver given as image:NAME brings its own")
    if database is not None:
        with Store(database) as store:
            _check_quota(store, challenge, method)
    limits = Limits(wall_s=wall_s, cpu_s=2 * wall_s, memory=int(memory_gib * 2**30))
    with progress("evaluate") as update:
        found = judge(
            Solver.parse(solver, image=image),
            challenge,
            truth=truth,
            method=method,
            limits=limits,
            command=f"diffphys benchmark evaluate --challenge {challenge.name} --method '{method}'",
            progress=update,
        )
    if database is not None:
        with Store(database) as store:
            store.add(found.row)
    if report is not None:
        _write_private(report, found.full())
    print(json.dumps(found.for_contestant(), indent=1, allow_nan=False))


def leaderboard(
    style: Annotated[str, typer.Option("--format", help="table, json, markdown or html.")] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File; standard output if absent.")] = None,
    database: Database = None,
    pictures: Annotated[Path | None, typer.Option("--pictures", help="Folder of galleries, for html.")] = None,
    add: Annotated[Path | None, typer.Option("--add", help="Take in the results of `benchmark run -o FOLDER`.")] = None,
) -> None:
    """Show measured and published rows; what was measured for the project ships with it."""
    from diffphys.benchmark import leaderboard as board
    from diffphys.benchmark import measured
    from diffphys.benchmark.store import Store
    from diffphys.io.atomic import write_text

    if add is not None:
        for row in measured.collect(add):
            where = board.export(row) if database is None else database
            if database is not None:
                with Store(database) as store:
                    store.add(row)
            print(f"added {row.modality} {row.method}: {where}", file=sys.stderr)
    text = board.render(board.load(database=database), style, pictures=pictures)
    if output is None:
        print(text, end="" if text.endswith("\n") else "\n")
    else:
        write_text(output, text)
        print(f"results: {output}")


def _check_quota(store: Store, challenge: Path, method: str) -> None:
    """Dev and hidden answer a few submissions a day: more would measure the truth."""
    from diffphys.benchmark.evaluate import PER_DAY
    from diffphys.io.challenge import read_challenge

    asked = read_challenge(challenge)
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")
    done = store.since(since, modality=asked.modality, method=method, tier=asked.tier)
    if asked.tier != "public" and done >= PER_DAY:
        raise ValueError(f"{method} was evaluated {done} times on {asked.tier} in the last 24 h; at most {PER_DAY} a day")


def _write_private(path: Path, content: dict[str, Any]) -> None:
    from diffphys.io.atomic import replacing
    from diffphys.io.results import plain

    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(plain(content), file, indent=1, allow_nan=False)
