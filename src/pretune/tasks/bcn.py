"""The biattentive classification network: texts that attend to themselves or to one another, then pooled."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from pretune.layers.bidirectional import BiLSTM, attended
from pretune.layers.pooling import max_pool, mean_pool
from pretune.tasks.pairs import rows_by_side
from pretune.tensors.batch import Batch

BCN_DROPOUTS = (0.25, 0.1, 0.2, 0.3)  # on the first layer, the pooled vector, and two maxout layers


class BCN(nn.Module):
    """Token vectors -> what a text, or a pair, is classified by; section 5 of McCann et al. (2017).

        x = biLSTM(relu(W w + b))                      each text, by the same weights
        c_i = sum_j softmax_j(x_i · y_j) y_j           y: the other text, or x itself
        z = biLSTM([x; x - c; x * c])                  of a pair one for each text
        [max z; min z; mean z; sum_t softmax_t(v · z_t + d) z_t]

    Dropouts are those on relu, on the pooled vector, and on what the two hidden maxout layers say; sizes and
    dropouts are those of AllenNLP's model of the sentiment treebank, to which ELMo was added.
    """

    def __init__(
        self, width: int, hidden: int, dropouts: tuple[float, ...], maxout: int, pairs: bool, reads: bool
    ) -> None:
        super().__init__()
        self.dropouts, self.maxout = dropouts, maxout
        self.feed = nn.Linear(width, hidden) if reads else None
        self.dropout = nn.Dropout(dropouts[0])
        self.encode = BiLSTM(hidden, hidden) if reads else None
        wide = 2 * hidden if reads else width
        texts = 2 if pairs else 1
        self.integrate = nn.ModuleList(BiLSTM(3 * wide, hidden) for _ in range(texts))
        self.weigh = nn.ModuleList(nn.Linear(2 * hidden, 1) for _ in range(texts))
        self.width = 8 * hidden * texts

    def layers(self, outputs: int) -> list[nn.Module]:
        """Three maxout layers, half as wide each time; without the batch norm that McCann et al. have there,
        as in AllenNLP's model."""
        widths = (self.width, self.width // 2, self.width // 4, outputs)
        found: list[nn.Module] = []
        for (width_in, width), p in zip(pairwise(widths), self.dropouts[1:], strict=True):
            found += [nn.Dropout(p), Maxout(width_in, width, self.maxout)]
        return found

    def forward(self, top: Tensor, batch: Batch) -> Tensor:
        """(N, T, D) -> a row each, (N, 8H); of pairs, whose rows are the two texts, (B, 16H)."""
        mask = batch.mask
        if self.feed is not None and self.encode is not None:
            top = self.encode(self.dropout(self.feed(top).relu()), mask)
        if len(self.integrate) == 1:
            return self._pooled(0, top, top, mask, mask)
        first, second = rows_by_side(batch)  # (B,) each
        x, y, x_mask, y_mask = top[first], top[second], mask[first], mask[second]
        one, two = self._pooled(0, x, y, x_mask, y_mask), self._pooled(1, y, x, y_mask, x_mask)
        return torch.cat((one, two), -1)

    def _pooled(self, text: int, x: Tensor, y: Tensor, mask: Tensor, other: Tensor) -> Tensor:
        c = attended(x, y, other)  # (N, T, 2H)
        z = self.integrate[text](torch.cat((x, x - c, x * c), -1), mask)  # (N, T, 2H)
        scores = self.weigh[text](z)[..., 0].masked_fill(~mask, float("-inf"))  # (N, T)
        drawn = (scores.softmax(-1).to(z.dtype)[:, None] @ z)[:, 0]  # (N, 2H)
        return torch.cat((max_pool(z, mask), -max_pool(-z, mask), mean_pool(z, mask), drawn), -1)


class Maxout(nn.Module):
    """The largest of `pieces` linear functions, for each output (Goodfellow et al. 2013)."""

    def __init__(self, width_in: int, width: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(width_in, width * pieces)

    def forward(self, x: Tensor) -> Tensor:  # (B, I) -> (B, O)
        pieces: Tensor = self.linear(x).unflatten(-1, (-1, self.pieces))  # (B, O, P)
        return pieces.amax(-1)
