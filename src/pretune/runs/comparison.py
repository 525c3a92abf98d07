"""Comparison: what `pretune compare` found, as plain values that reports are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pretune.errors import UserError
from pretune.runs.baselines import BASELINES as BASELINES

if TYPE_CHECKING:
    from pretune.runs.predictor import Predictor
    from pretune.tasks.base import Answer


class Contender(NamedTuple):
    """One way of doing the task, at any size."""

    method: str
    recipe: str
    start: str  # "scratch", or what the weights were before


@dataclass(frozen=True)
class Said:
    """What is said of one contender."""

    method: str
    recipe: str
    start: str

    @property
    def contender(self) -> Contender:
        return Contender(self.method, self.recipe, self.start)


@dataclass(frozen=True)
class Row(Said):
    """One training: a finished cell."""

    size: int  # labels used, those for validation included
    seed: int
    score: float  # the task's metric on the test data
    scores: dict[str, float]
    train_seconds: float
    peak_memory_bytes: int
    parameters: int
    predictions_per_second: float


@dataclass(frozen=True)
class Rank(Said):
    """A contender at one size, over its seeds."""

    size: int
    mean: float
    sd: float  # over seeds
    low: float  # 95 % bootstrap interval over test samples and seeds
    high: float
    p_value: float | None  # against the best of this size, Holm-corrected; None for the best itself


@dataclass(frozen=True)
class Test(Said):
    """The best of the largest size against another contender, on the same test samples."""

    difference: float  # of the means
    p_bootstrap: float
    p_mcnemar: float | None  # only where an answer is right or wrong
    p_holm: float  # the bootstrap's, corrected for the number of comparisons

    __test__ = False  # no test case of pytest's


@dataclass(frozen=True)
class Choice(Said):
    """The contender that is recommended, and its best seed on validation data: what lies in best/."""

    size: int
    seed: int
    validation_mean: float
    chosen_by: str = "validation"  # or "test", where validation's choice is clearly worse on the test data
    optimism: float = 0.0  # of a choice by test data: by about so much its score there may be too good
    folder: Path | None = field(default=None, compare=False, repr=False)  # where it lies; never in files

    @cached_property
    def predictor(self) -> Predictor:
        """The model itself, read from best/ when first asked for."""
        from pretune.runs.predictor import Predictor

        if self.folder is None:
            raise UserError("this comparison came from no folder; Comparison.load(folder) knows its model")
        return Predictor.load(self.folder)

    def answer(self, samples: Any) -> list[Answer]:
        """As `Predictor.answer`: found.best.answer(["a text"])[0].label"""
        return self.predictor.answer(samples)


@dataclass(frozen=True)
class Evidence(Said):
    """What one kind of data says of a contender at the largest size, beside the best there."""

    data: str  # "validation" or "test"
    mean: float  # over seeds
    optimism: float  # of the best of several epochs or strengths, on validation data; taken off before `gap`
    gap: float  # to the best: how much worse, never negative
    error: float  # one standard error of the gap, paired by examples and seeds
    p_holm: float | None = None  # of no gap, where it was tested; None for the best itself

    @property
    def within(self) -> bool:
        """Whether it lies within one standard error of the best."""
        return self.gap <= self.error


@dataclass(frozen=True)
class Gain(Said):
    """What a start brings over the same method from scratch, with 95 % interval; positive is better."""

    scratch_recipe: str
    size: int
    gain: float  # of the means over the same seeds and test samples
    low: float
    high: float


@dataclass(frozen=True)
class Curve(Said):
    """score = c - a n^-b through a contender's sizes n, and the labels it needs for the target."""

    c: float
    a: float
    b: float
    target: float
    labels: int | None  # the smallest size at least; None: not within ten times the labels
    labels_low: int | None  # 95 % interval; None: beyond ten times the labels
    labels_high: int | None
    band: list[dict[str, float]]  # size, score, low, high: from the largest size on


@dataclass(frozen=True)
class Standing(Said):
    """Whether a contender is on the Pareto front of score, training time, peak memory and speed."""

    efficient: bool
    dominated_by: dict[str, str] | None  # the first in the ranking that is nowhere worse and somewhere better


@dataclass(frozen=True)
class Hard:
    """A test sample that most contenders answer wrongly at the largest size."""

    text: str
    gold: str
    said: str  # the answer that they gave most often
    wrong: int
    of: int


@dataclass(frozen=True)
class Mix(Said):
    """Which layers the scalar mix of one training listens to."""

    size: int
    seed: int
    place: str  # input or output of the task's BiLSTM, after the member's name in an ensemble
    layers: list[int]  # which of the encoder's, 0 the lowest
    weights: list[float]  # after the softmax
    gamma: float


@dataclass(frozen=True)
class Breakdown:
    """What is right and wrong where: a row is a name and then counts (int), shares of 1 (float), or None."""

    title: str
    how: str
    columns: list[str]  # the first is that of names
    rows: list[list[Any]]


