"""The Transformer of GPT and BERT: post-norm blocks on rows without padding, one way or both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import CDLL
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pretune.errors import UsageError, choose
from pretune.layers.compiled import kernels_for
from pretune.layers.fused_attention import attend as attend_by_kernel
from pretune.layers.fused_attention import gelu_, linear, norm_
from pretune.tensors.unpadded import Unpadded

Activation = Literal["gelu", "gelu_tanh"]  # by the error function, or its approximation by tanh
Carry = tuple[Tensor, ...]  # keys and values of each block, (T, N, 2D): rows are the last dimension but one


@dataclass(frozen=True)
class TransformerConfig:
    """What both methods choose alike."""

    width: int  # D
    layers: int
    heads: int
    inner: int  # width between the two linear layers of a block
    activation: Activation
    norm_eps: float  # inside the root of layer norm
    causal: bool  # each token sees itself and those before it; else all of its row
    attention_dropout: float  # of the weights of attention
    residual_dropout: float  # of what each half of a block adds
    checkpointing: bool = False  # work out what lies inside blocks again for the gradient, not keep it

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "inner"):
            if getattr(self, name) < 1:
                raise UsageError(f"encoder.{name} is {getattr(self, name)}; it must be at least 1")
        if self.width % self.heads:
            raise UsageError(
                f"encoder.width is {self.width}, which {self.heads} heads cannot share evenly; "
                f"choose encoder.heads that divide it"
            )
        if self.activation not in ("gelu", "gelu_tanh"):
            raise choose("encoder.activation", self.activation, ("gelu", "gelu_tanh"))


def check_dropouts(config: object, *names: str) -> None:
    """Refuses a rate outside [0, 1)."""
    for name in names:
        rate = getattr(config, name)
        if not 0 <= rate < 1:
            raise UsageError(f"encoder.{name} is {rate:g}; it must be in [0, 1)")


class Attention(nn.Module):
    """softmax(q kᵀ / √d) v in each head, section 3.2 of Vaswani et al. (2017), within each row.

    `output`, which mixes what the heads say, is for `Block` to apply.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)
        self.heads, self.causal, self.p = config.heads, config.causal, config.attention_dropout

    def forward(self, x: Tensor, rows: Unpadded) -> Tensor:  # (M, D) -> (M, D)
        p = self.p if self.training else 0.0
        attend = attend_in_groups if x.device.type == "cpu" else attend_padded
        return attend(self._asked(x, lent=True), rows, self.heads, self.causal, p)

    def _asked(self, x: Tensor, lent: bool = False) -> Tensor:
        """Queries, keys and values, if `lent` in memory that is soon overwritten: (..., D) -> (..., 3D)."""
        kernels = kernels_without_gradient(x, self.qkv.weight)
        if kernels is None or not plain(self.qkv):
            asked: Tensor = self.qkv(x)
            return asked
        return linear(kernels, x, self.qkv.weight, self.qkv.bias, lent)

    def read_on(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """t more tokens of each of N rows, (t, N, D), after keys and values (T, N, 2D): what the heads
        say of them, (t, N, D), and keys and values of all so far, (T + t, N, 2D)."""
        t, N, D = x.shape
        q, fresh = torch.split(self._asked(x), [D, 2 * D], dim=-1)
        kept = fresh if before is None else torch.cat((before, fresh))
        q = _in_heads(q, self.heads)
        k, v = (_in_heads(part, self.heads) for part in kept.chunk(2, dim=-1))
        mask = None
        if t > 1:
            mask = torch.ones(t, len(kept), dtype=torch.bool, device=x.device).tril(len(kept) - t)
        y = F.scaled_dot_product_attention(q, k, v, mask)  # (N, H, t, d)
        return y.permute(2, 0, 1, 3).reshape(t, N, D), kept


def kernels_without_gradient(*tensors: Tensor) -> CDLL | None:
    """The kernels, where no gradient is asked for, and all is float32 on a processor."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return None
    return kernels_for(*tensors)


def plain(*modules: nn.Module) -> bool:
    """Whether they are as torch has them: none that somebody has put in their place, and no hooks on them,
    both of which kernels would pass by."""
    return all(
        type(m) in (nn.Linear, nn.LayerNorm) and not m._forward_hooks and not m._forward_pre_hooks
        for m in modules
    )


def _in_heads(x: Tensor, heads: int) -> Tensor:
    """(T, N, D) -> (N, H, T, d)."""
    T, N, _ = x.shape
    return x.view(T, N, heads, -1).permute(1, 2, 0, 3)


def attend_in_groups(qkv: Tensor, rows: Unpadded, heads: int, causal: bool, p: float) -> Tensor:
    """Rows of equal length together: (M, 3D) -> (M, D). Without dropout and gradient a kernel does it."""
    kernels = kernels_without_gradient(qkv) if p == 0 else None
    if kernels is not None:
        found = attend_by_kernel(kernels, qkv, rows.groups, heads, causal)
        if found is not None:
            return found
    sizes = [n * length for n, length in rows.groups]
    said = []
    for (n, length), part in zip(rows.groups, torch.split(qkv, sizes), strict=True):
        q, k, v = part.view(n, length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (n, H, T, d) each
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=causal)
        said.append(y.transpose(1, 2).reshape(n * length, -1))
    return said[0] if len(said) == 1 else torch.cat(said)


def attend_padded(qkv: Tensor, rows: Unpadded, heads: int, causal: bool, p: float) -> Tensor:
    """All rows at once, padded on the right for this alone: (M, 3D) -> (M, D)."""
    N, T = sum(n for n, _ in rows.groups), rows.longest
    slots = rows.row * T + rows.place  # (M,)
    whole = qkv if len(qkv) == N * T else qkv.new_zeros(N * T, qkv.shape[1]).index_copy_(0, slots, qkv)
    q, k, v = whole.view(N, T, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (N, H, T, d) each
    mask = None
    if not causal and len(qkv) < N * T:  # one way, a token never sees what stands after it: padding
        mask = torch.zeros(N * T, dtype=torch.bool, device=qkv.device).index_fill(0, slots, True)
        mask = mask.view(N, 1, 1, T)
    y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=p, is_causal=causal)
    y = y.transpose(1, 2).reshape(N * T, -1)
    return y if len(qkv) == N * T else y.index_select(0, slots)


class Block(nn.Module):
    """n = norm(x + attention(x)); norm(n + down(act(up(n)))): norms stand after what they normalise."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.up = nn.Linear(config.width, config.inner)
        self.down = nn.Linear(config.inner, config.width)
        self.output_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"
        self.p = config.residual_dropout
        self.compiled = False

    def forward(self, x: Tensor, rows: Unpadded) -> Tensor:  # (M, D) -> (M, D)
        onwards = _compiled_onwards() if self.compiled else Block.onwards
        return onwards(self, x, self.attention(x, rows))

    def read_on(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        y, kept = self.attention.read_on(x, before)
        return self.onwards(x, y), kept

    def onwards(self, x: Tensor, said: Tensor) -> Tensor:
        """All that each token does for itself, from what the heads said: (..., D), (..., D) -> (..., D)."""
        kernels = kernels_without_gradient(x, said, self.up.weight)
        parts = self.attention.output, self.attention_norm, self.up, self.down, self.output_norm
        if kernels is not None and not (self.training and self.p) and plain(*parts):
            return self._by_kernels(kernels, x, said)
        y = self.attention.output(said)
        n = self.attention_norm(_added(x, F.dropout(y, self.p, self.training)))
        y = self.down(F.gelu(self.up(n), approximate=self.approximate))
        h: Tensor = self.output_norm(_added(n, F.dropout(y, self.p, self.training)))
        return h

    def _by_kernels(self, kernels: CDLL, x: Tensor, said: Tensor) -> Tensor:
        """The same: biases, sums, norms and GELU in one passage each, in the memory of the products."""
        first, second = self.attention_norm, self.output_norm
        y = linear(kernels, said, self.attention.output.weight)
        n = norm_(kernels, y, self.attention.output.bias, x, first.weight, first.bias, first.eps)
        u = linear(kernels, n, self.up.weight, lent=True)
        gelu_(kernels, u, self.up.bias, self.approximate == "tanh")
        y = linear(kernels, u, self.down.weight)
        return norm_(kernels, y, self.down.bias, n, second.weight, second.bias, second.eps)


def _added(x: Tensor, fresh: Tensor) -> Tensor:
    """x + fresh, in the memory of `fresh`, which nobody else reads: new memory costs more than the sum."""
    if fresh.dtype != x.dtype or torch.compiler.is_compiling():
        return x + fresh
    return fresh.add_(x)


@cache
def _compiled_onwards() -> Callable[[Block, Tensor, Tensor], Tensor]:
    """One for all blocks and any number of tokens."""
    return torch.compile(Block.onwards, dynamic=True)


class Transformer(nn.Module):
    """Blocks one above the other."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(self, x: Tensor, rows: Unpadded) -> list[Tensor]:
        """What goes in and what each block says, L + 1 × (M, D)."""
        layers = [x]
        for block in self.blocks:
            if self.config.checkpointing and torch.is_grad_enabled():
                layers.append(checkpoint(block, layers[-1], rows, use_reentrant=False))
            else:
                layers.append(block(layers[-1], rows))
        return layers

    def read_on(self, x: Tensor, carry: Carry | None) -> tuple[Tensor, Carry]:
        """t more tokens of each row, (t, N, D), after what `carry` holds; the top layer (t, N, D)."""
        after = []
        for block, before in zip(self._blocks(), carry or [None] * len(self.blocks), strict=True):
            x, kept = block.read_on(x, before)
            after.append(kept)
        return x, tuple(after)

    def compile_blocks(self, compiled: bool) -> None:
        """Whether `forward` has torch.compile's version of what a block does beside attention."""
        for block in self._blocks():
            block.compiled = compiled

    def _blocks(self) -> Sequence[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]
