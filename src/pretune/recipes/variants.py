"""Recipes with a name of their own: published schedules, and the rows of ULMFiT's ablation."""

from __future__ import annotations

from pretune.recipes.gradual import Gradual
from pretune.recipes.published import SCHEDULES

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

VARIANTS: dict[str, Gradual] = {f"gradual-{name}": Gradual(schedule=name) for name in SCHEDULES} | ABLATION
