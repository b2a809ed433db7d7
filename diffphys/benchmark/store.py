"""The organiser's store: SQLite on a local disk, one row per evaluated submission, nothing ever overwritten.

Write-ahead log with full synchronisation; every insert is one IMMEDIATE transaction, acknowledged after its commit. Rows are
validated before they come near the database (`rows.py`), and the database checks again: SQLite stores NaN as NULL, which passes
every CHECK but NOT NULL.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffphys.benchmark import rows
from diffphys.benchmark.rows import Row

_SCHEMA = """
CREATE TABLE IF NOT EXISTS submission (
  id                INTEGER PRIMARY KEY,
  created           TEXT NOT NULL,
  version           TEXT NOT NULL,
  modality          TEXT NOT NULL CHECK (modality IN ('shg', 'confocal_3d')),
  method            TEXT NOT NULL CHECK (length(method) BETWEEN 1 AND 64),
  tier              TEXT NOT NULL CHECK (tier IN ('public', 'dev', 'hidden')),
  score             REAL NOT NULL CHECK (score BETWEEN 0 AND 1),
  psnr              REAL NOT NULL CHECK (psnr BETWEEN -200 AND 200),
  ssim              REAL NOT NULL CHECK (ssim BETWEEN -1 AND 1),
  consistency       REAL NOT NULL CHECK (consistency BETWEEN 0 AND 1),
  challenge_sha256  TEXT NOT NULL CHECK (length(challenge_sha256) = 64),
  submission_sha256 TEXT NOT NULL CHECK (length(submission_sha256) = 64),
  code_version      TEXT NOT NULL,
  "commit"          TEXT,
  device            TEXT NOT NULL,
  seed              INTEGER,
  row_sha256        TEXT NOT NULL CHECK (length(row_sha256) = 64),
  row               TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS by_method ON submission (version, modality, method, tier, id);
"""
_COLUMNS = (
    *("created", "version", "modality", "method", "tier", "score", "psnr", "ssim", "consistency"),
    *("challenge_sha256", "submission_sha256", "code_version", '"commit"', "device", "seed", "row_sha256", "row"),
)
_BUSY_MS = 60_000


class Store:
    """Leaderboard database; a context manager, one connection, for the thread that made it.

    Args:
        path: database file, made if absent; on a local disk, never on a network share.

    Raises:
        ValueError: the file is not such a database.
        OSError: it cannot be opened or written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self._database = sqlite3.connect(self.path, timeout=_BUSY_MS / 1000, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise OSError(f"cannot open the database {self.path}: {error}") from None
        try:
            with self._speaking() as database:
                database.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.execute("PRAGMA trusted_schema = OFF")
                database.executescript(_SCHEMA)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def add(self, row: Row) -> int:
        """Store the tiers of a row, all or none; returns when they are on disk. Returns how many were stored."""
        rows.check(row.model_dump())  # also a Row that was built without validation
        whole = row.model_dump_json()
        digest = hashlib.sha256(whole.encode()).hexdigest()
        entries = [_entry(row, tier, digest, whole) for tier in row.tiers]
        marks = ", ".join("?" * len(_COLUMNS))
        with self._speaking() as database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(f"INSERT INTO submission ({', '.join(_COLUMNS)}) VALUES ({marks})", entries)
            database.execute("COMMIT")
        return len(entries)

    def rows(self, *, version: str) -> list[Row]:
        """One row per modality and method: the latest submission of each tier, with the head of the latest."""
        query = "SELECT modality, method, tier, row, row_sha256 FROM submission WHERE version = ? ORDER BY id"
        latest: dict[tuple[str, str], Row] = {}
        with self._speaking() as database:
            for modality, method, tier, text, digest in database.execute(query, (version,)):
                if hashlib.sha256(text.encode()).hexdigest() != digest:
                    raise ValueError(f"{self.path}: a row of {method} does not match its sha256; the database was altered")
                row, before = rows.parse(text), latest.get((modality, method))
                tiers = {**(before.tiers if before else {}), tier: row.tiers[tier]}
                head = row if before is None else _merged(before, row)
                latest[modality, method] = head.model_copy(update={"tiers": tiers})
        return list(latest.values())

    def since(self, created: str, *, modality: str, method: str, tier: str) -> int:
        """How many submissions of a method to a tier are younger than this time."""
        query = "SELECT count(*) FROM submission WHERE created > ? AND modality = ? AND method = ? AND tier = ?"
        with self._speaking() as database:
            return int(database.execute(query, (created, modality, method, tier)).fetchone()[0])

    def count(self) -> int:
        """Number of stored submissions."""
        with self._speaking() as database:
            return int(database.execute("SELECT count(*) FROM submission").fetchone()[0])

    def check(self) -> str:
        """SQLite's own verdict on the file: "ok"."""
        with self._speaking() as database:
            return str(database.execute("PRAGMA integrity_check").fetchone()[0])

    def backup(self, path: Path | str) -> None:
        """Consistent copy while others write; copying the file itself would miss the write-ahead log."""
        with self._speaking() as database:
            database.execute("VACUUM INTO ?", (str(path),))

    @contextmanager
    def _speaking(self) -> Iterator[sqlite3.Connection]:
        """The connection; SQLite's errors in our words, an unfinished transaction undone."""
        try:
            yield self._database
        except sqlite3.IntegrityError as error:
            raise ValueError(f"the database refuses the row: {error}") from None
        except sqlite3.OperationalError as error:
            raise OSError(f"cannot use the database {self.path}: {error}") from None
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} is not a leaderboard database: {error}") from None
        finally:
            if self._database.in_transaction:
                self._database.rollback()


def _entry(row: Row, tier: rows.Tier, digest: str, whole: str) -> tuple[object, ...]:
    result, origin = row.tiers[tier], row.provenance
    figures = (result.score.mean, result.psnr.mean, result.ssim.mean, result.consistency.mean)
    hashes = (result.challenge_sha256, result.submission_sha256)
    made_by = (origin.code_version, origin.commit, origin.device, origin.seed)
    return (row.created, row.version, row.modality, row.method, tier, *figures, *hashes, *made_by, digest, whole)


def _merged(before: Row, after: Row) -> Row:
    """The newer head; what only the older one measured is kept."""
    optional = ("standard", "scenarios", "recovery_ratio")
    return after.model_copy(update={n: getattr(before, n) for n in optional if getattr(after, n) is None})
