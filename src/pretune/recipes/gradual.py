"""Gradual unfreezing: thaw from the top, slower below (ULMFiT); and the ways it was compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from torch import nn

from pretune.encoder import Encoder
from pretune.errors import UsageError, choose
from pretune.recipes.limits import check
from pretune.recipes.names import all_groups
from pretune.recipes.published import SCHEDULES, RateSchedule, ScheduleName, Slower, Thaw
from pretune.tasks.base import Head, Task
from pretune.training.optimizers import AdamW
from pretune.training.schedules import (
    Constant,
    Cosine,
    MomentumCycle,
    OneCycle,
    Schedule,
    SlantedTriangular,
)
from pretune.training.stage import Group, Stage

UNSAID: Any = object()  # as the schedule has it; `__post_init__` leaves none of these
CHAIN = {"lr": 1e-3, "factor": 10.0, "slower": "below"}  # 1e-4 below the head: train_clas.py
CHOICES = {
    "schedule": get_args(ScheduleName),
    "thaw": get_args(Thaw),
    "slower": get_args(Slower),
    "rate_schedule": get_args(RateSchedule),
}


@dataclass(frozen=True)
class Gradual:
    """The head alone for an epoch, then one more layer with each epoch, then everything.

    Howard & Ruder (2018), sections 3.2 and 3.3: rates fall by 2.6 with every layer below the head
    (discriminative fine-tuning), and rise and fall within each stage (slanted triangles). It is made for
    pretrained encoders with few labels; from scratch it would freeze layers that know nothing: use `Full`.

        Gradual()                                  # the paper's stages, sized for hundreds of labels
        Gradual(schedule="fastai2", lr=1e-2)       # fastai 2's tutorial, all its rates halved
        Gradual(thaw="none", rate_schedule="constant", factor=1)  # "full" in the paper's table 7

    A field that is not given is as `schedule` has it (`pretune.recipes.published`), and `pretune.config`
    changes those that were given alone; `dataclasses.replace` keeps all numbers.
    """

    schedule: ScheduleName = "few_labels"
    """Whose stages, rates and optimizer: few_labels, paper, script, fastai1, fastai2, fine_tune, multifit;
    transformer for GPT and BERT."""
    lr: float = UNSAID
    """Peak rate of the head in the first stage; the rates of later stages change with it."""
    thaw: Thaw = UNSAID
    """gradual; none: all groups from the start; last: the head alone, throughout; chain: the head, then each
    group alone from the bottom, then all (Felbo et al. 2017), at 1e-3 and 1e-4 below the head."""
    factor: float = UNSAID
    """How much slower lower groups are (discriminative fine-tuning, section 3.2); 1 gives all one rate."""
    slower: Slower = UNSAID
    """each: every group is slower by factor than the one above it; lowest: the lowest group is, than the
    head, in equal ratios from group to group (fastai's slice(a, b)); below: all groups below the head are."""
    epochs: int = UNSAID
    """Passes of the last stage. The paper trains to convergence, up to 50 on large data."""
    thaw_epochs: int = 1
    """Passes of each stage before that."""
    batch_size: int = UNSAID
    """Samples a step."""
    rate_schedule: RateSchedule = UNSAID
    """Of every group's rate within a stage: slanted_triangular (eq. 3), one_cycle (fastai), cosine (down
    from the peak, the paper's "aggressive cosine annealing"), constant."""
    cut_frac: float | None = None
    """Share of a stage's steps spent climbing; none: as the schedule has it, stage by stage."""
    ratio: float | None = None
    """Highest rate over first rate; none: as the schedule has it, stage by stage."""
    beta1: float = UNSAID
    """Adam's first decay, where it does not cycle."""
    beta2: float = UNSAID
    """Adam's second decay."""
    momentum: tuple[float, float] | None = UNSAID
    """Adam's first decay at both ends of one_cycle and at its peak, such as [0.8, 0.7]; none: beta1."""
    eps: float = UNSAID
    """What Adam adds to its divisor."""
    weight_decay: float = UNSAID
    """Decoupled decay."""
    decay_all: bool = UNSAID
    """Whether norms and biases decay too; fastai 2 spares them."""
    clip: float | None = UNSAID
    """Largest gradient norm."""
    alpha: float = UNSAID
    """Activation regularisation (AR) of the top layer."""
    beta: float = UNSAID
    """Temporal activation regularisation (TAR) of the top layer."""

    def __post_init__(self) -> None:
        for name, possible in CHOICES.items():
            said = getattr(self, name)
            if said is not UNSAID and said not in possible:
                raise choose(f"recipe.{name}", str(said), possible)
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not f.default}
        published = SCHEDULES[self.schedule]
        values: dict[str, Any] = {**vars(published), **said}
        values.setdefault("lr", published.rates[-1 if values["thaw"] == "none" else 0])
        if values["thaw"] == "chain":
            values |= {name: value for name, value in CHAIN.items() if name not in said}
        if "momentum" not in said and ("beta1" in said or values["rate_schedule"] != "one_cycle"):
            values["momentum"] = None
        for field in fields(self):
            if field.default is UNSAID:
                object.__setattr__(self, field.name, values[field.name])
        self.__dict__["_said"] = said
        check(self)
        self._check_rates()

    def said(self) -> dict[str, Any]:
        """The fields that differ from what this class has where nothing is said."""
        return dict(self.__dict__["_said"])

    def _check_rates(self) -> None:
        if self.momentum is not None and self.rate_schedule != "one_cycle":
            raise UsageError(
                f"recipe.momentum goes with one_cycle, and recipe.rate_schedule is {self.rate_schedule}; "
                "leave it out, or set recipe.beta1"
            )
        if self.momentum is not None and not all(0 <= beta < 1 for beta in self.momentum):
            raise UsageError(f"recipe.momentum is {list(self.momentum)}; give two numbers from 0 to below 1")
        for name in ("cut_frac", "ratio"):
            if self.rate_schedule in ("constant", "cosine") and getattr(self, name) is not None:
                raise UsageError(
                    f"recipe.{name} is for rates that climb, and recipe.rate_schedule is "
                    f"{self.rate_schedule}; leave it out"
                )

    def task(self, task: Task) -> Task:
        return task

    def wrap(self, encoder: Encoder) -> Encoder:
        return encoder

    def stages(self, encoder: Encoder, head: Head) -> list[Stage]:
        groups = self._groups(encoder, head)  # the head first, then downwards
        if self.thaw == "last":
            return [self._stage("head", groups[:1], self.epochs, last=True)]
        if self.thaw == "none":
            return [self._stage("all", groups, self.epochs, last=True)]
        if self.thaw == "chain":
            alone = [self._stage(f"{group.name} alone", [group]) for group in (groups[0], *groups[:0:-1])]
            return [*alone, self._stage("all", groups, self.epochs, last=True)]
        *thawing, rate = self._shares(len(groups))
        names = ["head", *(f"down to {group.name}" for group in groups[1:])]
        legs = [
            self._stage(name, _times(groups[: depth + 1], share))
            for depth, (name, share) in enumerate(zip(names, thawing, strict=False))
        ]
        return [*legs, self._stage("all", _times(groups, rate), self.epochs, last=True)]

    def _groups(self, encoder: Encoder, head: Head) -> list[Group]:
        modules: list[tuple[str, nn.Module]] = [("head", head), *reversed(all_groups(encoder))]
        return [
            Group(
                name,
                (module,),
                self.lr / self._slowness(depth, len(modules)),
                self.weight_decay,
                self.decay_all,
            )
            for depth, (name, module) in enumerate(modules)
        ]

    def _slowness(self, depth: int, groups: int) -> float:
        """The head's rate over that of a group so far below it."""
        if self.slower == "each":
            return float(self.factor**depth)
        if self.slower == "lowest":
            return float(self.factor ** (depth / (groups - 1)))
        return self.factor if depth else 1.0

    def _shares(self, groups: int) -> list[float]:
        """The head's rate in each stage over that in the first; before the last no stage moves everything."""
        rates = SCHEDULES[self.schedule].rates
        if len(rates) == 1:
            return [1.0] * groups
        shares = [rate / rates[0] for rate in rates]
        return [*shares[:-1][: groups - 1], shares[-1]]

    def _stage(self, name: str, groups: Sequence[Group], epochs: int = 0, last: bool = False) -> Stage:
        published = SCHEDULES[self.schedule]
        climb = published.climb[last] if self.cut_frac is None else self.cut_frac
        ratio = published.ratio[last] if self.ratio is None else self.ratio
        schedules: dict[RateSchedule, Schedule] = {
            "slanted_triangular": SlantedTriangular(climb, ratio),
            "one_cycle": OneCycle(climb, ratio, published.final_ratio),
            "cosine": Cosine(),
            "constant": Constant(),
        }
        return Stage(
            name,
            tuple(reversed(groups)),
            epochs or self.thaw_epochs,
            schedules[self.rate_schedule],
            AdamW(self.beta1, self.beta2, self.eps),
            self.clip,
            MomentumCycle(*self.momentum, climb) if self.momentum else None,
        )


def _times(groups: Sequence[Group], share: float) -> list[Group]:
    return [replace(group, lr=group.lr * share) for group in groups]
