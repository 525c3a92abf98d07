"""A one-layer LSTM with DropConnect on its recurrent matrix, called as a function."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, Tensor]  # h and c, each (1, N, H)


class WeightDropLSTM(nn.Module):
    """LSTM whose hidden-to-hidden entries are dropped one by one (Merity et al. 2017, section 4.1).

    One mask serves all time steps and rows of a call. The four parameters stay ordinary leaves: the
    dropped matrix exists only during the call, so that deepcopy, pickling and export work. Gates in
    PyTorch's order i, f, g, o. Rows must be unpacked: then oneDNN and cuDNN take their fast paths.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.p = 0.0  # share of recurrent entries dropped while training
        bound = 1 / sqrt(width)
        self.weight_ih = nn.Parameter(torch.empty(4 * width, width_in).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(4 * width, width).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.empty(4 * width).uniform_(-bound, bound))
        self.bias_hh = nn.Parameter(torch.empty(4 * width).uniform_(-bound, bound))

    def start(self, rows: int) -> State:
        """The state before any text: zeros."""
        zeros = self.weight_hh.new_zeros(1, rows, self.width)
        return zeros, zeros

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # (N, T, I) -> (N, T, H)
        recurrent = F.dropout(self.weight_hh, self.p, self.training)
        weights = [self.weight_ih, recurrent, self.bias_ih, self.bias_hh]
        # Float32 also under autocast: most CPUs have no LSTM in half precision, and say so with an error.
        # `train` keeps what backward needs, also where a frozen layer in eval() must pass a gradient down.
        with torch.autocast(x.device.type, enabled=False):
            y, h, c = torch.lstm(
                x.float(), state, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True
            )
        return y, (h, c)
