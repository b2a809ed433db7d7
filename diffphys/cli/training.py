"""`diffphys train`: a network from the stream of examples to weights that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffphys.cli import show
from diffphys.cli.session import Interrupted, progress


def train(
    method: Annotated[str, typer.Argument(help="Network or family: unet, restormer_3d, ircnn, ...", show_default=False)],
    recipe: Annotated[str, typer.Option("--recipe", help="small: two CPU cores; full: one GPU.")] = "small",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the weights [the package's own].")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of checkpoints and figures; run again to go on.")] = Path("runs"),
    examples: Annotated[Path | None, typer.Option("--examples", help="Folder of the examples [the user's cache].")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Instead of the recipe's.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="NETWORK", help="Start from these shipped weights.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, crops and noise.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that make missing examples.")] = 1,
) -> None:
    """Train a network, or go on where it was stopped; writes weights, their card and a figure of the loss."""
    from diffphys.train.recipes import recipe as recipe_of
    from diffphys.train.run import networks_of, train_network

    chosen = [(network, recipe_of(network, recipe, steps=steps)) for network in networks_of(method)]
    lines: list[tuple[str, ...]] = [("network", "parameters", "validation PSNR", "Wiener", "minutes")]
    for network, how in chosen:
        try:
            with progress(network.name) as update:
                card = train_network(
                    network, how, name=recipe, runs=runs, output=output, examples=examples, seed=seed, start=start,
                    workers=workers, progress=update,
                )  # fmt: skip
        except KeyboardInterrupt:
            raise Interrupted(f"checkpoints are kept in {runs}; the same command goes on from there") from None
        told = card["validation"]
        lines.append((network.name, f"{card['parameters']}", f"{told['psnr']:.2f}", f"{told['wiener_psnr']:.2f}",
                      f"{card['seconds'] / 60:.1f}"))  # fmt: skip
    print(show.table(lines))
    print(f"results: {runs}")
