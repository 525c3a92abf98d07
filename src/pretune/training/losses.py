"""Losses on their way from the device: read a few at a time, so that a GPU need not wait for each."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor

STEPS_BETWEEN_READS = 16


class Losses:
    """This process's losses of an epoch, summed over targets, without penalties."""

    def __init__(self, device: torch.device) -> None:
        self.total = 0.0
        self.parts: dict[str, float] = {}  # what it is made of, by name, where it is made of several
        self.recent = 0.0  # per target, of what was read last
        self.recent_parts: dict[str, float] = {}
        self.broken = 0  # the first step, counted from 1, whose loss is not finite; 0 while all are
        self._between_reads = 1 if device.type == "cpu" else STEPS_BETWEEN_READS
        self._waiting: list[tuple[int, int, Tensor]] = []

    def add(
        self, step: int, targets: int, loss: Tensor, reported: Tensor, parts: Mapping[str, Tensor]
    ) -> None:
        """Scalars of one batch, summed over its targets; `loss` includes the penalties."""
        self.parts = dict.fromkeys(parts, 0.0) | self.parts
        values = [loss.detach(), reported, *(parts[name] for name in self.parts)]
        self._waiting.append((step, targets, torch.stack(values)))
        if len(self._waiting) >= self._between_reads:
            self.read()

    def read(self) -> None:
        if not self._waiting:
            return
        steps, targets, values = zip(*self._waiting, strict=True)
        self._waiting = []
        total, parts = self.total, dict(self.parts)
        for step, (loss, reported, *of_parts) in zip(steps, torch.stack(values).tolist(), strict=True):
            self.total += reported
            for name, part in zip(parts, of_parts, strict=True):
                self.parts[name] += part
            if not self.broken and not (isfinite(loss) and isfinite(reported)):
                self.broken = step
        asked = max(1, sum(targets))
        self.recent = (self.total - total) / asked
        self.recent_parts = {name: (self.parts[name] - before) / asked for name, before in parts.items()}
