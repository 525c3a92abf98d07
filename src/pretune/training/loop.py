"""The loop: every stage, epoch and step of training, visible."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pretune.errors import UsageError, UserError
from pretune.keys import key
from pretune.tensors.batch import Batch
from pretune.training.checkpoints import Checkpoint, Checkpoints, State, fingerprint
from pretune.training.devices import from_first, prepare, share_buffers, team, together
from pretune.training.interrupts import Interrupted, Interrupts
from pretune.training.model import Model
from pretune.training.progress import progress
from pretune.training.sources import Keys, Source, feed
from pretune.training.stage import Stage, left_as_found

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Fitted", "Fitting", "Interrupted", "fit"]

STEPS_BETWEEN_READS = 16  # of losses from a GPU, which would wait for each


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


@dataclass
class Fitted:
    """What `fit` did."""

    best: dict[str, float]  # scores at the kept checkpoint; empty without `validate`
    history: list[dict[str, Any]]  # an epoch each: stage, epoch, loss, lr, tokens_per_second, seconds, scores
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
    """Train `model` in place through all stages; it ends with the best weights by `metric`, else the last.

    `validate` sees the model in `eval()` on its device, in the first process only. Raises `Interrupted`
    after Ctrl-C, and `UserError` if the loss is not finite.
    """
    fitting.check()
    with (
        team(fitting.device, fitting.precision) as crew,
        left_as_found(model),
        Interrupts() as interrupts,
        progress(fitting.label, fitting.quiet or not crew.is_main_process) as report,
    ):
        run = fingerprint(model, stages, fitting.seed, fitting.accumulate, crew.num_processes, source.steps(0))
        checkpoints = Checkpoints(fitting.folder, fitting.checkpoint_steps, run, crew, report.note)
        losses = Losses(1 if crew.device.type == "cpu" else STEPS_BETWEEN_READS)
        state, carry, best_weights = State(), None, None
        saved = checkpoints.start(fitting.resume)
        if saved:
            model.load_state_dict(saved.weights)
            state, carry, best_weights = saved.state, saved.own["carry"], saved.best_weights
            losses.total = saved.own["loss"]

        for stage in stages[state.stage :]:
            stage.thaw(model)
            stage.train(model)
            shell, optimizer = prepare(crew, model, stage)
            if saved and state.stage_step:
                optimizer.load_state_dict(saved.optimizer)
            saved = None
            steps = stage_steps(stage, source, state, fitting.accumulate)
            batches_ahead = feed(source, keys(source, state, steps, fitting.accumulate), fitting.workers)
            report.stage(stage.name, state.stage_step, sum(steps))

            def save() -> None:
                own = {"carry": carry, "loss": losses.total}
                scaler = crew.scaler.state_dict() if crew.scaler else None
                optimizer_state = optimizer.state_dict()
                checkpoints.save(
                    Checkpoint(state, model.state_dict(), best_weights, optimizer_state, scaler, own)
                )

            for epoch_steps in steps[state.stage_epoch :]:
                for batches in islice(batches_ahead, epoch_steps - state.epoch_step):
                    ...
    return Fitted(state.best, state.history, state.seconds, state.step, state.tokens)
