"""Adaptive softmax: frequent words first, rarer ones in clusters that are asked only when they are due."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.layers import softmax


class AdaptiveSoftmax(nn.Module):
    """p(w) = p_head(w) for frequent w, else p_head(cluster of w) p_cluster(w): Grave et al. (2017).

    Words are in order of frequency: those below `cutoffs[0]` are the head's, those below `cutoffs[1]` the
    first cluster's, and so on; cutoffs beyond the vocabulary are left out. The decoder's (V, D) rows and
    (V,) biases, tied to an embedding or not, are passed in: the head takes its rows of them. With `div` 1
    so do the clusters, which is `SplitCrossEntropyLoss` of the released AWD-LSTM. Otherwise cluster i (from
    1) has rows of its own of width D / div^i, behind a projection of the hidden state, as no tie fits them.
    """

    def __init__(self, words: int, width: int, cutoffs: tuple[int, ...], div: float) -> None:
        super().__init__()
        self.ends = (*(cutoff for cutoff in cutoffs if cutoff < words), words)
        self.first = self.ends[0]  # words of the head
        count = len(self.ends) - 1
        self.clusters = nn.Parameter(torch.empty(count, width).uniform_(-0.1, 0.1))  # (K, D)
        self.cluster_bias = nn.Parameter(torch.zeros(count))  # (K,)
        self.projections, self.rows = nn.ParameterList(), nn.ParameterList()
        for i in range(count if div > 1 else 0):
            narrow = max(1, int(width / div ** (i + 1)))
            self.projections.append(torch.empty(narrow, width).uniform_(-1 / sqrt(width), 1 / sqrt(width)))
            size = self.ends[i + 1] - self.ends[i]
            self.rows.append(torch.empty(size, narrow).uniform_(-1 / sqrt(narrow), 1 / sqrt(narrow)))

    def forward(self, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """-sum_m log p(target_m): a scalar in float32, its gradient made as that of the exact softmax.

        hidden (M, D), weight (V, D), bias (V,), targets (M,).
        """
        at, cluster = self._in_head(targets)
        loss = softmax.softmax_loss(hidden, *self._head(weight, bias), at)
        for i, low in enumerate(self.ends[:-1]):
            rows = (cluster == i).nonzero()[:, 0]
            if len(rows):
                narrow = self._project(i, hidden[rows])  # (m, d)
                loss = loss + softmax.softmax_loss(narrow, *self._tail(i, weight, bias), targets[rows] - low)
        return loss

    def log_probabilities(self, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """log p(target_m) of each row, with a gradient where one is asked: (M,)."""
        at, cluster = self._in_head(targets)
        said = _said(hidden, *self._head(weight, bias), at)
        for i, low in enumerate(self.ends[:-1]):
            rows = (cluster == i).nonzero()[:, 0]
            if len(rows):
                narrow = self._project(i, hidden[rows])  # (m, d)
                more = _said(narrow, *self._tail(i, weight, bias), targets[rows] - low)
                said = said.index_add(0, rows, more)
        return said

    def all_log_probabilities(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """log p(w) of every word: (..., D) -> (..., V)."""
        head = F.linear(hidden, *self._head(weight, bias)).float().log_softmax(-1)  # (..., first + K)
        parts = [head[..., : self.first]]
        for i in range(len(self.ends) - 1):
            inside = F.linear(self._project(i, hidden), *self._tail(i, weight, bias)).float().log_softmax(-1)
            parts.append(head[..., self.first + i, None] + inside)
        return torch.cat(parts, -1)

    @torch.no_grad()
    def adopt(self, old: AdaptiveSoftmax, at: Tensor) -> None:
        """Take over clusters; `at` (V,) is where our words stand in the old vocabulary, -1 for none.

        A word that was in the same cluster keeps its row; others begin with the mean of that cluster's rows.
        Clusters that the old vocabulary was too small for stay as they are.
        """
        both = min(len(old.clusters), len(self.clusters))
        self.clusters[:both] = old.clusters[:both]
        self.cluster_bias[:both] = old.cluster_bias[:both]
        for i in range(min(len(old.rows), len(self.rows))):
            self.projections[i].copy_(old.projections[i])
            low, high = old.ends[i], old.ends[i + 1]
            there = at[self.ends[i] : self.ends[i + 1]].to(old.rows[i].device)  # (size,)
            known = (there >= low) & (there < high)
            rows = old.rows[i][(there - low).clamp(0, high - low - 1)]
            self.rows[i].copy_(torch.where(known[:, None], rows, old.rows[i].mean(0)))

    def _in_head(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What the head is asked for each target, and the target's cluster; -1 for words of the head."""
        starts = torch.tensor(self.ends[:-1], device=targets.device)
        cluster = torch.bucketize(targets, starts, right=True) - 1  # (M,)
        return torch.where(cluster < 0, targets, self.first + cluster), cluster

    def _head(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.cat((weight[: self.first], self.clusters))  # (first + K, D)
        return rows, torch.cat((bias[: self.first], self.cluster_bias))

    def _project(self, i: int, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.projections[i]) if len(self.projections) else hidden

    def _tail(self, i: int, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        words = slice(self.ends[i], self.ends[i + 1])
        return self.rows[i] if len(self.rows) else weight[words], bias[words]


def _said(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return softmax.log_probabilities(hidden, weight, bias, targets)
    logits = F.linear(hidden, weight, bias).float()
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
