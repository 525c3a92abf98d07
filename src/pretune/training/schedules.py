"""Learning rates over time: each schedule is a factor on every group's rate."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import Protocol


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
class OneCycle:
    """Cosine up from 1/div, cosine down to 1/div_final (Smith 2018, as fastai's `fit_one_cycle`)."""

    climb: float = 0.25  # share of the steps spent climbing
    div: float = 25.0
    div_final: float = 1e5

    def __call__(self, step: int, steps: int) -> float:
        position = step / max(1, steps - 1)
        if position <= self.climb > 0:
            return _cosine(1 / self.div, 1.0, position / self.climb)
        return _cosine(1.0, 1 / self.div_final, (position - self.climb) / (1 - self.climb))


def _cosine(start: float, end: float, position: float) -> float:
    return start + (1 + cos(pi * (1 - position))) / 2 * (end - start)
