"""A continuous cache: words of the recent past are likelier where the model was in a like state."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log

import torch
from torch import Tensor

from pretune.errors import UsageError
from pretune.tensors.streams import NO_TARGET

Memory = tuple[Tensor, Tensor]  # hidden states (N, W, D) and the word that followed each, (N, W)


@dataclass(frozen=True)
class ContinuousCache:
    """p(w) = (1 - weight) p_model(w) + weight p_cache(w), Grave et al. (2017, arXiv 1612.04426), eq. 3 and 4.

    p_cache(w) is in proportion to the sum of exp(theta h_t · h_i) over those of the last `window` positions i
    that w followed. It learns nothing and costs a product a pair of positions: for evaluation. The "pointer"
    of the AWD-LSTM release, which waits until the window is full; here the first words of a stream have the
    cache that there is.
    """

    window: int = 500
    """Positions looked back on: 500 for Penn Treebank, 3,785 for WikiText-2 in the release."""
    weight: float = 0.1
    """lambda, the cache's share: 0.1 and 0.1279 there."""
    theta: float = 1.0
    """How much likeness counts: 1.0 and 0.662 there."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UsageError(f"the cache looks back on {self.window} words; give 1 or more")
        if not 0 < self.weight < 1:
            raise UsageError(f"the cache's lambda is {self.weight}; it must lie between 0 and 1")

    def mixed(
        self, said: Tensor, hidden: Tensor, targets: Tensor, memory: Memory | None
    ) -> tuple[Tensor, Memory]:
        """log p of the targets (N, T), of the model's own `said` (N, T), and what to remember.

        hidden (N, T, D); targets (N, T), NO_TARGET where none is asked. `memory` is what the windows before
        left, None at the start.
        """
        hidden = hidden.float()
        if memory is None:
            memory = hidden[:, :0], targets[:, :0]
        states = torch.cat((memory[0], hidden), 1)  # (N, W + T, D)
        words = torch.cat((memory[1], targets), 1)  # (N, W + T)
        now = torch.arange(hidden.shape[1], device=hidden.device) + memory[1].shape[1]  # (T,)
        back = now[:, None] - torch.arange(words.shape[1], device=hidden.device)  # (T, W + T)
        seen = (back > 0) & (back <= self.window) & (words != NO_TARGET)[:, None]  # (N, T, W + T)
        likeness = self.theta * (hidden @ states.transpose(1, 2))  # (N, T, W + T)
        likeness = likeness.masked_fill(~seen, -inf)
        same = likeness.masked_fill(words[:, None] != targets[:, :, None], -inf)
        cached = same.logsumexp(2) - likeness.logsumexp(2)  # (N, T)
        mixed = torch.logaddexp(said + log(1 - self.weight), cached + log(self.weight))
        mixed = torch.where(seen.any(2), mixed, said)
        return mixed, (states[:, -self.window :], words[:, -self.window :])