@dataclass(frozen=True)
class Comparison:
    """Everything that a report says. `rows` and `ranking` are sorted: largest size first, best first."""

    task: str
    metric: str
    data: dict[str, Any]
    rows: list[Row]
    ranking: list[Rank]
    recommendation: str
    versions: dict[str, str]
    higher_is_better: bool = True
    titles: dict[str, str] = field(default_factory=dict)  # methods as people write them
    best: Choice | None = None
    tests: list[Test] = field(default_factory=list)
    confusion: dict[str, Any] | None = None  # labels, counts[gold][said] of the chosen model
    hardest: list[Hard] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)  # the means that the choice was made by
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    mixes: list[Mix] = field(default_factory=list)
    lengths: list[dict[str, Any]] = field(default_factory=list)  # of spans: length, true, said, f1
    breakdowns: list[Breakdown] = field(default_factory=list)  # of the chosen model's errors
    evidence: list[Evidence] = field(default_factory=list)  # that the recommendation rests on
    reasons: list[str] = field(default_factory=list)  # the recommendation's sentences after the first
    gains: list[Gain] = field(default_factory=list)
    learning_curves: list[Curve] = field(default_factory=list)  # of contenders with three sizes or more
    standings: list[Standing] = field(default_factory=list)

    @property
    def counted(self) -> str:
        """What sizes are numbers of."""
        return str(self.data.get("counted", "labels"))

    @property
    def sizes(self) -> list[int]:
        return sorted({rank.size for rank in self.ranking})

    @property
    def contenders(self) -> list[Contender]:
        """In the order of the ranking at the largest size."""
        return list(dict.fromkeys(rank.contender for rank in self.ranking))

    def rank(self, contender: Contender, size: int) -> Rank | None:
        return next((r for r in self.ranking if r.contender == contender and r.size == size), None)

    def top(self) -> list[Rank]:
        """The ranking at the largest size."""
        return [rank for rank in self.ranking if rank.size == self.sizes[-1]]

    def cost(self, contender: Contender, size: int, what: str) -> float:
        """The mean over seeds of `train_seconds`, `peak_memory_bytes`, …"""
        values = [float(getattr(r, what)) for r in self.rows if r.contender == contender and r.size == size]
        return sum(values) / len(values)

    def name(self, contender: Contender) -> str:
        return contender_names(self.contenders, self.titles)[contender]

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        if values["best"]:
            del values["best"]["folder"]
        return values

    def in_folder(self, folder: Path) -> Comparison:
        """The same, knowing where its best model is."""
        return replace(self, best=replace(self.best, folder=folder / "best")) if self.best else self

    def table(self) -> Any:
        """The ranking as a pandas DataFrame: a row for each approach and size, with its costs."""
        from pretune.runs.shown import table

        return table(self)

    def report(self, path: Path | str) -> Path:
        """The report as one self-contained page (.html) or as Markdown (.md), written to `path`."""
        from pretune.runs.shown import write_report

        return write_report(self, Path(path))

    def __repr__(self) -> str:
        from pretune.runs.shown import text

        return text(self)

    def _repr_html_(self) -> str:
        from pretune.runs.shown import page

        return page(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        many = {"rows": Row, "ranking": Rank, "tests": Test, "hardest": Hard, "mixes": Mix}
        many |= {"evidence": Evidence, "gains": Gain, "learning_curves": Curve, "standings": Standing}
        many |= {"breakdowns": Breakdown}
        lists = {name: [kind(**x) for x in values.get(name, [])] for name, kind in many.items()}
        best = Choice(**values["best"]) if values["best"] else None
        return cls(**{**values, **lists, "best": best})

    @classmethod
    def load(cls, folder: Path) -> Comparison:
        """What an earlier comparison left in `folder`."""
        path = folder / "comparison.json"
        if not path.exists():
            raise UserError(f"{path}: no such file; `pretune compare … --out {folder}` makes it")
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8"))).in_folder(folder)


def contender_names(contenders: Sequence[Contender], titles: Mapping[str, str]) -> dict[Contender, str]:
    """Short names for people; the recipe is said only where it tells two of them apart."""
    names = {}
    for one in contenders:
        title = titles.get(one.method, one.method)
        alike = [other for other in contenders if (other.method, other.start) == (one.method, one.start)]
        start = "" if one.method in BASELINES else f" from {one.start}"
        names[one] = title + start + (f" ({one.recipe})" if len(alike) > 1 else "")
    return names


class Style(NamedTuple):
    """How a metric is written: accuracies as per cents, correlations as they are."""

    scale: float
    digits: int
    unit: str

    def __call__(self, value: float, unit: bool = True) -> str:
        return f"{value * self.scale:.{self.digits}f}" + (self.unit if unit else "")


def style(metric: str) -> Style:
    per_cent = metric in ("accuracy", "f1") or metric.endswith("_f1")
    return Style(100, 1, " %") if per_cent else Style(1, 3, "")


def p_text(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def seconds_text(seconds: float) -> str:
    if seconds < 1:
        return f"{max(seconds, 0.01):.2f} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def bytes_text(size: float) -> str:
    return f"{size / 2**20:.0f} MB" if size < 2**30 else f"{size / 2**30:.1f} GB"


def count_text(number: float) -> str:
    """1234 -> 1,234; 24200000 -> 24.2 M"""
    if number >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"
