"""GPT: the Transformer that reads from left to right (Radford et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.encoder import Encoded, Encoder, Purpose
from pretune.errors import UsageError, UserError, choose
from pretune.layers.attention import Activation, Carry, Transformer, TransformerConfig, check_dropouts
from pretune.tensors.batch import Batch
from pretune.tensors.unpadded import Unpadded

EmbeddingDropout = Literal["activation", "weight"]
Summary = Literal["classify", "last"]


@dataclass(frozen=True)
class GPTConfig:
    """Defaults are the network of the paper, section 4.1."""

    width: int = 768  # of each token's vector
    layers: int = 12  # blocks
    heads: int = 12  # of attention, in each block
    inner: int | None = None  # width inside a block's feed-forward half; None: 4 · width
    context: int = 512  # positions: the longest row
    activation: Activation = "gelu_tanh"
    norm_eps: float = 1e-5  # inside the root of layer norm
    embedding_dropout: float = 0.1
    attention_dropout: float = 0.1  # of the weights of attention
    residual_dropout: float = 0.1  # of what each half of a block adds
    embedding_dropout_mode: EmbeddingDropout = "activation"  # "weight": entries of the matrix, as the release
    summary: Summary = "classify"  # where a text is summed up; "last": its last token, as transformers does
    checkpointing: bool = False  # less memory in training, for a third more time
    deviation: float | None = None  # of weights as they begin; None: 0.02 at the release's width, see below

    def __post_init__(self) -> None:
        self.transformer()
        check_dropouts(self, "embedding_dropout", "attention_dropout", "residual_dropout")
        if self.context < 1:
            raise UsageError(f"encoder.context is {self.context}; it must be at least 1")
        if self.deviation is not None and not self.deviation > 0:
            raise UsageError(f"encoder.deviation is {self.deviation:g}; it must be above 0")
        if self.embedding_dropout_mode not in ("activation", "weight"):
            modes = ("activation", "weight")
            raise choose("encoder.embedding_dropout_mode", self.embedding_dropout_mode, modes)
        if self.summary not in ("classify", "last"):
            raise choose("encoder.summary", self.summary, ("classify", "last"))

    def transformer(self) -> TransformerConfig:
        return TransformerConfig(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            inner=4 * self.width if self.inner is None else self.inner,
            activation=self.activation,
            norm_eps=self.norm_eps,
            causal=True,
            attention_dropout=self.attention_dropout,
            residual_dropout=self.residual_dropout,
            checkpointing=self.checkpointing,
        )


class GPT(Encoder):
    """Tokens and positions, then blocks; no norm before or after them.

    `active` is the purpose in force: in "task" a row's summary is read at its first `_classify_`, which
    every row must have; in "language_model" at its last token.
    """

    def __init__(self, config: GPTConfig, vocab_size: int, classify_id: int) -> None:
        super().__init__()
        self.config, self.classify_id = config, classify_id
        self.tokens = nn.Embedding(vocab_size, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.transformer = Transformer(config.transformer())
        self.width = self.summary_width = config.width
        self.active: Purpose = "task"
        self._kept: Tensor | None = None  # (V, D) entries of the token matrix that dropout left, of a step
        self._initialise()

    def layer_widths(self) -> tuple[int, ...]:
        return (self.width,) * (self.config.layers + 1)

    def groups(self) -> list[nn.Module]:
        bottom = nn.ModuleDict({"tokens": self.tokens, "positions": self.positions})
        return [bottom, *self.transformer.blocks]

    def fresh(self) -> GPT:
        return GPT(self.config, self.tokens.num_embeddings, self.classify_id)

    def purpose(self, purpose: Purpose) -> None:
        self.active = purpose

    @property
    def embedding_weight(self) -> Tensor:
        """(V, D), also the weight of the tied decoder; where dropout takes entries of it, both lack them."""
        return self._dropped() if self.tokens.training else self.tokens.weight

    @property
    def decoder_bias(self) -> Tensor:
        """(V,) zeros: the paper's decoder has none."""
        return self.tokens.weight.new_zeros(len(self.tokens.weight))

    def forward(self, batch: Batch, carry: None = None) -> Encoded:
        if carry is not None:
            raise UsageError("GPT reads rows from their beginning; `read_on` continues them")
        rows = self._rows(batch)
        return self._read(self._embedded(rows.pack(batch.ids), rows.place), rows, batch)

    def read_on(self, ids: Tensor, carry: Carry | None) -> tuple[Tensor, Carry]:
        """Rows without padding (N, T) after what `carry` holds: the top layer (N, T, D), and what it holds
        after them."""
        before = 0 if carry is None else len(carry[0])
        self._check(before + ids.shape[1])
        places = torch.arange(before, before + ids.shape[1], device=ids.device)  # (T,)
        x = self.tokens(ids.t()) + self.positions(places)[:, None]  # (T, N, D)
        top, carry = self.transformer.read_on(x, carry)
        return top.transpose(0, 1), carry

    def vectors(self, batch: Batch) -> Tensor:
        """Of tokens alone, positions apart."""
        found: Tensor = self.tokens(batch.ids)  # (N, T, D)
        return found

    def read_vectors(self, vectors: Tensor, batch: Batch) -> Encoded:
        rows = self._rows(batch)
        return self._read(rows.pack(vectors) + self.positions(rows.place), rows, batch)

    def _initialise(self) -> None:
        """N(0, 0.02) at a width of 768, as the release, and so that sums over the width vary alike at others.

        With 0.02 a network of width 64 or 128 tells the frequency of tokens and nothing else for hundreds of
        steps: no norm follows the embedding, and what all tokens come to have in common drowns the rest.
        """
        deviation = self.config.deviation or 0.02 * sqrt(768 / self.width)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=deviation)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def _embedded(self, ids: Tensor, places: Tensor) -> Tensor:
        """(M,), (M,) -> (M, D)."""
        p, training = self.config.embedding_dropout, self.tokens.training
        if self.config.embedding_dropout_mode == "activation" or not training or p == 0:
            return F.dropout(self.tokens(ids) + self.positions(places), p, training)
        self._kept = torch.rand_like(self.tokens.weight) >= p  # (V, D)
        return F.embedding(ids, self._dropped()) + F.embedding(
            places, F.dropout(self.positions.weight, p, training)
        )

    def _dropped(self) -> Tensor:
        """The token matrix without what the last forward pass in training dropped of it."""
        weight = self.tokens.weight
        if self._kept is None:
            return weight
        return weight * self._kept.to(weight.dtype).div_(1 - self.config.embedding_dropout)

    def _read(self, x: Tensor, rows: Unpadded, batch: Batch) -> Encoded:
        layers = tuple(rows.unpack(h) for h in self.transformer(x, rows))  # L + 1 × (N, T, D)
        at = self._read_at(batch)  # (N,)
        return Encoded(layers, batch.mask, layers[-1][torch.arange(len(at), device=at.device), at])

    def _read_at(self, batch: Batch) -> Tensor:
        """Where each row's summary is, (N,)."""
        if self.active == "language_model" or self.config.summary == "last":
            places = torch.arange(batch.ids.shape[1], device=batch.ids.device)  # (T,)
            return (places * batch.mask).amax(1)
        found = (batch.ids == self.classify_id) & batch.mask  # (N, T)
        if not bool(found.any(1).all()):
            row = int((~found.any(1)).nonzero()[0, 0])
            raise UserError(
                f"row {row} of a batch has no token {self.classify_id}, _classify_, where GPT says what a "
                "text is; encode texts with `GPTCodec.encode`, which puts it at their ends where codec.marks "
                "is true, or set encoder.summary=last"
            )
        return found.long().argmax(1)

    def _rows(self, batch: Batch) -> Unpadded:
        rows = Unpadded.of(batch.mask)
        self._check(rows.longest)
        return rows

    def _check(self, length: int) -> None:
        if length > self.config.context:
            raise UserError(
                f"a row has {length} tokens, more than the {self.config.context} positions that this GPT "
                "knows; shorten it, or pretrain with a larger encoder.context"
            )
