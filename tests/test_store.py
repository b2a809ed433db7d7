"""The leaderboard store and its rows: strict at the door, nothing lost, nothing overwritten."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from diffphys.benchmark import rows
from diffphys.benchmark.store import Store

FIGURE = {"mean": 0.5, "low": 0.4, "high": 0.6}


def tier(score: float = 0.5) -> dict:
    figures = dict.fromkeys(("psnr", "ssim", "consistency"), FIGURE)
    counts = {"n": 24, "failed": 0, "seconds_per_sample": 1.5, "challenge_sha256": "a" * 64, "submission_sha256": "b" * 64}
    return {"score": {"mean": score, "low": score, "high": score}, **figures, **counts}


def content(**changes) -> dict:
    origin = {"command": "run", "code_version": "diffphys 0", "commit": None, "device": "cpu", "seed": 0}
    whole = {
        "format": "diffphys-row",
        "version": "1",
        "modality": "shg",
        "method": "Richardson-Lucy",
        "created": "2026-01-01T00:00:00+00:00",
        "tiers": {"public": tier(0.6), "dev": tier(0.5), "hidden": tier(0.4)},
        "standard": {"score": 0.6, "psnr": 28.0, "ssim": 0.8},
        "scenarios": {n: {"psnr": 25.0, "ssim": 0.7} for n in ("I", "II", "III", "IV")},
        "recovery_ratio": 0.97,
        "provenance": origin,
    }
    return {**whole, **changes}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "rows.db") as opened:
        yield opened


def test_row_round_trip_and_overall():
    row = rows.parse(json.dumps(content()))
    assert row.overall == pytest.approx(0.5)
    assert rows.parse(row.model_dump_json()) == row
    assert rows.check(content(tiers={"hidden": tier()})).overall is None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"score": 1.0}, "score: Extra"),
        ({"method": "<script>"}, "method"),
        ({"method": "rl\n"}, "method"),
        ({"method": "x" * 65}, "method"),
        ({"method": "\u202egro"}, "method"),
        ({"modality": "mri"}, "modality"),
        ({"tiers": {}}, "tiers"),
        ({"tiers": {"secret": tier()}}, "tiers"),
        ({"tiers": {"dev": tier(1.5)}}, "tiers.dev"),
        ({"tiers": {"dev": {**tier(), "n": True}}}, "tiers.dev.n"),
        ({"tiers": {"dev": {**tier(), "n": "24"}}}, "tiers.dev.n"),
        ({"tiers": {"dev": {**tier(), "psnr": {**FIGURE, "mean": 9.0}}}}, "tiers.dev.psnr"),
        ({"tiers": {"dev": {**tier(), "psnr": {**FIGURE, "mean": math.nan}}}}, "tiers.dev.psnr.mean"),
        ({"tiers": {"dev": {**tier(), "psnr": {**FIGURE, "high": math.inf}}}}, "tiers.dev.psnr.high"),
        ({"tiers": {"dev": {**tier(), "challenge_sha256": "A" * 64}}}, "challenge_sha256"),
        ({"recovery_ratio": "1"}, "recovery_ratio"),
        ({"created": "yesterday"}, "created"),
        ({"provenance": None}, "provenance"),
    ],
)
def test_bad_rows_name_the_field(change, what):
    with pytest.raises(ValueError, match=r"^row: ") as refused:
        rows.check(content(**change))
    assert what in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 1, "format": 2}',
        '{"a": NaN}',
        '{"a": Infinity}',
        "[" * 100000,
        "\ufeff{}",
        "{} {}",
        "",
        "{" + " " * 2**20 + "}",
    ],
    ids=["twice", "nan", "infinity", "deep", "mark", "trailing", "empty", "long"],
)
def test_bad_json_is_refused(text):
    with pytest.raises(ValueError, match=r"^row"):
        rows.parse(text)


def test_bootstrap_interval_holds_the_mean_and_shrinks():
    rng = np.random.default_rng(0)
    few, many = rows.interval(rng.normal(0.5, 0.1, 10)), rows.interval(rng.normal(0.5, 0.1, 1000))
    assert few.low < few.mean < few.high and many.high - many.low < 0.3 * (few.high - few.low)
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(1000), rel=0.15)
    with pytest.raises(ValueError, match="finite number"):
        rows.interval([0.1, math.nan])


def test_store_keeps_every_submission_and_shows_the_latest(store):
    assert store.add(rows.check(content())) == 3
    assert store.add(rows.check(content(tiers={"hidden": tier(0.9)}, standard=None, scenarios=None))) == 1
    assert store.count() == 4 and store.check() == "ok"
    (row,) = store.rows(version="1")
    assert row.tiers["hidden"].score.mean == 0.9 and row.tiers["public"].score.mean == 0.6
    assert row.standard is not None and row.overall == pytest.approx(2.0 / 3)
    assert store.rows(version="2") == []


def test_store_checks_rows_that_skipped_validation(store):
    bad = rows.check(content()).model_copy(update={"method": "<b>"})
    with pytest.raises(ValueError, match="method"):
        store.add(bad)
    assert store.count() == 0


def test_database_refuses_nan_and_out_of_range_itself(store):
    store.add(rows.check(content()))
    with closing(sqlite3.connect(store.path)) as other:
        for value in (math.nan, 1.5, -0.1, math.inf):
            with pytest.raises(sqlite3.IntegrityError):
                other.execute("UPDATE submission SET score = ?", (value,))


def test_altered_row_is_noticed(store):
    store.add(rows.check(content()))
    with closing(sqlite3.connect(store.path)) as other:
        other.execute("UPDATE submission SET row = replace(row, '0.6', '0.9')")
        other.commit()
    with pytest.raises(ValueError, match="does not match its sha256"):
        store.rows(version="1")


def test_count_of_a_day(store):
    store.add(rows.check(content()))
    asked = {"modality": "shg", "method": "Richardson-Lucy", "tier": "hidden"}
    assert store.since("2025-12-31T00:00:00+00:00", **asked) == 1
    assert store.since("2026-01-02T00:00:00+00:00", **asked) == 0


def test_backup_holds_what_was_committed(store, tmp_path):
    store.add(rows.check(content()))
    store.backup(tmp_path / "copy.db")
    with Store(tmp_path / "copy.db") as copy:
        assert copy.rows(version="1") == store.rows(version="1")


def test_settings_that_make_it_durable(store):
    pragma = {n: store._database.execute(f"PRAGMA {n}").fetchone()[0] for n in ("journal_mode", "synchronous", "busy_timeout")}
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 60_000}


@pytest.mark.parametrize("what", ["folder", "text", "nowhere"])
def test_what_is_no_database(what, tmp_path):
    path = tmp_path / "here"
    if what == "folder":
        path.mkdir()
    elif what == "text":
        path.write_text("not a database, but long enough to be looked at as one\n" * 50)
    else:
        path = path / "rows.db"
    with pytest.raises((ValueError, OSError), match="database"):
        Store(path)
