"""Recipes by name, in the order of the papers."""

from __future__ import annotations

from pretune.recipes.base import Recipe
from pretune.recipes.features import Features
from pretune.recipes.full import Full
from pretune.recipes.gradual import Gradual
from pretune.recipes.variants import VARIANTS

__all__ = ["NAMES", "RECIPES", "VARIANTS", "Features", "Full", "Gradual", "Recipe"]

RECIPES: dict[str, type[Recipe]] = {"features": Features, "gradual": Gradual, "full": Full}
NAMES = (*RECIPES, *VARIANTS)  # what --recipe and --recipes know
