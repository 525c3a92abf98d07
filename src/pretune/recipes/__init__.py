"""Recipes by name, in the order of the papers."""
