"""`diffphys benchmark`: make the tiers, check files, take a method of ours through them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diffphys.cli import evaluation, options, show
from diffphys.cli.session import Interrupted, progress, say

app = typer.Typer(
    help="The three-tier benchmark: create, validate, run, evaluate, leaderboard, gallery.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("evaluate")(evaluation.evaluate)
app.command("leaderboard")(evaluation.leaderboard)
Tiers = Annotated[str, typer.Option("--tiers", "--tier", metavar="NAME,...", help="public, dev, hidden.")]
Modalities = Annotated[str, typer.Option("--modality", metavar="NAME,...", help="shg, confocal_3d.")]
Data = Annotated[Path, typer.Option("--data", help="Folder of the challenge files.", show_default=False)]
Secret = Annotated[Path | None, typer.Option("--secret", help="Key of dev and hidden; made here (mode 0600) if absent.")]
Scenarios = Annotated[str, typer.Option("--scenarios", metavar="NAME,...", help="I, II, III, IV.")]
Samples = Annotated[int, typer.Option("--samples", min=1, max=24, help="Per tier; fewer than 24 for trials only.")]
MethodName = Annotated[str, typer.Argument(help="Row of the table, e.g. Richardson-Lucy, wiener, tv, pnp_fista.")]
MethodNames = Annotated[str, typer.Argument(metavar="NAME,...", help="Rows of the table, e.g. U-Net,Restormer,tv.")]
ALL_TIERS, BOTH = "public,dev,hidden", "shg,confocal_3d"


def split(text: str) -> list[str]:
    """`a,b` -> [a, b]."""
    return [part for part in (p.strip() for p in text.split(",")) if part]


@app.command("create")
def create(
    output: options.Output,
    tier: Tiers = ALL_TIERS,
    modality: Modalities = BOTH,
    secret: Secret = None,
    samples: Samples = 24,
) -> None:
    """Draw tiers: challenge files to hand out, truth files (mode 0600) to keep. The secret key is never overwritten."""
    from diffphys.benchmark.create import create as make
    from diffphys.benchmark.create import expect_free

    wanted, modalities = split(tier), split(modality)
    expect_free(output, modalities, wanted)
    key = _key(output, secret) if set(wanted) - {"public"} else None
    with progress("create") as update:
        written = make(output, modalities=modalities, wanted=wanted, secret=key, samples=samples, progress=update)
    print(show.table([("file", "for"), *((p.name, "organiser" if "_truth_" in p.name else "contestants") for p in written)]))
    print(f"results: {output}")


def _key(output: Path, secret: Path | None) -> bytes:
    """The secret of the file, made first where it does not exist."""
    from diffphys.benchmark.keys import make_secret, read_secret

    path = secret or output / "secret.key"
    if path.exists():
        return read_secret(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    key = make_secret(path)
    say("note", f"{path} is the new secret key: keep it private and keep a copy")
    return key


@app.command("validate")
def validate(
    file: Annotated[Path, typer.Argument(help="Challenge, truth or submission (HDF5).", show_default=False)],
    challenge: Annotated[Path | None, typer.Option("--challenge", help="What a submission answers.")] = None,
) -> None:
    """Say what a file is, and every problem it has."""
    from diffphys.benchmark.validate import validate as check

    verdict = check(file, challenge=challenge)
    for line in verdict.problems:
        say("error", line)
    if verdict.problems:
        raise typer.Exit(2)
    print(f"{file.name}: a valid {verdict.kind}: {verdict.summary}")


@app.command("run")
def run(
    method: MethodNames,
    data: Data,
    output: options.Output,
    modality: Modalities = BOTH,
    tiers: Tiers = ALL_TIERS,
    scenarios: Scenarios = "I,II,III,IV",
) -> None:
    """Take methods through tiers and scenarios; run again to go on where it was stopped."""
    from diffphys.benchmark.methods import find
    from diffphys.benchmark.run import run as through

    chosen = [(name, [find(m, name) for m in split(method)]) for name in split(modality)]
    for name, rows in chosen:
        given: dict[str, Any] = {"data": data, "out": output, "wanted": split(tiers), "chosen": split(scenarios)}
        try:
            with progress(f"{name} {', '.join(row.name for row in rows)}") as update:
                told = through(rows, name, **given, progress=update)
        except KeyboardInterrupt:
            raise Interrupted(f"finished samples are kept in {output}; the same command goes on from there") from None
        for row, summary in zip(rows, told, strict=True):
            print(f"{name}: {row.name}")
            print(show.table(_rows(summary)))
    print(f"results: {output}")


@app.command("gallery")
def gallery(
    method: MethodName,
    data: Data,
    output: options.Output,
    modality: Modalities = BOTH,
) -> None:
    """Truth, measurement and reconstruction of four public scenes in scenarios I to IV, with PSNR and SSIM."""
    from diffphys.benchmark.gallery import gallery as draw
    from diffphys.benchmark.methods import find

    chosen = [(name, find(method, name)) for name in split(modality)]
    for name, row in chosen:
        with progress(f"{name} {row.name}") as update:
            path, told = draw(row, name, data=data, out=output, progress=update)
        lines = [(t["sample"], t["scenario"], f"{t['psnr']:.2f}", f"{t['ssim']:.3f}", f"{t['score']:.3f}") for t in told]
        print(show.table([("sample", "scenario", "PSNR", "SSIM", "score"), *lines]))
        print(f"results: {path}")


def _rows(told: dict) -> list[tuple[str, ...]]:
    """Scenario, tier and means as a table."""
    rows: list[tuple[str, ...]] = [("scenario", "tier", "score", "standard", "PSNR", "SSIM", "c")]
    for scenario, per_tier in told["scenarios"].items():
        for tier, m in per_tier.items():
            figures = (m["score"], m["standard_score"], m["psnr"], m["ssim"], m["c"])
            rows.append((scenario, tier, *(f"{v:.2f}" if i == 2 else f"{v:.3f}" for i, v in enumerate(figures))))
    rows += [("rho", tier, f"{value:.3f}", "", "", "", "") for tier, value in told["recovery_ratio"].items()]
    return rows
