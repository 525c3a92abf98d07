"""Stages, the loop, optimizers, schedules, checkpoints."""
