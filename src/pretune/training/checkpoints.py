"""Checkpoints: everything that a killed run needs to end with the same weights, written atomically."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from pretune.errors import UserError
from pretune.training.devices import from_first
from pretune.training.model import Model
from pretune.training.sources import Source
from pretune.training.stage import Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

SECONDS_BETWEEN_EPOCHS = 20.0  # epochs shorter than this share a checkpoint
KEPT = 2
KEEP = "choice of the weights to keep"


@dataclass
class State:
    """Where training stands. Beside weights, optimizer and carry this is all there is to restore."""

    stage: int = 0  # stages that are over
    stage_epoch: int = 0  # epochs of the stage at hand that are over
    stage_began: int = 0  # epochs that were over when it began
    stage_step: int = 0  # optimizer steps taken in the stage at hand
    epoch: int = 0  # epochs that are over, of all stages
    epoch_step: int = 0  # optimizer steps taken in the epoch at hand
    step: int = 0  # optimizer steps taken in all
    stale: int = 0  # epochs of this stage without a better score
    tokens: int = 0
    seconds: float = 0.0
    epoch_targets: int = 0
    epoch_tokens: int = 0
    epoch_seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def end_step(self, targets: int, tokens: int, seconds: float) -> None:
        self.step += 1
        self.stage_step += 1
        self.epoch_step += 1
        self.tokens += tokens
        self.epoch_tokens += tokens
        self.epoch_targets += targets
        self.add_seconds(seconds)

    def add_seconds(self, seconds: float) -> None:
        self.seconds += seconds
        self.epoch_seconds += seconds

    def end_epoch(self, entry: dict[str, Any]) -> None:
        self.history.append(entry)
        self.epoch += 1
        self.stage_epoch += 1
        self.epoch_step = self.epoch_targets = self.epoch_tokens = 0
        self.epoch_seconds = 0.0

    def end_stage(self) -> None:
        self.stage += 1
        self.stage_began = self.epoch
        self.stage_epoch = self.stage_step = self.stale = 0


@dataclass
class Checkpoint:
    """`own` is what differs between processes; the rest is equal in all of them."""

    state: State
    weights: dict[str, Tensor]
    best_weights: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    own: dict[str, Any]


def fingerprint(
    model: Model,
    stages: Sequence[Stage],
    source: Source,
    seed: int,
    accumulate: int,
    keep: str,
    team: Accelerator,
) -> dict[str, Any]:
    """What two runs must agree on before one can go on from the other's checkpoint."""
    first, task = source.batch(0, 0), repr(getattr(source, "task", None))
    return {
        "seed": seed,
        "accumulate": accumulate,
        KEEP: keep,
        "processes": team.num_processes,
        "batches an epoch": source.steps(0),
        "weights": {name: list(x.shape) for name, x in model.state_dict().items()},
        "first weights": from_first(team, _digest(model.state_dict().values())),
        "first samples": from_first(team, _digest([first.ids, first.mask, *first.gold.values()])),
        "task settings": _hashed(task),
        "dropouts or other settings of the network": _hashed(repr([*map(_settings, model.modules())])),
        "restarts": getattr(getattr(source, "source", source), "restarts", 0.0),
        "penalties": [model.alpha, model.beta],
        "stages": [
            {
                "name": stage.name,
                "epochs": stage.epochs,
                "clip": stage.clip,
                "schedule": _describe(stage.schedule),
                "optimizer": _describe(stage.optimizer),
                "groups": [
                    [group.name, group.lr, group.weight_decay, sum(p.numel() for p in group.parameters())]
                    for group in stage.groups
                ],
                **_beyond(stage),
            }
            for stage in stages
        ],
    }


def _beyond(stage: Stage) -> dict[str, Any]:
    """What not every stage has."""
    said = {"window": stage.window, "momentum": stage.momentum and _describe(stage.momentum)}
    said["decay"] = None if all(group.decay_all for group in stage.groups) else "not of norms and biases"
    return {name: value for name, value in said.items() if value is not None}


def _settings(module: nn.Module) -> list[tuple[str, str]]:
    """What a module is set to beside its weights: dropouts, the words that a softmax compares with, …"""
    return [
        (name, repr(value))
        for name, value in sorted(vars(module).items())
        if name != "training" and (isinstance(value, bool | int | float | str) or is_dataclass(value))
    ]


