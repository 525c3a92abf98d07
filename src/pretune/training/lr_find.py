"""The learning-rate finder: rates that rise with every step, and what the loss says to that (Smith 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import torch

from pretune.errors import UsageError, UserError
from pretune.training.checkpoints import Checkpoints
from pretune.training.compiling import compiling
from pretune.training.devices import team
from pretune.training.fitting import Fitting
from pretune.training.interrupts import Interrupts
from pretune.training.loop import train_step
from pretune.training.model import Model
from pretune.training.progress import progress
from pretune.training.run import Run
from pretune.training.sources import Source, batches_of, own_world, step_keys
from pretune.training.stage import Group, Stage, left_as_found

FIRST, LAST, STEPS = 1e-7, 10.0, 100  # as fastai's `lr_find`
DIVERGED = 4.0  # times the lowest loss so far: where it ends
SMOOTHING = 0.98  # of the loss, per step


@dataclass(frozen=True)
class FoundRates:
    """Rates that were tried, lowest first, with the smoothed loss after each, and what follows from them."""

    rates: tuple[float, ...]  # of the group with the highest
    losses: tuple[float, ...]
    suggestions: Mapping[str, float]
    stage: str  # whose rates they are
    planned: float  # the highest rate that the stage has by its settings


@dataclass(frozen=True)
class Rising:
    """From a share of the last rate up to it, by the same factor with every step."""

    share: float

    def __call__(self, step: int, steps: int) -> float:
        return float(self.share ** (1 - step / steps))


def find_rates(
    model: Model,
    stage: Stage,
    source: Source,
    fitting: Fitting,
    first: float = FIRST,
    last: float = LAST,
    steps: int = STEPS,
) -> FoundRates:
    """Try `steps` rising rates on the weights that `stage` moves; its groups keep their proportions.

    Weights, running statistics, torch's generators and what asks for gradients are afterwards as before; the
    optimizer and the carried state are the search's own.
    """
    if own_world() > 1:
        raise UsageError("rates are looked for in one process; start it without torchrun")
    if not 0 < first < last or steps < 20:
        raise UsageError(f"{steps} rates from {first:g} to {last:g}; give 20 or more that rise from above 0")
    planned = max(group.lr for group in stage.groups)
    if not planned:
        raise UsageError("the stage's own rate is 0, so no rate moves it; set one above 0")
    alone = replace(fitting, folder=None, resume=False)
    alone.check()
    before = {name: x.detach().clone() for name, x in model.state_dict().items()}
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with (
            torch.random.fork_rng(devices),
            team(alone.device, alone.precision) as crew,
            left_as_found(model),
            compiling(model, alone.compile, crew.device),
            Interrupts() as interrupts,
            progress(alone.label, alone.quiet) as report,
        ):
            checkpoints = Checkpoints(None, alone.checkpoint_steps, {}, crew, report.note)
            run = Run(model, source, alone, crew, interrupts, report, checkpoints)
            rates, losses = _tried(run, _rising(stage, first, last), steps)
    finally:
        model.load_state_dict(before)
    return FoundRates(tuple(rates), tuple(losses), suggested(rates, losses, steps), stage.name, planned)


def suggested(rates: Sequence[float], losses: Sequence[float], steps: int) -> dict[str, float]:
    """fastai's suggestions, made as there without the first tenth and the last five of the rates."""
    x, y = np.asarray(rates[steps // 10 : -5]), np.asarray(losses[steps // 10 : -5])
    if len(y) < 3:
        raise UserError(f"the loss leaves all bounds at rate {rates[-1]:.2g} already; look further below")
    return {"valley": valley(x, y), "minimum": minimum(x, y), "steep": steep(x, y)}


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """Two thirds into the longest run of falling losses, others in between aside: what fastai prefers."""
    lengths = [1] * len(losses)
    start = end = 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end = i
                start = end - lengths[end]
    third = (end - start) / 3
    return float(rates[start + int(third) + int(third / 2)])


def minimum(rates: np.ndarray, losses: np.ndarray) -> float:
    """A tenth of the rate with the lowest loss."""
    return float(rates[losses.argmin()]) / 10


def steep(rates: np.ndarray, losses: np.ndarray) -> float:
    """Where the loss falls fastest over the logarithm of the rate."""
    return float(rates[(np.diff(losses) / np.diff(np.log(rates))).argmin()])


def _rising(stage: Stage, first: float, last: float) -> Stage:
    """The stage with rates that rise up to `last`, at its optimizer's own momentum."""
    highest = max(group.lr for group in stage.groups)
    groups: list[Group] = [replace(group, lr=group.lr * last / highest) for group in stage.groups]
    schedule = Rising(first / last)
    return replace(stage, groups=tuple(groups), epochs=1, schedule=schedule, momentum=None, window=None)


def _tried(run: Run, stage: Stage, steps: int) -> tuple[list[float], list[float]]:
    """Rates and smoothed losses, until they are through or the loss has left all bounds."""
    run.begin(stage)
    run.report.stage("trying rates", 0, steps)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    source, accumulate = run.source, run.fitting.accumulate
    for wanted in islice(step_keys(source, count(), 0, accumulate), steps):
        if wanted[0][1] == 0:
            run.carry = None  # an epoch begins
        train_step(run, stage, batches_of(source, wanted), steps)
        run.losses.read()
        if run.losses.broken:
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * run.losses.recent
        rates.append(run.rate())
        losses.append(mean / (1 - SMOOTHING ** len(rates)))
        if losses[-1] > DIVERGED * min(losses):
            break
    return rates, losses
