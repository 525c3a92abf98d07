"""Losses on their way from the device: read a few at a time, so that a GPU need not wait for each."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

STEPS_BETWEEN_READS = 16


class Losses:
    """This process's losses of an epoch, summed over targets, without penalties."""

    def __init__(self, device: torch.device) -> None:
        self.total = 0.0
        self.recent = 0.0  # per target, of what was read last
        self.broken = 0  # the first step, counted from 1, whose loss is not finite; 0 while all are
        self._between_reads = 1 if device.type == "cpu" else STEPS_BETWEEN_READS
        self._waiting: list[tuple[int, int, Tensor]] = []

    def add(self, step: int, targets: int, loss: Tensor, reported: Tensor) -> None:
        """Scalars of one batch, summed over its targets; `loss` includes the penalties."""
        self._waiting.append((step, targets, torch.stack((loss.detach(), reported))))
        if len(self._waiting) >= self._between_reads:
            self.read()

    def read(self) -> None:
        if not self._waiting:
            return
        steps, targets, values = zip(*self._waiting, strict=True)
        self._waiting = []
        before = self.total
        for step, (loss, reported) in zip(steps, torch.stack(values).tolist(), strict=True):
            self.total += reported
            if not self.broken and not (isfinite(loss) and isfinite(reported)):
                self.broken = step
        self.recent = (self.total - before) / max(1, sum(targets))
