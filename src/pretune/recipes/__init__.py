"""Recipes by name, in the order of the papers."""

from __future__ import annotations

from pretune.recipes.base import Recipe
from pretune.recipes.features import Features
from pretune.recipes.full import Full
from pretune.recipes.gradual import Gradual

RECIPES: dict[str, type[Recipe]] = {"features": Features, "gradual": Gradual, "full": Full}
