"""A one-layer LSTM with DropConnect on its recurrent matrix, called as a function."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from pretune.layers.compiled import kernels_for
from pretune.layers.dropout import entry_dropout
from pretune.layers.recurrence import Clips, recur
from pretune.layers.steps import Steps
from pretune.layers.threads import scratch

State = tuple[Tensor, Tensor]  # h and c, each (1, N, H)
Weights = tuple[Tensor, ...]  # of one batch
MANY = 32  # rows from which oneDNN's LSTM on a rectangle is as fast as the compiled kernel
MANY_WIDE = 128  # the same without a gradient, where the processor's vectors are of 512 bits
WASTE = 1.1, 1.5  # padding that a rectangle is worth, where there is a kernel for packed rows and where not
UNCLIPPED = Clips(None, None)


class WeightDropLSTM(nn.Module):
    """LSTM whose hidden-to-hidden entries are dropped one by one (Merity et al. 2017, section 4.1).

    One mask serves all time steps and rows of a batch. The four parameters stay ordinary leaves: the
    dropped matrix exists only during the call, so that deepcopy, pickling and export work. Gates in
    PyTorch's order i, f, g, o.
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

    def weights(self) -> Weights:
        """What one batch is read with: both matrices, the recurrent one dropped, and both biases.

        On a GPU they are one piece of memory, as cuDNN wants them: it would copy them again at each call.
        """
        dropped = entry_dropout(self.weight_hh, self.p, self.training)
        found = self.weight_ih, dropped, self.bias_ih, self.bias_hh
        return in_one_piece(found) if dropped.is_cuda else found

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # (N, T, I) -> (N, T, H)
        weights = self.weights()
        writing = not torch.is_grad_enabled() and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if writing and x.shape[1] == 1:  # one token of a text that is written: nothing to prepare
            return self._step(x[:, 0], state, weights)
        if kernels_for(x, weights[1]) is None or len(x) >= _many():
            return self._rectangle(x, state, weights, batch_first=True)
        rows, length = x.shape[:2]
        steps = Steps.rectangle(length, rows)
        y, state = self.packed(x.transpose(0, 1).flatten(0, 1), steps, state, weights)
        return y.view(length, rows, -1).transpose(0, 1), state

    def packed(
        self, x: Tensor, steps: Steps, state: State, weights: Weights
    ) -> tuple[Tensor, State]:  # (M, I) -> (M, H)
        """The same for packed rows; the state after is that of each row's own end.

        On a processor rectangles of many rows go to oneDNN, others to the compiled kernel, whose products of
        inputs are one for all tokens; other devices' own LSTMs know packed rows.
        """
        if x.device.type != "cpu":
            return self._uneven(x, steps, state, weights)
        if steps.even and (steps.rows >= _many() or kernels_for(x, weights[1]) is None):
            y, state = self._rectangle(x.view(-1, steps.rows, x.shape[1]), state, weights, batch_first=False)
            return y.flatten(0, 1), state
        with torch.autocast(x.device.type, enabled=False):
            weight, dropped, bias_ih, bias_hh = weights
            bias, x = bias_ih + bias_hh, x.float()
            if torch.is_grad_enabled() or kernels_for(x, dropped) is None:
                products = torch.addmm(bias, x, weight.t())  # (M, 4H)
            else:
                products = torch.addmm(bias, x, weight.t(), out=scratch(len(x), len(weight)))
            h, c = state[0][0], state[1][0]
            y, h, c = recur(products, None, steps.counts, (h, c), dropped, None, UNCLIPPED)
        return y, (h[None], c[None])

    def _step(self, x: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
        """One token of each row: (N, I) -> (N, 1, H)."""
        with torch.autocast(x.device.type, enabled=False):
            h, c = torch.lstm_cell(x.float(), (state[0][0], state[1][0]), *weights)
        return h[:, None], (h[None], c[None])

    def _rectangle(
        self, x: Tensor, state: State, weights: Weights, batch_first: bool
    ) -> tuple[Tensor, State]:
        # Float32 also under autocast: most CPUs have no LSTM in half precision, and say so with an error.
        # `train` keeps what backward needs, also where a frozen layer in eval() must pass a gradient down.
        with torch.autocast(x.device.type, enabled=False):
            train = torch.is_grad_enabled()
            y, h, c = torch.lstm(x.float(), state, weights, True, 1, 0.0, train, False, batch_first)
        return y, (h, c)

    def _uneven(self, x: Tensor, steps: Steps, state: State, weights: Weights) -> tuple[Tensor, State]:
        with torch.autocast(x.device.type, enabled=False):
            counts = torch.tensor(steps.counts)
            y, h, c = torch.lstm(
                x.float(), counts, state, weights, True, 1, 0.0, torch.is_grad_enabled(), False
            )
        return y, (h, c)


def in_one_piece(tensors: Sequence[Tensor]) -> Weights:
    """The same as views of one piece of memory, one after the other from its beginning."""
    flat = torch.cat([x.flatten() for x in tensors])
    parts = torch.split(flat, [x.numel() for x in tensors])
    return tuple(part.view_as(x) for part, x in zip(parts, tensors, strict=True))


def fills_up(reads: Tensor, weight: Tensor) -> bool:
    """Whether rows with these tokens, (T, R), are read faster as a rectangle, padding and all."""
    if weight.device.type != "cpu":
        return False
    compiled = kernels_for(weight) is not None
    filled = reads.numel() <= WASTE[0 if compiled else 1] * int(reads.sum())
    return filled and (reads.shape[1] >= _many() or not compiled)


def _many() -> int:
    wide = not torch.is_grad_enabled() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return MANY_WIDE if wide else MANY
