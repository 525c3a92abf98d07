"""The loop: every stage, epoch and step of training, visible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

from pretune.keys import key
from pretune.tensors.batch import Batch
from pretune.training.averaging import averaged, settle
from pretune.training.checkpoints import Checkpoints, fingerprint
from pretune.training.compiling import compiling
from pretune.training.devices import seed_dropout, team
from pretune.training.fitting import Fitted, Fitting
from pretune.training.interrupts import Interrupted, Interrupts
from pretune.training.model import Model
from pretune.training.optimizers import set_momentum
from pretune.training.progress import progress
from pretune.training.run import Run, Validate
from pretune.training.sources import Source, feed, optimizer_steps, step_keys
from pretune.training.stage import Stage, left_as_found

__all__ = ["Fitted", "Fitting", "Interrupted", "fit"]


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
    stages = [stage.lengthened(optimizer_steps(source, 0, fitting.accumulate)) for stage in stages]
    with (
        team(fitting.device, fitting.precision) as crew,
        left_as_found(model),
        compiling(model, fitting.compile, crew.device),
        Interrupts() as interrupts,
        progress(fitting.label, fitting.quiet or not crew.is_main_process) as report,
    ):
        settings = fitting.seed, fitting.accumulate, fitting.keep
        identity = fingerprint(model, stages, source, *settings, crew) if fitting.folder else {}
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
                with averaged(run.optimizer):
                    if validate:
                        entry["scores"] = run.validated(validate, metric)
                        stage.train(model)
                    run.keep(entry["scores"], metric, higher_is_better)
                run.end_epoch(stage, entry, metric, higher_is_better)
            settle(run.optimizer)
            state.end_stage()
        if run.best_weights is not None:
            model.load_state_dict(run.best_weights)
    return Fitted(state.best, state.history, state.seconds, state.step, state.tokens)


def train_epoch(run: Run, stage: Stage, steps: Iterable[list[Batch]], stage_steps: int) -> dict[str, Any]:
    """The rest of an epoch, one optimizer step for every list of batches; its line of the history."""
    for batches in steps:
        train_step(run, stage, batches, stage_steps)
    return run.epoch_entry(stage)


def train_step(run: Run, stage: Stage, batches: list[Batch], stage_steps: int) -> None:
    """One optimizer step on some batches."""
    state, crew = run.state, run.crew
    targets = [run.model.head.targets(batch) for batch in batches]
    tokens = sum(int(batch.mask.sum()) for batch in batches)
    all_targets, all_tokens = run.agree(stage, sum(targets), tokens)  # over all processes

    seed_dropout(crew, key(run.fitting.seed, "step", state.stage, state.step, crew.process_index))
    width = sum(batch.ids.shape[1] for batch in batches) / len(batches)
    factor = stage.factor(state.stage_step, stage_steps, width)
    for group in run.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
        if stage.momentum is not None:
            set_momentum(group, stage.momentum(state.stage_step, stage_steps))

    for batch, own_targets in zip(batches, targets, strict=True):
        with nullcontext() if batch is batches[-1] else crew.no_sync(run.shell):
            loss, reported, parts, carry = run.shell(batch.to(crew.device), run.carry)
            # a sum over own targets -> a mean over all; DDP divides by the number of processes
            crew.backward(loss * (crew.num_processes / max(1.0, all_targets)))
        run.carry = carry if run.source.carries else None
        run.losses.add(state.step + 1, own_targets, loss, reported, parts)
    if stage.clip is not None:
        crew.clip_grad_norm_(run.weights(), stage.clip)
    run.optimizer.step()
    run.optimizer.zero_grad()

    state.end_step(int(all_targets), int(all_tokens), run.clock.lap())
    speed = state.epoch_tokens / state.epoch_seconds
    run.report.step(run.losses.recent, run.rate(), speed, run.losses.recent_parts)
