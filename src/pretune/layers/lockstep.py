"""Both directions of ELMo's recurrence in one product a step: for devices where launching is what costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pretune.layers.recurrence import Clips, clip_, earlier_places


def recur_together(
    products: Tensor,
    counts: Sequence[int],
    state: tuple[Tensor, Tensor],
    weight_hh: Tensor,
    weight_proj: Tensor | None,
    clips: Clips,
) -> tuple[Tensor, Tensor, Tensor]:
    """`recurrence.recur` of W directions that have as many rows at each step: y (W, M, D), h, c.

    `products` (W, M, 4H); `state` is h (W, N, D), c (W, N, H); `weight_hh` (W, 4H, D); `weight_proj`
    (W, D, H), or None where D = H. Clips and gradient are exact.
    """
    h, c = state
    y, h, c = _Lockstep.apply(products, tuple(counts), h, c, weight_hh, weight_proj, clips)  # type: ignore[no-untyped-call]
    return y, h, c


class _Lockstep(torch.autograd.Function):
    """The weights' gradients are one product each over all steps."""

    @staticmethod
    def forward(
        ctx: Any,
        products: Tensor,
        counts: tuple[int, ...],
        h: Tensor,
        c: Tensor,
        weight_hh: Tensor,
        weight_proj: Tensor | None,
        clips: Clips,
    ) -> tuple[Tensor, Tensor, Tensor]:
        W, M, wide = products.shape
        H, D, keep = wide // 4, h.shape[2], any(ctx.needs_input_grad)
        recurrent = weight_hh.transpose(1, 2)  # (W, D, 4H)
        project = None if weight_proj is None else weight_proj.transpose(1, 2)  # (W, H, D)
        gates, cells, hidden = (h.new_empty(W, M if keep else 0, size) for size in (wide, H, H))
        y, last_h, last_c, at = h.new_empty(W, M, D), h.clone(), c.clone(), 0
        for n in counts:
            here = slice(at, at + n)
            z = torch.baddbmm(products[:, here], last_h[:, :n], recurrent)  # (W, n, 4H)
            i_f, g, o = z[..., : 2 * H].sigmoid_(), z[..., 2 * H : 3 * H].tanh_(), z[..., 3 * H :].sigmoid_()
            cell = clip_(last_c[:, :n].mul_(i_f[..., H:]).addcmul_(i_f[..., :H], g), clips.cell)  # (W, n, H)
            out = cell.tanh().mul_(o)  # (W, n, H)
            projected = out if project is None else torch.bmm(out, project)  # (W, n, D)
            y[:, here] = last_h[:, :n] = (
                projected
                if clips.projection is None
                else projected.clamp(-clips.projection, clips.projection)
            )
            if keep:
                gates[:, here], cells[:, here], hidden[:, here] = z, cell, out
            at += n
        ctx.save_for_backward(h, c, weight_hh, weight_proj, gates, cells, hidden, y)
        ctx.counts, ctx.clips = counts, clips
        return y, last_h, last_c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        h, c, weight_hh, weight_proj, gates, cells, hidden, y = ctx.saved_tensors
        counts, clips, H = ctx.counts, ctx.clips, cells.shape[2]
        dz, dp, dh, dc, at = torch.empty_like(gates), dy.clone(), dh.clone(), dc.clone(), y.shape[1]
        for t in reversed(range(len(counts))):
            n = counts[t]
            at -= n
            here = slice(at, at + n)
            before = c[:, :n] if t == 0 else cells[:, at - counts[t - 1] :][:, :n]  # (W, n, H)
            out = dp[:, here].add_(dh[:, :n])  # (W, n, D)
            if clips.projection is not None:
                out.mul_(y[:, here].abs() < clips.projection)
            dm = out if weight_proj is None else torch.bmm(out, weight_proj)  # (W, n, H)
            i, f, g, o = gates[:, here].chunk(4, 2)
            squashed = cells[:, here].tanh()
            dcell = (dm * o * (1 - squashed.square())).add_(dc[:, :n])
            if clips.cell is not None:
                dcell.mul_(cells[:, here].abs() < clips.cell)
            d = dz[:, here]  # (W, n, 4H)
            d[..., :H] = dcell * g * i * (1 - i)
            d[..., H : 2 * H] = dcell * before * f * (1 - f)
            d[..., 2 * H : 3 * H] = dcell * i * (1 - g.square())
            d[..., 3 * H :] = dm * squashed * o * (1 - o)
            dc[:, :n] = dcell * f
            dh[:, :n] = torch.bmm(d, weight_hh)
        by_products, _, by_h, by_c, by_hh, by_proj, _ = ctx.needs_input_grad
        places = earlier_places(counts, h.shape[1]).to(h.device)
        before_all = torch.cat((h, y), 1).index_select(1, places) if by_hh else None  # (W, M, D)
        return (
            dz if by_products else None,
            None,
            dh if by_h else None,
            dc if by_c else None,
            None if before_all is None else torch.bmm(dz.transpose(1, 2), before_all),
            torch.bmm(dp.transpose(1, 2), hidden) if by_proj else None,
            None,
        )
