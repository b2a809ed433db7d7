"""The leaderboard: measured rows that ship with the package or lie in a database, and the seeds' printed rows, visibly apart.

Out: a list of plain rows, and the same as text, Markdown, JSON or a page. A row:

    modality, method   "shg" or "confocal_3d"; the seed's name
    kind               "measured" (recomputable, provenance given) or "published" (printed elsewhere, on other data)
    public, dev, hidden, overall   scores or null; overall is the mean of three tiers, null while one is missing
    psnr, ssim         {tier: mean}
    interval           {tier: {score, psnr, ssim, consistency: [low, high]}} over the samples; measured only
    standard           {score, psnr, ssim} or null
    scenarios, recovery_ratio, n, failed, seconds_per_sample, provenance     measured only, else null
    printed            {public, dev, hidden, overall} of the seed's row of that name or null; beside measured rows
    printed_as, reference          published only
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from diffphys.benchmark import rows
from diffphys.benchmark.rows import Row
from diffphys.benchmark.store import Store
from diffphys.benchmark.tiers import MODALITIES, TIERS, VERSION

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCORES = (*TIERS, "overall")
TITLES = {"shg": "SHG microscopy", "confocal_3d": "Confocal 3-D stacks"}
APART = "printed in the seed pages, on other data and instruments; not measured here"


def load(*, database: Path | str | None = None, folder: Path | str = RESULTS) -> list[dict[str, Any]]:
    """All rows, by modality, kind and falling overall score.

    Args:
        database: a leaderboard database; its rows replace shipped ones of the same method where they are newer.
        folder: measured rows as JSON files.
    """
    printed = {(r["modality"], r["method"]): r for r in published()}
    found = [_measured(row, printed.get((row.modality, row.method))) for row in _latest(database, folder)]
    found += [_published(row) for row in printed.values()]
    return sorted(found, key=_order)


@cache
def published() -> tuple[dict[str, Any], ...]:
    """The seeds' rows as printed: standard {score, psnr, ssim}, tiers {tier: {score, psnr, ssim}}, overall."""
    return tuple(json.loads((HERE / "published.json").read_text(encoding="utf-8"))["rows"])


def export(row: Row, *, folder: Path | str = RESULTS) -> Path:
    """Write a measured row as the JSON file that ships with the package; the file."""
    from diffphys.io.atomic import write_text

    name = re.sub(r"[^a-z0-9]+", "-", row.method.lower().replace("+", "-plus")).strip("-")
    path = Path(folder) / f"{row.modality}_{name}.json"
    write_text(path, row.model_dump_json(indent=1) + "\n")
    return path


