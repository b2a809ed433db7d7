"""The leaderboard as one HTML page that needs nothing else: no library, no network, no font.

In: rows of `diffphys.benchmark.leaderboard.load`, optionally pictures. Sorted by click or key, filtered by modality, tier
and kind; readable at phone and desktop width. Everything that came from outside is escaped, and the page's own policy allows
no request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

_TEMPLATE = Path(__file__).with_name("leaderboard.html")
_TIERS = ("overall", "public", "dev", "hidden")
_TITLES = {"shg": "SHG microscopy", "confocal_3d": "Confocal 3-D stacks"}
_COLUMNS = (
    ("method", "Method"),
    ("overall", "Overall"),
    ("public", "Public"),
    ("dev", "Dev"),
    ("hidden", "Hidden"),
    ("psnr", "PSNR, dB"),
    ("ssim", "SSIM"),
    ("standard", "Standard"),
    ("printed", "Printed"),
)
_PNG = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+\Z")
_DASH = "–"


def page(rows: Sequence[Mapping[str, Any]], *, pictures: Mapping[str, Sequence[tuple[str, str]]] | None = None) -> str:
    """The page.

    Args:
        rows: of the leaderboard.
        pictures: modality -> (caption, data URI of a PNG, JPEG or WebP) of its gallery; `data_uri` makes one.

    Raises:
        ValueError: a picture is no such data URI.
    """
    sections = [_section(m, [r for r in rows if r["modality"] == m], (pictures or {}).get(m, ())) for m in _TITLES]
    options = [f'<option value="{m}">{escape(t)}</option>' for m, t in _TITLES.items()]
    sorts = [f'<option value="{k}"{" selected" if k == "overall" else ""}>{escape(t)}</option>' for k, t in _COLUMNS]
    filled = {"sections": "\n".join(sections), "modality_options": "".join(options), "sort_options": "".join(sorts)}
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(filled)


def data_uri(path: Path | str) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode("ascii")


def _section(modality: str, rows: Sequence[Mapping[str, Any]], pictures: Sequence[tuple[str, str]]) -> str:
    head = "".join(
        f'<th scope="col" data-key="{k}"{_score(k)}><button type="button">{escape(t)}</button></th>' for k, t in _COLUMNS
    )
    body = "\n".join(_row(r) for r in rows)
    shown = "".join(_figure(caption, uri) for caption, uri in pictures)
    return (
        f'<section data-modality="{modality}"><h2>{escape(_TITLES[modality])}</h2>\n{shown}'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></section>"
    )


def _row(row: Mapping[str, Any]) -> str:
    kind, standard = row["kind"], row["standard"]
    keys = {"method": row["method"], **{t: row[t] for t in _TIERS}, "standard": standard and standard["score"]}
    keys |= {"psnr": _mean(row["psnr"]), "ssim": _mean(row["ssim"]), "printed": row["printed"] and row["printed"]["overall"]}
    data = "".join(f' data-{k}="{"" if v is None else escape(str(v))}"' for k, v in keys.items())
    interval = row["interval"] or {}
    cells = [f'<td><span class="kind">{kind}</span> {escape(row["method"])}{_details(row)}</td>']
    cells += [_cell(t, row[t], (interval.get(t) or {}).get("score")) for t in _TIERS]
    for label, name, digits in (("PSNR, dB", "psnr", 2), ("SSIM", "ssim", 3)):
        cells.append(_by_tier(label, row[name], {t: (interval.get(t) or {}).get(name) for t in interval}, digits))
    cells.append(_standard(standard))
    cells.append(_printed(row["printed"]))
    return f'<tr class="{kind}" data-kind="{kind}"{data}>{"".join(cells)}</tr>'


def _score(tier: str) -> str:
    """Marks the columns of which the tier filter leaves one."""
    return f' data-score="{tier}"' if tier in _TIERS else ""


def _cell(tier: str, value: float | None, interval: Sequence[float] | None) -> str:
    head = f'data-label="{tier.capitalize()}"{_score(tier)}'
    if value is None:
        return f'<td class="none" {head}>{_DASH}</td>'
    return f"<td {head}><span>{_number(value, interval, 3)}{_scale(value, interval)}</span></td>"


def _by_tier(label: str, values: Mapping[str, float], interval: Mapping[str, Sequence[float] | None], digits: int) -> str:
    """One figure per tier; the page shows that of the chosen tier, or the mean of all under "overall"."""
    shown = {"overall": (_mean(values), None), **{t: (values.get(t), interval.get(t)) for t in _TIERS[1:]}}
    parts = [
        f'<span data-tier="{t}"{"" if t == "overall" else " hidden"}>{_DASH if v is None else _number(v, i, digits)}</span>'
        for t, (v, i) in shown.items()
    ]
    return f'<td data-label="{escape(label)}">{"".join(parts)}</td>'


def _standard(standard: Mapping[str, float] | None) -> str:
    if standard is None:
        return f'<td class="none" data-label="Standard">{_DASH}</td>'
    small = f"<small>{standard['psnr']:.2f} dB, {standard['ssim']:.3f}</small>"
    return f'<td data-label="Standard"><span>{standard["score"]:.3f}{small}</span></td>'


def _printed(printed: Mapping[str, float] | None) -> str:
    """What the seed page prints for this row's name: the score of the chosen tier."""
    if printed is None:
        return f'<td class="none" data-label="Printed">{_DASH}</td>'
    parts = [f'<span data-tier="{t}"{"" if t == "overall" else " hidden"}>{printed[t]:.3f}</span>' for t in _TIERS]
    return f'<td data-label="Printed">{"".join(parts)}</td>'


