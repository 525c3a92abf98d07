"""Runs: one training, a saved folder that answers, and many runs compared."""
