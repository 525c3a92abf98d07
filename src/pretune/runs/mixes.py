"""Which layers a scalar mix listens to: for terminals, and over the seeds of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pretune.runs.comparison import Comparison, Contender, Mix


@dataclass(frozen=True)
class Heard:
    """One mix of a contender at the largest size, over its seeds."""

    contender: Contender
    place: str
    layers: tuple[int, ...]  # which of the encoder's, 0 the lowest
    mean: tuple[float, ...]  # of the weights after the softmax
    seeds: tuple[tuple[float, ...], ...]
    gamma: float


def mix_lines(mixes: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line a mix, as `run.json` has them."""
    return [
        f"mix at the {mix['place']}: "
        + ", ".join(
            f"layer {layer} {weight:.1%}".replace("%", " %")
            for layer, weight in zip(mix["layers"], mix["weights"], strict=True)
        )
        + f"; gamma {mix['gamma']:.3g}"
        for mix in mixes
    ]


def heard(comparison: Comparison) -> list[Heard]:
    """In the order of the ranking; a mix of one layer has no choice, and is left out."""
    several = [mix for mix in comparison.mixes if mix.size == comparison.sizes[-1] and len(mix.layers) > 1]
    found = []
    for contender in comparison.contenders:
        mine = [mix for mix in several if mix.contender == contender]
        for place in dict.fromkeys(mix.place for mix in mine):
            found.append(_over_seeds(contender, [mix for mix in mine if mix.place == place]))
    return found


def _over_seeds(contender: Contender, mixes: list[Mix]) -> Heard:
    seeds = tuple(tuple(mix.weights) for mix in mixes)
    mean = tuple(fmean(of_layer) for of_layer in zip(*seeds, strict=True))
    gamma = fmean(mix.gamma for mix in mixes)
    return Heard(contender, mixes[0].place, tuple(mixes[0].layers), mean, seeds, gamma)