def _hashed(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _digest(tensors: Iterable[Tensor]) -> str:
    """Of the weights before the first step, and of its batch: another start, data or order shows here."""
    total = blake2b(digest_size=8)
    for x in tensors:
        total.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _describe(thing: Any) -> str:
    return repr(thing) if is_dataclass(thing) else getattr(thing, "__qualname__", type(thing).__qualname__)


class Checkpoints:
    """The folder of one run: `step-N.tmp` while it is written, then renamed; the newest two stay."""

    def __init__(
        self,
        folder: Path | None,
        every: int,
        run: dict[str, Any],
        team: Accelerator,
        note: Callable[[str], None],
    ) -> None:
        self.folder, self.every, self.run, self.team, self.note = folder, every, run, team, note
        self.id = uuid4().hex
        self.written_step, self.written_at = 0, time.monotonic()

    def start(self, resume: bool) -> Checkpoint | None:
        """Take the folder over; the newest checkpoint in it if the run is to go on from there.

        Raises `UserError` if the folder holds another run's checkpoints, or this one's without `resume`.
        """
        if self.folder is None:
            if resume:
                raise UserError("cannot resume: no folder for checkpoints is given")
            return None
        found = self._check(resume)
        self.team.wait_for_everyone()
        if self.team.is_main_process:
            self._claim()
        self.team.wait_for_everyone()
        if found is None:
            if resume:
                self.note(f"no checkpoint in {self.folder}: starting from the beginning")
            return None
        checkpoint = self._load(found)
        self.written_step = checkpoint.state.step
        self.note(f"goes on from {found}")
        return checkpoint

    def due(self, step: int) -> bool:
        return self.folder is not None and step % self.every == 0 and step != self.written_step

    def old(self) -> bool:
        """Long enough ago for another at the end of an epoch."""
        return self.folder is not None and time.monotonic() - self.written_at > SECONDS_BETWEEN_EPOCHS

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it for all processes, which must share this folder; a half-written one is never seen."""
        if self.folder is None:
            return
        step = checkpoint.state.step
        whole = self.folder / f"step-{step:08d}"
        half = whole.with_suffix(".tmp")
        if self.team.is_main_process:
            self._check_ours()
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            shared = {name: value for name, value in vars(checkpoint).items() if name != "own"}
            torch.save(shared | {"state": asdict(checkpoint.state)}, half / "shared.pt")
        self.team.wait_for_everyone()
        torch.save(checkpoint.own, half / f"rank-{self.team.process_index}.pt")
        self.team.wait_for_everyone()
        if self.team.is_main_process:
            self._remove(whole)
            half.replace(whole)
            for old in self._whole()[:-KEPT]:
                self._remove(old)
        self.team.wait_for_everyone()
        self.written_step, self.written_at = step, time.monotonic()

    def _load(self, found: Path) -> Checkpoint:
        try:
            shared = torch.load(found / "shared.pt", map_location="cpu", weights_only=True)
            own = torch.load(
                found / f"rank-{self.team.process_index}.pt",
                map_location=self.team.device.type,
                weights_only=True,
            )
        except Exception as error:
            raise UserError(f"{found} cannot be read; delete it to go on from the one before") from error
        return Checkpoint(**shared | {"state": State(**shared["state"])}, own=own)

    def _check(self, resume: bool) -> Path | None:
        assert self.folder is not None
        whole = self._whole()
        if not whole:
            return None
        theirs = {KEEP: "best", **self._claimed().get("run", {})}  # the only one, once
        differs = [what for what, value in self.run.items() if theirs.get(what) != value]
        if differs:
            raise UserError(
                f"{self.folder} holds checkpoints of another run (its {differs[0]} differ); "
                "choose another folder, or delete this one"
            )
        if not resume:
            raise UserError(
                f"{self.folder} holds a checkpoint of this run ({whole[-1].name}); "
                "continue with --resume, or delete the folder to start again"
            )
        return whole[-1]

    def _claim(self) -> None:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        for half in self.folder.glob("step-*.tmp"):
            shutil.rmtree(half)
        new = self.folder / "checkpoints.json.tmp"
        new.write_text(json.dumps({"id": self.id, "run": self.run}), encoding="utf-8")
        new.replace(self.folder / "checkpoints.json")

    def _check_ours(self) -> None:
        if self._claimed().get("id") != self.id:
            raise UserError(f"another run has taken {self.folder} over; give each run a folder of its own")

    def _claimed(self) -> dict[str, Any]:
        assert self.folder is not None
        try:
            claim: dict[str, Any] = json.loads((self.folder / "checkpoints.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return claim

    def _whole(self) -> list[Path]:
        assert self.folder is not None
        return sorted(path for path in self.folder.glob("step-*") if path.suffix != ".tmp")

    def _remove(self, whole: Path) -> None:
        """Out of sight first, so that a kill in between leaves no half of it."""
        if whole.exists():
            gone = whole.with_suffix(".old.tmp")
            whole.replace(gone)
            shutil.rmtree(gone)
