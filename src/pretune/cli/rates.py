"""--lr-find: what the training commands do instead of training."""

from __future__ import annotations

from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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


def rate_of(pretraining: Any, stage: str) -> tuple[str, float | None]:
    """The setting that holds the rate of a stage, and what it is: none where the method chooses.

    The embedding alone has a rate of its own, and so has an averaged SGD.
    """
    if stage == "embedding":
        return "frozen_lr", pretraining.frozen_lr
    if getattr(pretraining, "optimizer", "adamw") in ("adamw", "adagrad"):
        return "lr", pretraining.lr
    return "sgd.lr", pretraining.sgd.lr


def tell(found: FoundRates, plot: Path, setting: str, now: float | None) -> None:
    """The suggestions, and the plot that they are read from; `now` is what the setting is.

    Where the stage has another rate than the setting, a second column says what the setting has to be.
    """
    from rich.table import Table

    from pretune.runs.rates import draw

    draw(found, plot)
    share = found.planned / now if now else 1.0
    scaled = not isclose(share, 1)
    table = Table("suggestion", "rate", *([setting] if scaled else []))
    for name, rate in found.suggestions.items():
        table.add_row(name, f"{rate:.2g}", *([f"{rate / share:.2g}"] if scaled else []))
    stdout().print(table)
    if scaled:
        stdout().print(
            f"the highest rate of stage {found.stage!r} is {share:.3g} × {setting}", soft_wrap=True
        )
    stdout().print(
        f"{len(found.rates)} rates tried, plot in {plot}; choose one as {setting}=…", soft_wrap=True
    )