def _number(value: float, interval: Sequence[float] | None, digits: int) -> str:
    small = f"<small>[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]</small>" if interval else ""
    return f"{value:.{digits}f}{small}"


def _scale(value: float, interval: Sequence[float] | None) -> str:
    """A score on a line from 0 to 1, its interval as a band."""
    band = f'<i style="left:{100 * interval[0]:.1f}%;width:{100 * (interval[1] - interval[0]):.1f}%"></i>' if interval else ""
    return f'<span class="scale" aria-hidden="true">{band}<b style="left:{100 * value:.1f}%"></b></span>'


def _details(row: Mapping[str, Any]) -> str:
    facts = [(k, v) for k, v in _facts(row) if v is not None]
    if not facts:
        return ""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts)
    return f"<details><summary>where it comes from</summary><dl>{items}</dl></details>"


def _facts(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if row["kind"] == "published":
        return [("printed as", row["printed_as"]), ("reference", row["reference"])]
    origin = row["provenance"]
    facts = [(k.replace("_", " "), origin[k]) for k in ("command", "created", "code_version", "commit", "device", "seed")]
    facts += [("samples, failed", ", ".join(f"{t} {row['n'][t]}, {row['failed'][t]}" for t in row["n"]))]
    facts += [("seconds per sample", ", ".join(f"{t} {v:.3g}" for t, v in row["seconds_per_sample"].items()))]
    facts += [(f"challenge {t}", f"sha256 {v}") for t, v in origin["challenge_sha256"].items()]
    if row["scenarios"]:
        named = (f"{n} {q['psnr']:.2f} dB, {q['ssim']:.3f}" for n, q in row["scenarios"].items())
        facts.append(("scenarios", "; ".join(named)))
    if row["recovery_ratio"] is not None:
        facts.append(("recovery ratio", f"{row['recovery_ratio']:.3f}"))
    return facts


def _figure(caption: str, uri: str) -> str:
    if not _PNG.match(uri):
        raise ValueError(f"picture {caption!r} is no data URI of a PNG, JPEG or WebP; make one with data_uri")
    return f'<figure><img src="{uri}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>\n'


def _mean(values: Mapping[str, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None
