"""Loss and validation of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from diffphys.io.atomic import replacing


def training_figure(path: Path | str, name: str, history: Any, *, every: int) -> None:
    """Write loss.png: loss per `every` steps and its running mean; PSNR of the examples held out beside the Wiener images'."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    steps = every * (1 + np.arange(len(history.loss)))
    left.plot(steps, history.loss, color="0.75", lw=0.8)
    width = min(20, len(history.loss))
    if width > 1:
        left.plot(steps[width - 1 :], np.convolve(history.loss, np.ones(width) / width, "valid"), color="C0")
    left.set(xlabel="step", ylabel="loss", title=name)
    at, values = np.array(history.psnr).reshape(-1, 2).T
    right.plot(at, values, "o-", color="C0", label="network (moving average)")
    right.axhline(history.baseline, color="0.5", ls="--", label="Wiener images")
    right.set(xlabel="step", ylabel="PSNR, examples held out (dB)")
    right.legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
