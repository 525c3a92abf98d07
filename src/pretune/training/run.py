"""What one call of `fit` has at hand, and what it does between steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pretune.errors import UserError, choose
from pretune.training.averaging import unwrapped
from pretune.training.checkpoints import Checkpoint, Checkpoints, State
from pretune.training.devices import forget, from_first, prepare, share_buffers, together
from pretune.training.fitting import Fitting
from pretune.training.interrupts import Interrupted, Interrupts
from pretune.training.losses import Losses
from pretune.training.model import Model
from pretune.training.optimizers import Watching
from pretune.training.progress import Progress
from pretune.training.sources import Source, optimizer_steps
from pretune.training.stage import Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

Validate = Callable[[Model], dict[str, float]]


class Clock:
    """Tells lap times."""

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


@dataclass
class Run:
    """One training: where it stands and all that it needs."""

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
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.losses = Losses(self.crew.device)
        self.saved = self.checkpoints.start(self.fitting.resume)
        if self.saved:
            self.model.load_state_dict(self.saved.weights)
            self.state, self.best_weights = self.saved.state, self.saved.best_weights
            self.carry, self.losses.total = self.saved.own["carry"], self.saved.own["loss"]
            self.losses.parts = self.saved.own.get("parts", {})

    def begin(self, stage: Stage) -> list[int]:
        """Thaw, wrap and build anew; the optimizer steps of each of the stage's epochs."""
        state, saved = self.state, self.saved
        stage.thaw(self.model)
        stage.train(self.model)
        if state.stage:
            forget(self.crew)
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
        names = list(self.losses.parts)
        broken, loss, *parts = together(
            self.crew, self.losses.broken > 0, self.losses.total, *self.losses.parts.values()
        )
        if broken:
            raise self.not_finite(stage)
        self.losses, self.carry = Losses(self.crew.device), None
        state = self.state
        asked = max(1, state.epoch_targets)
        of_parts = {name: part / asked for name, part in zip(names, parts, strict=True)}
        return {
            "stage": state.stage,
            "epoch": state.epoch,
            "loss": loss / asked,
            **({"losses": of_parts} if of_parts else {}),
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

    def keep(self, scores: dict[str, float], metric: str | None, higher: bool) -> None:
        """Keep the weights if they are the best so far, or those of the end if `fitting.keep` says so."""
        state = self.state
        if metric is None:
            state.best = scores
        elif scores:
            if self.fitting.keep == "last":
                state.best = scores
            elif is_better(scores[metric], state.best.get(metric), higher):
                state.best, state.stale = scores, 0
                self.best_weights = {
                    name: x.detach().cpu().clone() for name, x in self.model.state_dict().items()
                }
            else:
                state.stale += 1

    def end_epoch(self, stage: Stage, entry: dict[str, Any], metric: str | None, higher: bool) -> None:
        """Let the optimizer draw its conclusions; write a checkpoint; stop if that was asked for."""
        state = self.state
        state.add_seconds(self.clock.lap())
        state.end_epoch(entry)
        self.report.epoch(entry)
        over = False
        if isinstance(stage.optimizer, Watching) and metric is not None and entry["scores"]:
            scores = [past["scores"][metric] for past in state.history if past["stage"] == state.stage]
            losses = [-score if higher else score for score in scores]
            over = stage.optimizer.after_epoch(unwrapped(self.optimizer), losses)
        if over or (self.fitting.patience and state.stale >= self.fitting.patience):
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
                {"carry": self.carry, "loss": self.losses.total, "parts": self.losses.parts},
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
