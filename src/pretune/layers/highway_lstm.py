"""A deep LSTM whose layers read in alternating directions, with highway connections (He et al. 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pretune.layers.steps import Steps


def steps_of(lengths: Tensor) -> tuple[Steps, Tensor]:
    """How rows that lie one after another, (M,) tokens in all, are packed step by step; no row is empty.

    lengths (R,) -> steps, and the place of each packed token among the M.
    """
    ordered, order = lengths.sort(descending=True, stable=True)
    reads = torch.arange(int(ordered[0]), device=lengths.device)[:, None] < ordered  # (T, R)
    steps = Steps.of(reads)
    return steps, (lengths.cumsum(0) - lengths)[order][steps.row] + steps.step


def turned(steps: Steps) -> Tensor:
    """(M,): in place of each packed token that which stands there when rows are read from their end."""
    counts = torch.tensor(steps.counts, device=steps.row.device)  # (T,)
    lengths = (counts[:, None] > torch.arange(steps.rows, device=counts.device)).sum(0)  # (R,)
    return (counts.cumsum(0) - counts)[lengths[steps.row] - 1 - steps.step] + steps.row


class HighwayLSTM(nn.Module):
    """Layers 1, 3, … read from left to right, the others from right to left, each the one below it.

    He et al. (2017), sections 2.1 and 2.2, of layer l whose step before t is t':

        i, f, o, r = sigmoid(W x_t + U h_t' + b);  c_t = i * tanh(W x_t + U h_t' + b) + f * c_t'
        h_t = z * (r * o * tanh(c_t) + (1 - r) * W x_t)

    Each gate has W, U and b of its own, the skip a W without b. z is the recurrent dropout, one mask a row
    and layer for all steps (Gal & Ghahramani 2016). All matrices start orthonormal (Saxe et al. 2014), biases
    at 0, that of f at 1. Rows are packed: there is no padding.
    """

    def __init__(self, width_in: int, width: int, layers: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(
            HighwayLayer(width if layer else width_in, width, dropout) for layer in range(layers)
        )

    def forward(self, x: Tensor, steps: Steps) -> Tensor:  # (M, I) -> (M, H)
        with torch.autocast(x.device.type, enabled=False):
            x, turn, earlier = x.float(), turned(steps), steps.earlier()
            for number, layer in enumerate(self.layers):
                if number % 2:
                    x = layer(x.index_select(0, turn), steps, earlier).index_select(0, turn)
                else:
                    x = layer(x, steps, earlier)
        return x


class HighwayLayer(nn.Module):
    """One layer, in the order of its rows' steps. Blocks of the weights: i, f, o, r, c, and W of the skip."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.width, self.p = width, dropout
        self.weight_ih = nn.Parameter(_orthonormal(6, width, width_in))  # (6H, I)
        self.weight_hh = nn.Parameter(_orthonormal(5, width, width))  # (5H, H)
        self.bias = nn.Parameter(torch.zeros(5 * width))
        with torch.no_grad():
            self.bias[width : 2 * width] = 1

    def forward(self, x: Tensor, steps: Steps, earlier: Tensor) -> Tensor:  # (M, I) -> (M, H)
        sums, skipped = torch.split(F.linear(x, self.weight_ih), [5 * self.width, self.width], 1)
        kept = None
        if self.training and self.p:
            kept = F.dropout(x.new_ones(steps.rows, self.width), self.p)  # (R, H)
        y: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call]
            sums + self.bias, skipped, steps.counts, earlier, self.weight_hh, kept
        )
        return y


class _Recurrence(torch.autograd.Function):
    """All steps of one layer; the recurrent weights' gradient is one product over all of them."""

    @staticmethod
    def forward(
        ctx: Any,
        sums: Tensor,  # (M, 5H)
        skipped: Tensor,  # (M, H)
        counts: tuple[int, ...],
        earlier: Tensor,
        weight: Tensor,
        kept: Tensor | None,
    ) -> Tensor:
        (total, width), at = skipped.shape, 0
        h, c = (skipped.new_zeros(counts[0], width) for _ in "hc")
        gates, cells, y = (
            torch.empty_like(sums),
            skipped.new_empty(total, width),
            skipped.new_empty(total, width),
        )
        for n in counts:
            here = slice(at, at + n)
            z = torch.addmm(sums[here], h[:n], weight.t(), out=gates[here])  # (n, 5H)
            i, f, o, r = z[:, : 4 * width].sigmoid_().chunk(4, 1)
            cells[here] = c[:n].mul_(f).addcmul_(i, z[:, 4 * width :].tanh_())
            out = torch.lerp(skipped[here], o * c[:n].tanh(), r)  # (n, H)
            h[:n] = y[here] = out if kept is None else out * kept[:n]
            at += n
        ctx.save_for_backward(skipped, earlier, weight, kept, gates, cells, y)
        ctx.counts = counts
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        skipped, earlier, weight, kept, gates, cells, y = ctx.saved_tensors
        counts, width, at = ctx.counts, cells.shape[1], len(y)
        dz, dskipped = torch.empty_like(gates), torch.empty_like(skipped)
        dh, dc, zeros = (cells.new_zeros(counts[0], width) for _ in range(3))
        for t in reversed(range(len(counts))):
            n = counts[t]
            at -= n
            here = slice(at, at + n)
            before = cells[at - counts[t - 1] :][:n] if t else zeros[:n]
            i, f, o, r, g = gates[here].chunk(5, 1)
            squashed = cells[here].tanh()  # (n, H)
            out = dy[here] + dh[:n]
            if kept is not None:
                out = out * kept[:n]
            dm = out * r  # of o * tanh(c)
            dskipped[here] = out - dm
            dcell = (dm * o * (1 - squashed.square())).add_(dc[:n])
            d = dz[here].chunk(5, 1)
            d[0].copy_(dcell * g * i * (1 - i))
            d[1].copy_(dcell * before * f * (1 - f))
            d[2].copy_(dm * squashed * o * (1 - o))
            d[3].copy_(out * (o * squashed - skipped[here]) * r * (1 - r))
            d[4].copy_(dcell * i * (1 - g.square()))
            dc[:n] = dcell * f
            dh[:n] = dz[here] @ weight
        h = torch.cat((zeros, y)).index_select(0, earlier) if ctx.needs_input_grad[4] else None  # (M, H)
        return dz, dskipped, None, None, None if h is None else dz.t() @ h, None


def _orthonormal(blocks: int, width: int, width_in: int) -> Tensor:
    """(blocks · width, width_in), orthonormal block by block."""
    return torch.cat([nn.init.orthogonal_(torch.empty(width, width_in)) for _ in range(blocks)])