def render(found: Sequence[dict[str, Any]], style: str, *, pictures: Path | None = None) -> str:
    """Rows as `table`, `json`, `markdown` or `html`; ValueError for another format.

    Args:
        found: rows of `load`.
        style: the format.
        pictures: folder of `*_gallery.png`, shown on the page.
    """
    from diffphys.report.leaderboard_html import page

    styles: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {
        "table": table,
        "json": lambda r: json.dumps(r, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "markdown": markdown,
        "html": lambda r: page(r, pictures=_pictures(pictures)),
    }
    if style not in styles:
        raise ValueError(f"format is {style!r}; expected {', '.join(styles)}")
    return styles[style](found)


def _pictures(folder: Path | None) -> dict[str, list[tuple[str, str]]]:
    """Modality -> (caption, data URI) of the galleries in a folder; ValueError where there are none."""
    from diffphys.report.leaderboard_html import data_uri

    if folder is None:
        return {}
    out: dict[str, list[tuple[str, str]]] = {m: [] for m in MODALITIES}
    for modality in out:
        for path in sorted(Path(folder).glob(f"{modality}_*_gallery.png")):
            method = path.stem.removeprefix(f"{modality}_").removesuffix("_gallery").replace("_", " ")
            out[modality].append((f"Gallery: {method}, public scenes in scenarios I to IV", data_uri(path)))
    if not any(out.values()):
        raise ValueError(f"{folder} has no gallery; `diffphys benchmark gallery METHOD -o {folder}` draws one")
    return out


def table(found: Sequence[dict[str, Any]]) -> str:
    """Columns for a terminal, measured above published."""
    from diffphys.cli.show import table as columns

    lines = []
    for modality, kind, group in _groups(found):
        lines += [f"{TITLES[modality]}, {kind}" + (f" ({APART})" if kind == "published" else "")]
        lines += [columns([("#", "method", *_headings(kind)), *_cells(group)]) if group else "none yet", ""]
    return "\n".join(lines)


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """Two tables per modality: measured with the printed overall beside, then published."""
    lines = []
    for modality, kind, group in _groups(found):
        lines += [f"### {TITLES[modality]}: {kind}", ""]
        lines += [f"{APART[0].upper()}{APART[1:]}.", ""] if kind == "published" else []
        if not group:
            lines += ["None yet.", ""]
            continue
        head = ("#", "method", *_headings(kind))
        lines += [f"| {' | '.join(head)} |", "|---|---|" + "--:|" * (len(head) - 2)]
        lines += [f"| {' | '.join(c)} |" for c in _cells(group)] + [""]
    return "\n".join(lines)


def text(value: float | None, *, interval: Sequence[float] | None = None, digits: int = 3) -> str:
    """`0.712 ±0.021`, half the interval's width, or a dash."""
    if value is None:
        return "–"
    spread = f" ±{(interval[1] - interval[0]) / 2:.{digits}f}" if interval else ""
    return f"{value:.{digits}f}{spread}"


def _groups(found: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    return [
        (modality, kind, [r for r in found if r["modality"] == modality and r["kind"] == kind])
        for modality in TITLES
        for kind in ("measured", "published")
    ]


def _headings(kind: str) -> tuple[str, ...]:
    return (*SCORES, *(f"PSNR {t}" for t in TIERS), "standard", *(["printed overall"] if kind == "measured" else []))


def _cells(group: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    lines = []
    for i, row in enumerate(group, 1):
        spread = row["interval"] or {}
        scores = [text(row[t], interval=spread.get(t, {}).get("score")) for t in SCORES]
        psnr = [text(row["psnr"].get(t), digits=2) for t in TIERS]
        standard = text(row["standard"]["score"] if row["standard"] else None)
        printed = [text(row["printed"]["overall"] if row["printed"] else None)] if row["kind"] == "measured" else []
        lines.append((str(i), row["method"], *scores, *psnr, standard, *printed))
    return lines


def _latest(database: Path | str | None, folder: Path | str) -> list[Row]:
    latest: dict[tuple[str, str], Row] = {}
    shipped = [rows.parse(p.read_bytes()) for p in sorted(Path(folder).glob("*.json"))]
    if database is not None and not Path(database).is_file():
        raise ValueError(f"there is no database {database}; `diffphys benchmark evaluate --database` makes one")
    stored: list[Row] = []
    if database is not None:
        with Store(database) as store:
            stored = store.rows(version=VERSION)
    for row in [*shipped, *stored]:
        before = latest.get((row.modality, row.method))
        if row.version == VERSION and (before is None or row.created >= before.created):
            latest[row.modality, row.method] = row
    return list(latest.values())


def _measured(row: Row, printed: dict[str, Any] | None) -> dict[str, Any]:
    tiers = {t: row.tiers[t] for t in TIERS if t in row.tiers}
    figures = ("score", "psnr", "ssim", "consistency")
    whole = row.model_dump(mode="json")
    return {
        "modality": row.modality,
        "method": row.method,
        "kind": "measured",
        **{t: tiers[t].score.mean if t in tiers else None for t in TIERS},
        "overall": row.overall,
        "psnr": {t: r.psnr.mean for t, r in tiers.items()},
        "ssim": {t: r.ssim.mean for t, r in tiers.items()},
        "interval": {t: {f: [getattr(r, f).low, getattr(r, f).high] for f in figures} for t, r in tiers.items()},
        "standard": whole["standard"],
        "scenarios": whole["scenarios"],
        "recovery_ratio": row.recovery_ratio,
        "n": {t: r.n for t, r in tiers.items()},
        "failed": {t: r.failed for t, r in tiers.items()},
        "seconds_per_sample": {t: r.seconds_per_sample for t, r in tiers.items()},
        "provenance": {
            **whole["provenance"],
            "created": row.created,
            "version": row.version,
            "challenge_sha256": {t: r.challenge_sha256 for t, r in tiers.items()},
            "submission_sha256": {t: r.submission_sha256 for t, r in tiers.items()},
        },
        "printed": _scores(printed) if printed else None,
        "printed_as": None,
        "reference": None,
    }


def _published(row: dict[str, Any]) -> dict[str, Any]:
    nothing = ("interval", "scenarios", "recovery_ratio", "n", "failed", "seconds_per_sample", "provenance", "printed")
    return {
        **{n: row[n] for n in ("modality", "method")},
        "kind": "published",
        **_scores(row),
        "psnr": {t: v["psnr"] for t, v in row["tiers"].items()},
        "ssim": {t: v["ssim"] for t, v in row["tiers"].items()},
        "standard": row["standard"],
        **dict.fromkeys(nothing),
        "printed_as": row["printed_as"],
        "reference": row["reference"],
    }


def _scores(row: dict[str, Any]) -> dict[str, float]:
    return {**{t: row["tiers"][t]["score"] for t in TIERS}, "overall": row["overall"]}


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    """Modality, kind, then falling overall; rows without one after the others, by what they have."""
    scores = [row[t] for t in SCORES if row[t] is not None]
    best = row["overall"] if row["overall"] is not None else max(scores) - 2
    return [*TITLES].index(row["modality"]), row["kind"], -best, row["method"]
