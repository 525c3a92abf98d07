"""How a run is to go, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pretune.errors import UsageError, choose

Keep = Literal["best", "last"]


@dataclass(frozen=True)
class Fitting:
    """How to run, beside what to train: the same for every method and task."""

    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda, mps
    folder: Path | None = None  # where checkpoints go; None keeps none (a run that is over in seconds)
    resume: bool = False  # go on from the newest checkpoint in `folder`
    checkpoint_steps: int = 500  # steps between checkpoints; one is also written after epochs that take long
    accumulate: int = 1  # batches per optimizer step
    workers: int = 0  # processes that make batches
    precision: str = "auto"  # auto (bf16 where the device has it fast), fp32, bf16, fp16
    compile: bool = False  # torch.compile for Transformers: worth its minute in long runs, most on a GPU
    keep: Keep = "best"  # weights of the epoch with the best score; "last": of the last epoch
    patience: int | None = None  # epochs without a better score before a stage ends
    quiet: bool = False  # no progress
    label: str = ""  # what the progress line calls this run

    def check(self) -> None:
        """Raise `UsageError` for a number that makes no sense."""
        least = {"accumulate": 1, "checkpoint_steps": 1, "workers": 0, "patience": 1}
        for name, smallest in least.items():
            said = getattr(self, name)
            if said is not None and said < smallest:
                raise UsageError(f"{name} is {said}; give {smallest} or more")
        if self.keep not in get_args(Keep):
            raise choose("fitting.keep", self.keep, get_args(Keep))
        if self.keep == "last" and self.patience is not None:
            raise UsageError(
                "fitting.patience waits for an epoch better than the best, and fitting.keep=last keeps the "
                "last; leave one out"
            )


@dataclass
class Fitted:
    """What `fit` did."""

    best: dict[str, float]  # scores of the kept weights; empty without `validate`
    history: list[dict[str, Any]]  # an epoch each: stage, epoch, loss, lr, tokens_per_second, seconds, scores
    seconds: float
    steps: int
    tokens: int
