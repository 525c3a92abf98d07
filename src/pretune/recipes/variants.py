"""Recipes with a name of their own: published ones, and the rows of the papers' ablations."""

from __future__ import annotations

from pretune.recipes.full import Full
from pretune.recipes.gradual import Gradual
from pretune.recipes.published import SCHEDULES
from pretune.recipes.published_full import FULL

# Table 7 of Howard & Ruder (2018): fine-tuning the classifier. `gradual` itself is "freez + discr + stlr".
ABLATION: dict[str, Gradual] = {
    "ablation-full": Gradual(thaw="none", factor=1, rate_schedule="constant"),
    "ablation-full-discr": Gradual(thaw="none", rate_schedule="constant"),
    "ablation-last": Gradual(thaw="last", rate_schedule="constant"),
    "ablation-chain-thaw": Gradual(thaw="chain"),
    "ablation-freez": Gradual(factor=1, rate_schedule="constant"),
    "ablation-freez-discr": Gradual(rate_schedule="constant"),
    "ablation-freez-stlr": Gradual(factor=1),
    "ablation-freez-cos": Gradual(factor=1, rate_schedule="cosine"),
}

GRADUAL: dict[str, Gradual] = {f"gradual-{name}": Gradual(schedule=name) for name in SCHEDULES} | ABLATION
VARIANTS: dict[str, Gradual | Full] = {**GRADUAL, **{name: recipe for name, (recipe, _) in FULL.items()}}


def meant(name: str | None) -> frozenset[str]:
    """The settings that a name of `VARIANTS` stands for; none of any other."""
    if name in FULL:
        return FULL[name][1]
    return frozenset(GRADUAL[name].said()) if name in GRADUAL else frozenset()
