"""Recurrences over real tokens only, both ways, and attention between two texts by dot products."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def over_tokens(rnn: nn.LSTM | nn.GRU, x: Tensor, mask: Tensor) -> Tensor:
    """What a recurrence with its batch first says of each row, zero at padding: (N, T, D) -> (N, T, 2H).

    In the precision of its weights also under autocast: most CPUs have no recurrence in half of it.
    """
    with torch.autocast(x.device.type, enabled=False):
        packed = nn.utils.rnn.pack_padded_sequence(
            x.to(next(rnn.parameters()).dtype), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        output, _ = nn.utils.rnn.pad_packed_sequence(
            rnn(packed)[0], batch_first=True, total_length=x.shape[1]
        )
    return output


class BiLSTM(nn.Module):
    """A bidirectional LSTM over real tokens only, zero at padding."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # (N, T, D), (N, T) -> (N, T, 2H)
        return over_tokens(self.lstm, x, mask)


def attended(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """What each token of x finds in y, sum_j softmax_j(x_i · y_j) y_j; the scores are never kept.

    (N, T, D), (N, U, D) and the mask of y (N, U) -> (N, T, D)
    """
    with torch.autocast(x.device.type, enabled=False):  # products of long vectors are too large for halves
        found = F.scaled_dot_product_attention(
            x[:, None], y[:, None], y[:, None], mask[:, None, None], scale=1.0
        )  # (N, 1, T, D)
    return found[:, 0]
