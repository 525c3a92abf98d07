"""One layer of ELMo: an LSTM from the left and one from the right, one after the other or in lockstep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pretune.layers.linear import linear
from pretune.layers.lockstep import recur_together
from pretune.layers.packing import Precision
from pretune.layers.recurrence import Clips, recur
from pretune.layers.threads import alone, scratch
from pretune.methods.elmo.config import ELMoConfig

State = tuple[Tensor, Tensor]  # h (N, D), c (N, H)


class LSTM(nn.Module):
    """The weights of one direction of a layer; gates in the order i, f, g, o.

    The bias lacks the 1 of the forget gate, which is added when it is used, as in TensorFlow's cell.
    """

    def __init__(self, width_in: int, config: ELMoConfig) -> None:
        super().__init__()
        H, D = config.dim, config.projection_dim
        self.weight_ih = nn.Parameter(torch.empty(4 * H, width_in))
        self.weight_hh = nn.Parameter(torch.empty(4 * H, D))
        self.bias = nn.Parameter(torch.zeros(4 * H))
        self.weight_proj = nn.Parameter(torch.empty(D, H)) if D != H else None
        self.clips = Clips(config.cell_clip, config.proj_clip)
        limit = (6 / (width_in + D + 4 * H)) ** 0.5  # Glorot, of input and recurrent matrix as one
        nn.init.uniform_(self.weight_ih, -limit, limit)
        nn.init.uniform_(self.weight_hh, -limit, limit)
        if self.weight_proj is not None:
            nn.init.xavier_uniform_(self.weight_proj)

    def forward(
        self,
        x: Tensor,
        index: Tensor | None,
        counts: Sequence[int],
        state: State,
        precision: Precision = "float32",
    ) -> tuple[Tensor, State]:
        """x (U, I), of which `index` (M,) are the packed tokens -> y (M, D), the state: see `recur`."""
        weights = self.weight_hh, self.weight_proj
        out = scratch(len(x), len(self.bias)) if alone([x]) and x.dtype == torch.float32 else None
        products = self.products(x, precision, out)
        y, h, c = recur(products, index, counts, state, *weights, self.clips, precision)
        return y, (h, c)

    def products(self, x: Tensor, precision: Precision = "float32", out: Tensor | None = None) -> Tensor:
        """What the input adds to the gates, biases and the forget gate's 1 included: (U, I) -> (U, 4H)."""
        bias = self.bias.clone()
        bias[len(bias) // 4 : len(bias) // 2] += 1.0
        return linear(x, self.weight_ih, bias, precision, out)


class Layer(nn.Module):
    """Both directions of a layer: they never see one another."""

    def __init__(self, config: ELMoConfig) -> None:
        super().__init__()
        self.forwards = LSTM(config.projection_dim, config)
        self.backwards = LSTM(config.projection_dim, config) if config.ways == 2 else None

    def direction(self, way: int) -> LSTM:
        found = self.backwards if way else self.forwards
        assert found is not None
        return found

    def together(
        self,
        xs: Sequence[Tensor],
        indices: Sequence[Tensor | None],
        counts: Sequence[int],
        states: list[State],
    ) -> list[tuple[Tensor, State]]:
        """What each direction gives, both in one product a step, where both have `counts` rows a step."""
        ways = [self.direction(way) for way in range(len(xs))]
        given = [way.products(x) for way, x in zip(ways, xs, strict=True)]
        products = torch.stack(
            [p if at is None else p.index_select(0, at) for p, at in zip(given, indices, strict=True)]
        )  # (2, M, 4H)
        h, c = (torch.stack(parts) for parts in zip(*states, strict=True))
        projections: list[Tensor] = [way.weight_proj for way in ways if way.weight_proj is not None]
        y, h, c = recur_together(
            products,
            counts,
            (h, c),
            torch.stack([way.weight_hh for way in ways]),
            torch.stack(projections) if projections else None,
            ways[0].clips,
        )
        return [(y[way], (h[way], c[way])) for way in range(len(ways))]
