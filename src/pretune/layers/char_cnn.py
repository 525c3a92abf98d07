"""ELMo's token encoder: convolutions over a word's characters, highways, a projection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.layers import fused
from pretune.layers.compiled import kernels_for
from pretune.layers.linear import linear
from pretune.layers.packing import stamped
from pretune.layers.threads import alone, by_rows

Activation = Literal["relu", "tanh"]

PADDING = 261  # the character after a word's end, as the model sees it
BOUNDS = (5, 7, 9, 12, 16, 24)  # words are worked on in groups of no more live characters than these


class CharCNN(nn.Module):
    """Characters of distinct words -> a vector a word (Kim et al. 2016; Peters et al. 2018, section 3.4).

    Every word is alone: no mask, no neighbours. The maximum runs over all windows of `max_characters`
    characters, those of padding characters included, which have a learned vector. Windows behind a word
    are all alike, so one of them stands for all: nothing is computed twice.
    """

    def __init__(
        self,
        filters: tuple[tuple[int, int], ...],
        width: int,
        characters: int = 262,
        char_dim: int = 16,
        activation: Activation = "relu",
        highways: int = 2,
        max_characters: int = 50,
    ) -> None:
        super().__init__()
        self.activation, self.max_characters = activation, max_characters
        self.embedding = nn.Embedding(characters, char_dim)  # (characters, E); row 0 is a padded token's
        self.convolutions = nn.ModuleList(nn.Conv1d(char_dim, n, size) for size, n in filters)
        total = sum(n for _, n in filters)
        self.highways = nn.ModuleList(Highway(total) for _ in range(highways))
        self.projection = nn.Linear(total, width) if total != width else None
        self._made: tuple[tuple[int, ...], list[Tensor]] | None = None
        self._initialise()

    def forward(self, words: Tensor) -> Tensor:  # (W, C) -> (W, D)
        if alone([words]):
            return by_rows(lambda some: self.refine(self.convolved(some)), words)
        return self.refine(self.convolved(words))

    def convolved(self, words: Tensor) -> Tensor:
        """The largest value of each filter over a word's windows, activated: (W, C) -> (W, sum of n)."""
        live = (words != PADDING).sum(1)  # (W,) characters of each word, its two marks included
        kernels = None if torch.is_grad_enabled() else kernels_for(self.embedding.weight)
        if kernels is not None:
            y = fused.maxima(kernels, self._tables(), words, live)
        else:
            found, places = [], []
            for at, longest in _grouped(live):
                found.append(self._group(words[at], longest))
                places.append(at)
            y = torch.cat(found).index_select(0, torch.cat(places).argsort())
        y = y + torch.cat([convolution.bias for convolution in self._convolutions()])  # type: ignore[misc]
        return y.relu_() if self.activation == "relu" else y.tanh_()

    def refine(self, x: Tensor) -> Tensor:  # (W, sum of n) -> (W, D)
        for highway in self.highways:
            x = highway(x)
        if self.projection is None:
            return x
        return linear(x, self.projection.weight, self.projection.bias)

    def _group(self, words: Tensor, longest: int) -> Tensor:
        """The maxima of words of at most `longest` live characters: (W, C) -> (W, sum of n)."""
        maxima = []
        for convolution in self._convolutions():
            size = convolution.kernel_size[0]
            windows = min(longest, self.max_characters - size) + 1  # P
            seen = words[:, : windows + size - 1].unfold(1, size, 1)  # (W, P, size)
            inputs = self.embedding(seen).flatten(2)  # (W, P, size · E)
            kernel = convolution.weight.transpose(1, 2).flatten(1)  # (n, size · E)
            maxima.append(F.linear(inputs, kernel).amax(1))  # (W, n)
        return torch.cat(maxima, dim=-1)

    def _tables(self) -> list[Tensor]:
        """Convolutions as table lookups: what each character adds at each place of a window.

        (size, characters, n) each, made anew when the weights have changed.
        """
        weights = [self.embedding.weight, *(convolution.weight for convolution in self._convolutions())]
        stamp = tuple(part for weight in weights for part in stamped(weight))
        if self._made is None or self._made[0] != stamp:
            with torch.no_grad():
                made = [weights[0] @ weight.permute(2, 1, 0) for weight in weights[1:]]
            self._made = stamp, [table.contiguous() for table in made]
        return self._made[1]

    def _convolutions(self) -> list[nn.Conv1d]:
        return [module for module in self.convolutions if isinstance(module, nn.Conv1d)]

    def _initialise(self) -> None:
        """As the release: `bilm/training.py`."""
        nn.init.uniform_(self.embedding.weight, -1, 1)
        with torch.no_grad():
            self.embedding.weight[0] = 0
        for convolution in self._convolutions():
            if self.activation == "relu":
                nn.init.uniform_(convolution.weight, -0.05, 0.05)
            else:
                fan_in = convolution.in_channels * convolution.kernel_size[0]
                nn.init.normal_(convolution.weight, 0, fan_in**-0.5)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, 0, self.projection.in_features**-0.5)
            nn.init.zeros_(self.projection.bias)


class Highway(nn.Module):
    """y = g relu(W_t x + b_t) + (1 - g) x with g = sigmoid(W_c x + b_c); Srivastava et al. (2015).

    The release calls the gate "carry", though it opens the way to the transformed input.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform, self.carry = nn.Linear(width, width), nn.Linear(width, width)
        for part, bias in ((self.transform, 0.0), (self.carry, -2.0)):
            nn.init.normal_(part.weight, 0, width**-0.5)
            nn.init.constant_(part.bias, bias)

    def forward(self, x: Tensor) -> Tensor:  # (W, N) -> (W, N)
        gate = linear(x, self.carry.weight, self.carry.bias).sigmoid()
        return torch.lerp(x, linear(x, self.transform.weight, self.transform.bias).relu(), gate)


def _grouped(live: Tensor) -> Iterator[tuple[Tensor, int]]:
    """(places of words, their greatest number of live characters), short words first."""
    before = -1
    for bound in (*BOUNDS, int(live.max()) if len(live) else 0):
        at = ((live > before) & (live <= bound)).nonzero()[:, 0]
        if len(at):
            yield at, min(bound, int(live[at].max()))
        before = max(before, bound)
