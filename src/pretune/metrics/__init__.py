"""Scores of answers against golds, on plain Python and numpy."""
