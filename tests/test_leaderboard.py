"""The leaderboard: printed numbers as the seeds print them, measured ones apart, and a page that works in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import webdriver
from test_store import content, tier

from diffphys.benchmark import leaderboard, measured, rows
from diffphys.benchmark.score import Report
from diffphys.benchmark.score import Row as SampleRow
from diffphys.benchmark.store import Store
from diffphys.cli import evaluation
from diffphys.io.results import write_json
from diffphys.report.leaderboard_html import data_uri, page

SEEDS = Path(__file__).parents[2] / "shared" / "seeds"
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def found(tmp_path):
    """Rows with two measured methods, one of them on the hidden tier only."""
    spread = {"mean": 0.7, "low": 0.65, "high": 0.75}
    full = content(tiers={t: {**tier(0.7), "score": spread} for t in ("public", "dev", "hidden")})
    with Store(tmp_path / "rows.db") as store:
        store.add(rows.check(full))
        store.add(rows.check(content(method="Stranger 1.0", tiers={"hidden": tier(0.61)}, standard=None, scenarios=None)))
    return leaderboard.load(database=tmp_path / "rows.db", folder=tmp_path)


# printed numbers


def test_published_rows_follow_the_printed_formulas():
    """Counts of the seeds, and each printed score from its printed PSNR and SSIM where the formula needs no more."""
    printed = leaderboard.published()
    assert [sum(r["modality"] == m for r in printed) for m in ("shg", "confocal_3d")] == [13, 9]
    for row in printed:
        standard = row["standard"]
        formula = 0.5 * np.clip((standard["psnr"] - 15) / 30, 0, 1) + 0.5 * standard["ssim"]
        assert standard["score"] == pytest.approx(formula, abs=1.1e-3)
        scores = [row["tiers"][t]["score"] for t in ("public", "dev", "hidden")]
        assert row["overall"] == pytest.approx(np.mean(scores), abs=1.1e-3)
        for told in row["tiers"].values():
            c = (told["score"] - 0.4 * np.clip((told["psnr"] - 10) / 40, 0, 1) - 0.4 * told["ssim"]) / 0.2
            assert 0.5 < c <= 1.01  # what the printed score leaves for the consistency


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the seed pages are absent")
@pytest.mark.parametrize(("modality", "file"), [("shg", "shg_microscopy.txt"), ("confocal_3d", "confocal_3d.txt")])
def test_published_rows_are_the_seeds(modality, file):
    text = (SEEDS / file).read_text(encoding="utf-8")
    for row in (r for r in leaderboard.published() if r["modality"] == modality):
        for name in ("Public", "Dev", "Hidden"):
            part = text[text.index(f"{name} Leaderboard") :]
            line = re.search(rf"\| \d+ \| {re.escape(row['printed_as'])} \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", part)
            told = row["tiers"][name.lower()]
            assert [float(g) for g in line.groups()] == [told["score"], told["psnr"], told["ssim"]]


# rows


def test_json_has_the_keys_of_the_contract(found):
    told = json.loads(leaderboard.render(found, "json"))
    assert {"modality", "method", "kind", "public", "dev", "hidden", "overall"} <= set.intersection(*map(set, told))
    assert {r["kind"] for r in told} == {"measured", "published"}
    ours = next(r for r in told if r["kind"] == "measured" and r["method"] == "Richardson-Lucy")
    assert ours["overall"] == pytest.approx(0.7) and ours["printed"]["overall"] == 0.616
    assert ours["interval"]["dev"]["score"] == [0.65, 0.75] and ours["provenance"]["challenge_sha256"]["dev"] == "a" * 64
    partial = next(r for r in told if r["method"] == "Stranger 1.0")
    assert (partial["public"], partial["hidden"], partial["overall"]) == (None, 0.61, None)


def test_a_fresh_install_shows_what_ships():
    shipped = [rows.parse(p.read_bytes()) for p in leaderboard.RESULTS.glob("*.json")]
    found = leaderboard.load()
    ours = {(r["modality"], r["method"]) for r in found if r["kind"] == "measured"}
    assert ours == {(r.modality, r.method) for r in shipped}
    assert sum(r["kind"] == "published" for r in found) == 22


def test_newer_row_wins_and_other_versions_are_void(tmp_path):
    leaderboard.export(rows.check(content(tiers={"dev": tier(0.1)})), folder=tmp_path)
    leaderboard.export(rows.check(content(method="Old rules", version="0")), folder=tmp_path)
    with Store(tmp_path / "rows.db") as store:
        store.add(rows.check(content(created="2026-02-01T00:00:00+00:00", tiers={"dev": tier(0.2)})))
    ours = [r for r in leaderboard.load(database=tmp_path / "rows.db", folder=tmp_path) if r["kind"] == "measured"]
    assert [(r["method"], r["dev"]) for r in ours] == [("Richardson-Lucy", 0.2)]


def test_export_names(tmp_path):
    assert leaderboard.export(rows.check(content(method="Restormer+")), folder=tmp_path).name == "shg_restormer-plus.json"
    assert leaderboard.export(rows.check(content(method="Restormer")), folder=tmp_path).name == "shg_restormer.json"


def test_text_and_markdown_keep_the_kinds_apart(found):
    table, markdown = leaderboard.render(found, "table"), leaderboard.render(found, "markdown")
    assert table.index("SHG microscopy, measured") < table.index("SHG microscopy, published")
    assert "not measured here" in table and "0.700 ±0.050" in table
    assert "| 1 | Richardson-Lucy | 0.700 ±0.050 |" in markdown and "printed overall" in markdown
    widths = {line.count("|") for line in markdown.split("###")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 1
    with pytest.raises(ValueError, match="format is 'pdf'"):
        leaderboard.render(found, "pdf")


def test_results_of_a_run_become_rows(tmp_path):
    """A folder as `benchmark run` leaves it."""
    rng, sha = np.random.default_rng(0), "c" * 64
    scores = rng.uniform(0.5, 0.7, 6)
    for i, score in enumerate(scores):
        row = {"sample": f"sample_{i:02d}", "status": "ok", "score": score, "psnr": 25.0 + i, "ssim": 0.8, "c": 0.9}
        place = tmp_path / "shg" / "wiener" / "IV" / "dev" / f"sample_{i:02d}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {"row": row, "challenge_sha256": sha, "seconds": {"calibrate": 1.0, "reconstruct": 0.5}})
    (tmp_path / "shg_wiener_dev.h5").write_bytes(b"submission")
    told = {"samples": 6, "standard_score": 0.6, "psnr": 27.0, "ssim": 0.8}
    overall = {s: {"dev": told, "overall": told} for s in ("I", "II", "III", "IV")}
    head = {"format": measured.FORMAT, "version": "1", "modality": "shg", "method": "Wiener Filter", "challenges": {"dev": sha}}
    origin = {"git_commit": "abc", "versions": {"diffphys": "0.1"}, "device": {"kind": "cpu"}, "command": ["diffphys", "run"]}
    rest = {"scenarios": overall, "recovery_ratio": {"overall": 0.95}, "finished": "2026-01-01T00:00:00+00:00"}
    write_json(tmp_path / "shg_wiener.json", {**head, **origin, **rest})
    (row,) = measured.collect(tmp_path)
    assert row.tiers["dev"].score.mean == pytest.approx(scores.mean()) and row.tiers["dev"].psnr.mean == pytest.approx(27.5)
    assert row.recovery_ratio == 0.95 and row.standard.score == 0.6 and row.tiers["dev"].seconds_per_sample == 1.5
    with pytest.raises(ValueError, match="holds no results"):
        measured.collect(tmp_path / "shg")


def test_failed_samples_count_zero_in_the_score_only():
    samples = (SampleRow("a", "ok", 0.8, 0.7, 30.0, 0.9, 0.95), SampleRow("b", "missing"))
    report = Report("shg", "dev", "m", "1 of 2 samples failed", 0.4, 0.35, samples)
    found = rows.tier_result(report, challenge_sha256="a" * 64, submission_sha256="b" * 64, seconds_per_sample=1.0)
    assert (found.score.mean, found.psnr.mean, found.n, found.failed) == (0.4, 30.0, 2, 1)


# the command


def test_command_writes_every_format(tmp_path, capsys):
    for style in ("table", "json", "markdown", "html"):
        evaluation.leaderboard(style, tmp_path / f"board.{style}")
        assert "Restormer" in (tmp_path / f"board.{style}").read_text(encoding="utf-8")
    capsys.readouterr()
    evaluation.leaderboard("json")
    assert json.loads(capsys.readouterr().out) == leaderboard.load()
    with pytest.raises(ValueError, match="there is no database"):
        evaluation.leaderboard("table", database=tmp_path / "none.db")


# the page


def test_page_needs_nothing_and_escapes_everything(found):
    hostile = {**found[0], "method": '<img src=x onerror="alert(1)">', "printed_as": "$sections", "reference": "</script>"}
    hostile["provenance"] = {**found[0]["provenance"], "command": "<script>alert(2)</script>"}
    text = page([hostile, *found[1:]], pictures={"shg": [("one & two", PIXEL)]})
    assert "<img src=x" not in text and "<script>alert" not in text and "one &amp; two" in text
    assert text.count("<script>") == 1 and "http://" not in text and "https://" not in text
    assert "default-src 'none'" in text and PIXEL in text
    with pytest.raises(ValueError, match="no data URI"):
        page(found, pictures={"shg": [("x", "javascript:alert(1)")]})


def test_data_uri(tmp_path):
    (tmp_path / "p.png").write_bytes(b"\x89PNG")
    assert data_uri(tmp_path / "p.png") == "data:image/png;base64,iVBORw=="


@pytest.mark.skipif(bool(webdriver.missing()), reason=webdriver.missing() or "ready")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_a_browser(found, tmp_path, width):
    """No console message, no sideways scrolling, sorting by click and by key, filters, no cell cut off."""
    file = tmp_path / "board.html"
    file.write_text(page(found, pictures={"shg": [("a scene", PIXEL)]}), encoding="utf-8")
    shown = "return [...document.querySelectorAll('section:not([hidden]) tbody tr:not([hidden])')].map(r => r.dataset.method)"
    first = "return document.querySelector('section tbody tr').dataset.method"
    choose = "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change'))"
    with webdriver.browser(width=width) as window:
        window.open(file.as_uri())
        assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert window.run("return window.innerWidth") == width
        assert len(window.run(shown)) == 24 and window.run(first) == "Restormer+"
        window.run(choose, "kind", "measured")
        assert window.run(shown) == ["Richardson-Lucy", "Stranger 1.0"]
        window.run(choose, "tier", "dev")
        assert window.run(shown) == ["Richardson-Lucy"]
        window.run(choose, "tier", "overall")
        window.run(choose, "kind", "")
        window.run(choose, "modality", "confocal_3d")
        assert len(window.run(shown)) == 9
        window.run(choose, "modality", "")
        if width > 640:
            window.click("th[data-key=method] button")
            assert window.run(first) == "CARE"
            window.run("document.querySelector('th[data-key=hidden] button').focus()")
            window.press("Enter")
            assert window.run(first) == "Restormer+"
            assert window.run("return document.querySelector('th[data-key=hidden]').getAttribute('aria-sort')") == "descending"
            window.press("Space")
            assert window.run(first) == "Richardson-Lucy"  # the printed one, lowest on hidden
        else:
            window.run(choose, "sort", "method")
            assert window.run(first) == "CARE"
        window.open(file.as_uri())  # the focus starts at the top
        window.press("Tab")
        assert window.run("return document.activeElement.id") == "modality"
        window.press("Tab", "Tab")
        assert window.run("return document.activeElement.id") == "kind"
        assert window.console() == []
        assert window.picture().startswith(b"\x89PNG")


def test_galleries_are_shown_on_the_page(tmp_path):
    with pytest.raises(ValueError, match="has no gallery"):
        leaderboard.render(leaderboard.load(), "html", pictures=tmp_path)
    (tmp_path / "shg_wiener_filter_gallery.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    page = leaderboard.render(leaderboard.load(), "html", pictures=tmp_path)
    assert page.count("<img") == 1 and "Gallery: wiener filter" in page
