"""Attention between question and passage, and of a passage to itself: Clark & Gardner's (2018) reader."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretune.layers.bidirectional import over_tokens

LOW = -1e30  # a score that no softmax gives a share; finite, so that rows of them have a gradient


class Trilinear(nn.Module):
    """w_x · x + w_y · y + (w ⊙ x) · y for every x and every y, eq. 1 of Seo et al. (2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.x, self.y = nn.Linear(width, 1, bias=False), nn.Linear(width, 1, bias=False)
        self.product = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # (N, T, D), (N, U, D) -> (N, T, U)
        alone: Tensor = self.x(x) + self.y(y).transpose(1, 2)  # (N, T, U)
        return (alone + (x * self.product) @ y.transpose(1, 2)).float()


class BiAttention(nn.Module):
    """[h; u; h ⊙ u; h ⊙ c]: of each passage token h what it finds in the question, u, and what the question
    finds in the passage, c (Seo et al. 2017, section 2).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.similarity = Trilinear(width)

    def forward(self, passage: Tensor, question: Tensor, mask: Tensor, asked: Tensor) -> Tensor:
        """(N, T, D), (N, U, D), (N, T), (N, U) -> (N, T, 4D)"""
        scores = self.similarity(passage, question).masked_fill(~asked[:, None], LOW)  # (N, T, U)
        found = scores.softmax(-1) @ question  # (N, T, D) u
        strongest = scores.amax(-1).masked_fill(~mask, LOW)  # (N, T)
        wanted = strongest.softmax(-1)[:, None] @ passage  # (N, 1, D) c
        return torch.cat((passage, found, passage * found, passage * wanted), -1)


class SelfAttention(nn.Module):
    """[h; u; h ⊙ u]: what each token finds in the others, never in itself (section 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.similarity = Trilinear(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # (N, T, D), (N, T) -> (N, T, 3D)
        own = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)  # (T, T)
        closed = own | ~mask[:, None]  # (N, T, T)
        scores = self.similarity(x, x).masked_fill(closed, LOW)
        found = scores.softmax(-1).masked_fill(closed, 0.0) @ x  # (N, T, D); nothing where a token is alone
        return torch.cat((x, found, x * found), -1)


class BiGRU(nn.Module):
    """A bidirectional GRU over real tokens only, zero at padding."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # (N, T, D), (N, T) -> (N, T, 2H)
        return over_tokens(self.gru, x, mask)


class SharedDropout(nn.Module):
    """Dropout that takes the same features from every token of a row (variational)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:  # (N, T, D)
        kept: Tensor = self.dropout(x.new_ones(len(x), 1, x.shape[2]))
        return x * kept


class BiAttentiveReader(nn.Module):
    """Vectors of a question and of a passage -> vectors of the passage that know the question, (N, T, 2H).

    The model of Clark & Gardner (2018), section 3, between embedding and prediction: one GRU for both texts,
    bidirectional attention, and a residual block of GRU and self-attention. It is what ELMo was added to for
    SQuAD (Peters et al. 2018, appendix A.4).
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = SharedDropout(dropout)
        self.encode = BiGRU(width, hidden)
        self.attend = BiAttention(2 * hidden)
        self.merge = nn.Linear(8 * hidden, 2 * hidden)
        self.model = BiGRU(2 * hidden, hidden)
        self.attend_self = SelfAttention(2 * hidden)
        self.merge_self = nn.Linear(6 * hidden, 2 * hidden)

    def forward(self, passage: Tensor, question: Tensor, mask: Tensor, asked: Tensor) -> Tensor:
        """(N, T, D), (N, U, D), masks (N, T) and (N, U) -> (N, T, 2H)"""
        h = self.dropout(self.encode(self.dropout(passage), mask))
        q = self.dropout(self.encode(self.dropout(question), asked))
        x = self.merge(self.attend(h, q, mask, asked)).relu()  # (N, T, 2H)
        y = self.dropout(self.model(self.dropout(x), mask))
        y = self.merge_self(self.attend_self(y, mask)).relu()
        kept: Tensor = self.dropout(x + y)
        return kept.masked_fill(~mask[..., None], 0.0)
