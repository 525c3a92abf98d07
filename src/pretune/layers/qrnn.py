"""A quasi-recurrent layer (Bradbury et al. 2017) with DropConnect, in plain PyTorch, on any device."""

from __future__ import annotations

from math import isqrt, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pretune.layers.dropout import entry_dropout
from pretune.layers.steps import Steps

Weights = tuple[Tensor, ...]  # of one batch
State = tuple[Tensor, Tensor]  # c (1, N, H) and the last input (1, N, I), of no width where the window is 1
FEW = 2048  # numbers of a time step below which, on a processor, a call costs more than its arithmetic


class WeightDropQRNN(nn.Module):
    """QRNN with fo-pooling whose input weights are dropped one by one, as fastai 1 and MultiFiT have it.

        z, f, o = tanh, sigmoid, sigmoid of W [x_t ; x_{t-1}] + b
        c_t = f_t * z_t + (1 - f_t) * c_{t-1}        h_t = o_t * c_t

    Here f lets the *input* in, where the paper's f keeps the state. With window 1 there is no x_{t-1}.
    Only the last line is recurrent, so all time steps share one product. One mask serves all of a call.
    """

    def __init__(self, width_in: int, width: int, window: int) -> None:
        super().__init__()
        if window not in (1, 2):
            raise ValueError(f"a window of {window}; only 1 and 2 have a meaning here")
        self.width_in, self.width, self.window = width_in, width, window
        self.p = 0.0  # share of weights dropped while training
        bound = 1 / sqrt(window * width_in)
        self.weight = nn.Parameter(torch.empty(3 * width, window * width_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(3 * width).uniform_(-bound, bound))

    def start(self, rows: int) -> State:
        """The state before any text: zeros."""
        before = self.width_in * (self.window - 1)
        return self.weight.new_zeros(1, rows, self.width), self.weight.new_zeros(1, rows, before)

    def weights(self) -> Weights:
        """What one batch is read with: the weights, dropped, and the bias."""
        return entry_dropout(self.weight, self.p, self.training), self.bias

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # (N, T, I) -> (N, T, H)
        rows, length = x.shape[:2]
        steps = Steps.rectangle(length, rows, x.device)
        y, state = self.packed(x.transpose(0, 1).flatten(0, 1), steps, state, self.weights())
        return y.view(length, rows, -1).transpose(0, 1), state

    def packed(
        self, x: Tensor, steps: Steps, state: State, weights: Weights
    ) -> tuple[Tensor, State]:  # (M, I) -> (M, H)
        """The same for packed rows; the state after is that of each row's own end."""
        c, last = state
        if self.window == 2:
            before = torch.cat((last[0], x)).index_select(0, steps.earlier())  # (M, I)
            last = x.index_select(0, steps.last())[None]  # (1, R, I)
            x = torch.cat((x, before), dim=1)  # (M, 2 I)
        z, f, o = F.linear(x, *weights).float().chunk(3, dim=1)  # (M, H) each
        f = f.sigmoid()
        keep, add = 1 - f, f * z.tanh()
        shape = len(steps.counts), steps.rows, self.width
        at = steps.step * steps.rows + steps.row  # (M,)
        if not steps.even:  # where a row has ended, its state stays as it is
            keep = keep.new_ones(shape[0] * shape[1], self.width).index_copy(0, at, keep)
            add = add.new_zeros(shape[0] * shape[1], self.width).index_copy(0, at, add)
        cells: Tensor = _Scan.apply(keep.view(shape), add.view(shape), c[0])  # type: ignore[no-untyped-call]
        own = cells.flatten(0, 1)  # (T · R, H)
        return o.sigmoid() * (own if steps.even else own.index_select(0, at)), (cells[-1:], last)


class _Scan(Function):
    """c_t = keep_t c_{t-1} + add_t with its exact gradient, which is the same recurrence backwards."""

    @staticmethod
    def forward(ctx: Any, keep: Tensor, add: Tensor, before: Tensor) -> Tensor:
        cells = scan(keep, add, before)
        ctx.save_for_backward(keep, cells, before)
        return cells

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keep, cells, before = ctx.saved_tensors
        # d_t = grad_t + keep_{t+1} d_{t+1}
        after = torch.cat((keep[1:], torch.zeros_like(keep[:1])))
        d = scan(after.flip(0), grad.flip(0), torch.zeros_like(before)).flip(0)  # (T, R, H)
        return d * torch.cat((before[None], cells[:-1])), d, keep[0] * d[0]


def scan(keep: Tensor, add: Tensor, before: Tensor) -> Tensor:  # (T, R, H), (T, R, H), (R, H) -> (T, R, H)
    """c_t = keep_t c_{t-1} + add_t, c_{-1} = before; only sums and products, so nothing can vanish below.

    Where a time step is little work, blocks of about sqrt(T) steps go side by side: within each from zero,
    then from block to block, then what each began with times the product of its keeps.
    """
    length, rows, width = add.shape
    if length < 32 or (add.device.type == "cpu" and rows * width >= FEW):
        return _steps(keep, add, before)
    size = isqrt(length - 1) + 1
    short = -length % size
    if short:
        keep, add = F.pad(keep, (0, 0, 0, 0, 0, short)), F.pad(add, (0, 0, 0, 0, 0, short))
    keep, add = (x.reshape(-1, size, rows, width) for x in (keep, add))  # (blocks, size, R, H)
    kept = torch.empty_like(keep)  # products of the keeps since the block began
    own = torch.empty_like(add)  # what the block adds by itself
    kept[:, 0], own[:, 0] = keep[:, 0], add[:, 0]
    for t in range(1, size):
        torch.mul(kept[:, t - 1], keep[:, t], out=kept[:, t])
        torch.addcmul(add[:, t], keep[:, t], own[:, t - 1], out=own[:, t])
    ends = _steps(kept[:-1, -1], own[:-1, -1], before)  # (blocks - 1, R, H)
    begun = torch.cat((before[None], ends))  # (blocks, R, H)
    return torch.addcmul(own, kept, begun[:, None]).view(-1, rows, width)[:length]


def _steps(keep: Tensor, add: Tensor, before: Tensor) -> Tensor:
    cells = torch.empty_like(add)
    for t in range(len(add)):
        torch.addcmul(add[t], keep[t], before, out=cells[t])
        before = cells[t]
    return cells
