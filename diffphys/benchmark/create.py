"""Make a benchmark: challenge files for everyone, truth files and secret for the organiser only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffphys.benchmark import tiers
from diffphys.benchmark.draw import Drawn, draw
from diffphys.benchmark.keys import key_of
from diffphys.io.challenge import Truth, challenge_name, truth_name, write_challenge, write_truth
from diffphys.io.hdf5 import Sample
from diffphys.io.provenance import sha256

Progress = Callable[[float, str], None]


def create(
    folder: Path | str,
    *,
    modalities: Sequence[str] = tiers.MODALITIES,
    wanted: Sequence[str] = tiers.TIERS,
    secret: bytes | None = None,
    samples: int = tiers.SAMPLES,
    geometry: Any = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw tiers and write `{modality}_challenge_{tier}.h5` and `{modality}_truth_{tier}.h5` (0600) for each.

    Args:
        folder: where; created if absent. Nothing in it is overwritten.
        modalities, wanted: which tiers to draw.
        secret: needed for dev and hidden.
        samples: per tier; fewer than the benchmark's for trials.
        geometry: another nominal instrument, for trials of one modality.
        progress: called with (fraction done, what is being drawn).

    Returns:
        The files, challenge before truth.

    Raises:
        ValueError: a file is already there, or the secret is missing.
    """
    if not 1 <= samples <= tiers.SAMPLES:
        raise ValueError(f"samples is {samples}; expected 1 to {tiers.SAMPLES}")
    folder, names = Path(folder), expect_free(folder, modalities, wanted)
    pairs, keys = list(names), {tier: key_of(tier, secret) for tier in wanted}
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for number, (modality, tier) in enumerate(pairs):
        drawn = {}
        for index in range(samples):
            if progress is not None:
                progress((number + index / samples) / len(pairs), f"{modality} {tier} {index + 1}/{samples}")
            drawn[tiers.sample_name(index)] = draw(keys[tier], modality, tier, index, geometry=geometry)
        _write(*names[modality, tier], modality, tier, drawn, geometry or tiers.geometry(modality))
        written += names[modality, tier]
    return written


def expect_free(
    folder: Path | str, modalities: Sequence[str], wanted: Sequence[str]
) -> dict[tuple[str, str], tuple[Path, Path]]:
    """(modality, tier) -> (challenge, truth) files; ValueError for a name that is unknown or a file that is there."""
    pairs = [(tiers.expect_modality(m), tiers.expect_tier(t)) for m in modalities for t in wanted]
    names = {pair: (Path(folder) / challenge_name(*pair), Path(folder) / truth_name(*pair)) for pair in pairs}
    for path in (p for files in names.values() for p in files):
        if path.exists():
            raise ValueError(f"{path} is already there; choose another folder (a benchmark is never overwritten)")
    return names


def _write(challenge: Path, truth: Path, modality: str, tier: str, drawn: dict[str, Drawn], geometry: Any) -> None:
    shown = {n: _shown(d, public=tier == "public") for n, d in drawn.items()}
    write_challenge(challenge, modality, tier, geometry=geometry, ranges=tiers.ranges(modality, tier), samples=shown)
    kept = {n: Truth(d.x, d.spec, d.y_second, d.y_ideal, d.family) for n, d in drawn.items()}
    write_truth(truth, modality, tier, challenge_sha256=sha256(challenge), samples=kept)


def _shown(drawn: Drawn, *, public: bool) -> Sample:
    """What the contestant is given of a sample."""
    if not public:
        return Sample(drawn.y, drawn.detector)
    return Sample(drawn.y, drawn.detector, x_true=drawn.x, true_spec=drawn.spec, family=drawn.family)
