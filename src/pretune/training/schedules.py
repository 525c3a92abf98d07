"""Learning rates over time: each schedule is a factor on every group's rate."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import Literal, Protocol, get_args

from pretune.errors import choose

Shape = Literal["linear", "cosine", "constant"]


class Schedule(Protocol):
    def __call__(self, step: int, steps: int) -> float:
        """The factor at `step` of `steps` (0 <= step < steps)."""
        ...


@dataclass(frozen=True)
class Constant:
    """One rate throughout."""

    def __call__(self, step: int, steps: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """From the peak down to nothing in half a wave, without a climb (Loshchilov & Hutter 2017)."""

    def __call__(self, step: int, steps: int) -> float:
        return _cosine(1.0, 0.0, step / steps)


@dataclass(frozen=True)
class SlantedTriangular:
    """A short climb and a long descent, eq. 3 of Howard & Ruder (2018).

    The descent ends at steps - 1 from the real turning point, as the released code has it: the
    paper's denominator falls below 1 / ratio when steps * cut_frac is not whole.
    """

    cut_frac: float = 0.1  # share of the steps spent climbing
    ratio: float = 32.0  # peak rate over lowest rate

    def __call__(self, step: int, steps: int) -> float:
        cut = max(1, int(steps * self.cut_frac))
        p = step / cut if step < cut else 1 - (step - cut) / max(1, steps - cut)
        return (1 + p * (self.ratio - 1)) / self.ratio


@dataclass(frozen=True)
class WarmupLinear:
    """Up in a line, then down in a line to zero: GPT (section 4.1) and BERT (appendix A.2)."""

    warmup: float = 0.1  # share of the steps spent climbing

    def __call__(self, step: int, steps: int) -> float:
        climb = max(1, int(steps * self.warmup))
        return (step + 1) / climb if step < climb else max(0.0, (steps - step) / max(1, steps - climb))


@dataclass(frozen=True)
class OpenAIWarmup:
    """The schedules of the OpenAI Transformer's release (`opt.py`); x is the share of steps that are over.

        linear    min(1, x / w) (1 - x)                        GPT's fine-tuning, section 4.1
        cosine    x / w up to w, then (1 + cos(pi x)) / 2      its pretraining
        constant  min(1, x / w)

    What falls does so from the first step on, not from the end of the climb, and the first rate is 0.
    """

    shape: Shape = "linear"
    warmup: float = 0.002  # w, a share of the steps
    updates: int | None = None  # w in steps, in place of the share: 2000 in pretraining
    step_offset: int = 0  # 1: a step counts as over when it begins; the release leaves the order open

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise choose("the shape of rates", self.shape, get_args(Shape))

    def __call__(self, step: int, steps: int) -> float:
        x = (step + self.step_offset) / steps
        w = self.warmup if self.updates is None else self.updates / steps
        if x <= w and w > 0:
            return x / w * (1 - x if self.shape == "linear" else 1.0)
        return {"linear": 1 - x, "cosine": _cosine(1.0, 0.0, x), "constant": 1.0}[self.shape]


@dataclass(frozen=True)
class WarmupCosine:
    """Up in a line, then half a wave from the end of the climb to zero: what transformers calls cosine."""

    warmup: float = 0.01  # share of the steps spent climbing
    updates: int | None = None  # the climb in steps, in place of the share

    def __call__(self, step: int, steps: int) -> float:
        climb = int(steps * self.warmup) if self.updates is None else self.updates
        if step < climb:
            return step / climb
        return _cosine(1.0, 0.0, min(1.0, (step - climb) / max(1, steps - climb)))


@dataclass(frozen=True)
class BERTLinear:
    """t / W, then 1 - t / T: BERT's release (`optimization.py`), whose descent counts from the first step.

    So at the end of the climb the rate jumps from its peak down to 1 - W / T of it. The first rate is 0.
    """

    warmup: float = 0.1  # share of the steps spent climbing, as in its scripts for tasks
    updates: int | None = None  # W in steps, in place of the share: 10,000 in pretraining

    def __call__(self, step: int, steps: int) -> float:
        climb = int(steps * self.warmup) if self.updates is None else self.updates
        return step / climb if step < climb else max(0.0, 1 - step / steps)


@dataclass(frozen=True)
class OneCycle:
    """Cosine up from 1/div, cosine down to 1/div_final (Smith 2018, as fastai's `fit_one_cycle`).

    As there, the lowest rate stands at the end of the last step: that step itself is a little above it.
    """

    climb: float = 0.25  # share of the steps spent climbing
    div: float = 25.0
    div_final: float = 1e5

    def __call__(self, step: int, steps: int) -> float:
        return _cycle(step / steps, self.climb, 1 / self.div, 1.0, 1 / self.div_final)


@dataclass(frozen=True)
class MomentumCycle:
    """Momentum from high to low and back while the rate goes up and down: fastai's `moms`.

    Not a factor but the value itself, as `Stage.momentum` wants it; 0.8, 0.7, 0.8 are fastai's for text.
    """

    high: float = 0.8
    low: float = 0.7
    climb: float = 0.25  # share of the steps until it is low: that of the rate's own cycle

    def __call__(self, step: int, steps: int) -> float:
        return _cycle(step / steps, self.climb, self.high, self.low, self.high)


def _cycle(position: float, turn: float, start: float, middle: float, end: float) -> float:
    """From start to middle at `turn`, then to end at 1, both in cosines."""
    if position < turn or turn == 1:
        return _cosine(start, middle, position / turn)
    return _cosine(middle, end, (position - turn) / (1 - turn))


def _cosine(start: float, end: float, position: float) -> float:
    return start + (1 + cos(pi * (1 - position))) / 2 * (end - start)
