"""The loop: every stage, epoch and step of training, visible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pretune.training.model import Model
from pretune.training.sources import Source
from pretune.training.stage import Stage


@dataclass(frozen=True)
class Fitting:
    """How to run, beside what to train: the same for every method and task."""

    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda, mps
    folder: Path | None = None  # where checkpoints go; None keeps none (a run that is over in seconds)
    resume: bool = False  # go on from the newest checkpoint in `folder`
    checkpoint_steps: int = 500  # steps between checkpoints; one is also written after every epoch
    accumulate: int = 1  # batches per optimizer step
    workers: int = 0  # processes that make batches
    precision: str = "auto"  # auto (bf16 where the device has it fast), fp32, bf16, fp16
    patience: int | None = None  # epochs without a better score before a stage ends
    quiet: bool = False  # no progress
    label: str = ""  # what the progress line calls this run


@dataclass
class Fitted:
    """What `fit` did."""

    best: dict[str, float]  # scores at the kept checkpoint
    history: list[dict[str, float]]  # one entry an epoch: stage, epoch, loss, rate, scores, seconds
    seconds: float
    steps: int
    tokens: int


def fit(
    model: Model,
    stages: Sequence[Stage],
    source: Source,
    fitting: Fitting,
    validate: Callable[[Model], dict[str, float]] | None = None,
    metric: str | None = None,
    higher_is_better: bool = True,
) -> Fitted:
    """Train `model` in place through all stages; it ends with the best weights by `metric`, else the last."""
    raise NotImplementedError
