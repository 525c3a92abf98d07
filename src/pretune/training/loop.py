"""The loop: every stage, epoch and step of training, visible."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pretune.errors import UsageError, UserError, choose
from pretune.keys import key
from pretune.tensors.batch import Batch
from pretune.training.checkpoints import Checkpoint, Checkpoints, State, fingerprint
from pretune.training.devices import from_first, prepare, seed_dropout, share_buffers, team, together
from pretune.training.interrupts import Interrupted, Interrupts
from pretune.training.losses import Losses
from pretune.training.model import Model
from pretune.training.progress import Progress, progress
from pretune.training.sources import Source, feed, optimizer_steps, step_keys
from pretune.training.stage import Stage, left_as_found

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Fitted", "Fitting", "Interrupted", "fit"]


Validate = Callable[[Model], dict[str, float]]


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
    validate: Validate | None = None,
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
        identity = fingerprint(model, stages, source.steps(0), fitting.seed, fitting.accumulate, crew)
        checkpoints = Checkpoints(fitting.folder, fitting.checkpoint_steps, identity, crew, report.note)
        run = Run(model, source, fitting, crew, interrupts, report, checkpoints)
        state = run.state
        for stage in stages[state.stage :]:
            steps = run.begin(stage)  # of each epoch
            epochs = range(state.epoch, state.stage_began + stage.epochs)
            ahead = step_keys(source, epochs, state.epoch_step, fitting.accumulate)
            batches = feed(source, ahead, fitting.workers)
            while state.stage_epoch < stage.epochs:
                rest = islice(batches, steps[state.stage_epoch] - state.epoch_step)
                entry = train_epoch(run, stage, rest, sum(steps))
                if validate:
                    entry["scores"] = run.validated(validate, metric)
                    stage.train(model)
                run.end_epoch(stage, entry, metric, higher_is_better)
            state.end_stage()
        if run.best_weights is not None:
            model.load_state_dict(run.best_weights)
    return Fitted(state.best, state.history, state.seconds, state.step, state.tokens)


def train_epoch(run: Run, stage: Stage, steps: Iterable[list[Batch]], stage_steps: int) -> dict[str, Any]:
    """The rest of an epoch, one optimizer step for every list of batches; its line of the history."""
    state, crew = run.state, run.crew
    for batches in steps:
        targets = [run.model.head.targets(batch) for batch in batches]
        tokens = sum(int(batch.mask.sum()) for batch in batches)
        all_targets, all_tokens = run.agree(stage, sum(targets), tokens)  # over all processes

        seed_dropout(crew, key(run.fitting.seed, "step", state.stage, state.step, crew.process_index))
        factor = stage.schedule(state.stage_step, stage_steps)
        for group in run.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

        for batch, own_targets in zip(batches, targets, strict=True):
            with nullcontext() if batch is batches[-1] else crew.no_sync(run.shell):
                loss, reported, carry = run.shell(batch.to(crew.device), run.carry)
                # a sum over own targets -> a mean over all; DDP divides by the number of processes
                crew.backward(loss * (crew.num_processes / max(1.0, all_targets)))
            run.carry = carry if run.source.carries else None
            run.losses.add(state.step + 1, own_targets, loss, reported)
        if stage.clip is not None:
            crew.clip_grad_norm_(run.weights(), stage.clip)
        run.optimizer.step()
        run.optimizer.zero_grad()

        state.end_step(int(all_targets), int(all_tokens), run.clock.lap())
        run.report.step(run.losses.recent, run.rate(), state.epoch_tokens / state.epoch_seconds)
    return run.epoch_entry(stage)


@dataclass
class Run:
    """What one call of `fit` has at hand."""

    model: Model
    source: Source
    fitting: Fitting
    crew: Accelerator
    interrupts: Interrupts
    report: Progress
    checkpoints: Checkpoints
    shell: nn.Module = field(init=False)  # the model as accelerate wrapped it for the stage at hand
    optimizer: Any = field(init=False)
    losses: Losses = field(init=False)
    state: State = field(default_factory=State)
    carry: Any = None
    best_weights: dict[str, Tensor] | None = None
    saved: Checkpoint | None = None  # whose optimizer is still to be restored
    clock: Clock = field(default_factory=lambda: Clock())

    def __post_init__(self) -> None:
        self.losses = Losses(self.crew.device)
        self.saved = self.checkpoints.start(self.fitting.resume)
        if self.saved:
            self.model.load_state_dict(self.saved.weights)
            self.state, self.best_weights = self.saved.state, self.saved.best_weights
            self.carry, self.losses.total = self.saved.own["carry"], self.saved.own["loss"]

    def begin(self, stage: Stage) -> list[int]:
        """Thaw, wrap and build anew; the optimizer steps of each of the stage's epochs."""
        state, saved = self.state, self.saved
        stage.thaw(self.model)
        stage.train(self.model)
        self.shell, self.optimizer = prepare(self.crew, self.model, stage)
        if saved and state.stage_step:
            self.optimizer.load_state_dict(saved.optimizer)
        if saved and saved.scaler:
            self.crew.scaler.load_state_dict(saved.scaler)
        self.saved = None
        epochs = range(state.stage_began, state.stage_began + stage.epochs)
        steps = [optimizer_steps(self.source, epoch, self.fitting.accumulate) for epoch in epochs]
        if not all(steps):
            raise UserError(f"stage {stage.name!r} has an epoch without batches; give more data")
        if together(self.crew, sum(steps)) != [self.crew.num_processes * sum(steps)]:
            raise UserError("processes disagree on the number of batches; give each an equal share")
        self.report.stage(stage.name, state.stage_step, sum(steps))
        return steps

    def agree(self, stage: Stage, targets: int, tokens: int) -> list[float]:
        """Targets and tokens of the coming step over all processes; here runs end and checkpoints are due."""
        due = self.checkpoints.due(self.state.step)
        if due or self.interrupts.noted:
            self.losses.read()
        *counts, stop, broken = together(
            self.crew, targets, tokens, self.interrupts.noted, self.losses.broken > 0
        )
        if broken:
            raise self.not_finite(stage)
        if stop or due:
            self.save()
        if stop:
            raise self.interrupted()
        return counts

    def epoch_entry(self, stage: Stage) -> dict[str, Any]:
        """The history's line of the epoch just trained, without scores yet."""
        self.losses.read()
        share_buffers(self.crew, self.model)
        loss, broken = together(self.crew, self.losses.total, self.losses.broken > 0)
        if broken:
            raise self.not_finite(stage)
        self.losses, self.carry = Losses(self.crew.device), None
        state = self.state
        return {
            "stage": state.stage,
            "epoch": state.epoch,
            "loss": loss / max(1, state.epoch_targets),
            "lr": self.rate(),
            "tokens_per_second": state.epoch_tokens / max(1e-9, state.epoch_seconds),
            "seconds": state.epoch_seconds,
            "scores": {},
        }

    def validated(self, validate: Validate, metric: str | None) -> dict[str, float]:
        """The first process's scores, for all."""
        scores: dict[str, float] = {}
        if self.crew.is_main_process:
            self.model.eval()
            scores = {name: float(score) for name, score in validate(self.model).items()}
            if metric is not None and metric not in scores:
                raise choose("metric", metric, scores)
        return from_first(self.crew, scores)

    def end_epoch(self, stage: Stage, entry: dict[str, Any], metric: str | None, higher: bool) -> None:
        """Keep the weights if they are the best so far; write a checkpoint; stop if that was asked for."""
        state = self.state
        scores = entry["scores"]
        if metric is None:
            state.best = scores
        elif scores:
            if is_better(scores[metric], state.best.get(metric), higher):
                state.best, state.stale = scores, 0
                self.best_weights = {
                    name: x.detach().cpu().clone() for name, x in self.model.state_dict().items()
                }
            else:
                state.stale += 1
        state.add_seconds(self.clock.lap())
        state.end_epoch(entry)
        self.report.epoch(entry)
        if self.fitting.patience and state.stale >= self.fitting.patience:
            state.stage_epoch = stage.epochs
        stop, old = together(self.crew, self.interrupts.noted, self.checkpoints.old())
        if stop or old or self.checkpoints.due(state.step):
            self.save()
        if stop:
            raise self.interrupted()

    def save(self) -> None:
        self.checkpoints.save(
            Checkpoint(
                self.state,
                self.model.state_dict(),
                self.best_weights,
                self.optimizer.state_dict(),
                self.crew.scaler.state_dict() if self.crew.scaler else None,
                {"carry": self.carry, "loss": self.losses.total},
            )
        )

    def weights(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def rate(self) -> float:
        """The highest of the groups' rates."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def not_finite(self, stage: Stage) -> UserError:
        hint = "" if stage.clip is not None else " or clip the gradient"
        return UserError(
            f"the loss is not finite at step {self.losses.broken or self.state.step} (stage {stage.name!r}, "
            f"rate {self.rate():.2g}); try a lower rate{hint}"
        )

    def interrupted(self) -> Interrupted:
        where = f"stopped at step {self.state.step}"
        if self.fitting.folder is None:
            return Interrupted(f"{where}; nothing is kept, as this run writes no checkpoints")
        return Interrupted(f"{where}, checkpoint in {self.fitting.folder}; continue with --resume")


class Clock:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call."""
        last, self._last = self._last, time.monotonic()
        return self._last - last


def is_better(score: float, best: float | None, higher_is_better: bool) -> bool:
    """A score that is not a number is never better."""
    if best is None:
        return isfinite(score)
    return score > best if higher_is_better else score < best
