"""--lr-find: what the training commands do instead of training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretune.cli.common import stdout
from pretune.errors import UsageError

if TYPE_CHECKING:
    from pretune.training.lr_find import FoundRates

LrFind = Annotated[
    Path | None,
    typer.Option(
        "--lr-find",
        metavar="PLOT",
        help="Train nothing: try 100 rates from 1e-7 to 10, a step each, print which the losses suggest and "
        "draw them into this .svg, .png or .pdf. Try valley first, or where the loss falls steeply.",
    ),
]
FindStage = Annotated[
    int | None,
    typer.Option(
        "--lr-find-stage",
        min=1,
        help="Of several stages of training the number, from 1, of the one to try; else the last.",
    ),
]


def check_out_of(
    out: Path | None, plot: Path | None, stage: int | None, resume: bool, overwrite: bool
) -> Path:
    """--out, checked; with --lr-find the plot's path, which is all that is written."""
    from pretune.runs.folders import check_out

    if plot is not None:
        from pretune.runs.rates import check_plot

        if resume:
            raise UsageError("--lr-find looks for a rate and trains nothing; leave --resume out")
        check_plot(plot)
        return plot
    if stage is not None:
        raise UsageError("--lr-find-stage says which stage --lr-find tries; give --lr-find PLOT as well")
    if out is None:
        raise UsageError("--out is missing: give a folder for the model")
    check_out(out, overwrite)
    return out


def rate_name(pretraining: object) -> str:
    """The setting that holds the rate of pretraining: an averaged SGD has a rate of its own."""
    return "lr" if getattr(pretraining, "optimizer", "adamw") in ("adamw", "adagrad") else "sgd.lr"


def tell(found: FoundRates, plot: Path, setting: str) -> None:
    """The suggestions, and the plot that they are read from."""
    from rich.table import Table

    from pretune.runs.rates import draw

    draw(found, plot)
    table = Table("suggestion", "rate")
    for name, rate in found.suggestions.items():
        table.add_row(name, f"{rate:.2g}")
    stdout().print(table)
    stdout().print(
        f"{len(found.rates)} rates tried, plot in {plot}; choose one as {setting}=…", soft_wrap=True
    )
