"""BERT: the Transformer that reads both ways (Devlin et al. 2018)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, UserError
from pretune.layers.attention import Activation, Transformer, TransformerConfig, check_dropouts
from pretune.tensors.batch import Batch
from pretune.tensors.unpadded import Unpadded

PRETRAINING = "mlm_transform", "mlm_norm", "mlm_bias", "nsp"  # what only pretraining needs


@dataclass(frozen=True)
class BERTConfig:
    """Defaults are BERT-base, section 3 of the paper."""

    width: int = 768  # of each token's vector
    layers: int = 12  # blocks
    heads: int = 12  # of attention, in each block
    inner: int | None = None  # width inside a block's feed-forward half; None: 4 · width
    context: int = 512  # positions: the longest row
    types: int = 2  # of segments
    activation: Activation = "gelu"  # "gelu_tanh" as Google's code since February 2019
    norm_eps: float = 1e-12  # inside the root of layer norm
    dropout: float = 0.1  # of embeddings and of what each half of a block adds
    attention_dropout: float = 0.1  # of the weights of attention
    pretraining_heads: bool = True  # what predicts masked words and next sentences
    pooler: bool = True  # the summary is tanh(W h + b) of the first token's h; False: h itself
    causal: bool = False  # no token sees later ones ("LTR", 5.1); the last one sums up
    checkpointing: bool = False  # less memory in training, for a third more time
    deviation: float = 0.02  # of weights as they begin; narrow networks may want 0.02 · √(768 / width)

    def __post_init__(self) -> None:
        self.transformer()
        check_dropouts(self, "dropout", "attention_dropout")
        for name in ("context", "types"):
            if getattr(self, name) < 1:
                raise UsageError(f"encoder.{name} is {getattr(self, name)}; it must be at least 1")
        if not self.deviation > 0:
            raise UsageError(f"encoder.deviation is {self.deviation:g}; it must be above 0")
        if self.pretraining_heads and not self.pooler:
            raise UsageError(
                "encoder.pooler is False, but next sentences are predicted from what it says; "
                "set encoder.pretraining_heads=False too"
            )

    def transformer(self) -> TransformerConfig:
        return TransformerConfig(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            inner=4 * self.width if self.inner is None else self.inner,
            activation=self.activation,
            norm_eps=self.norm_eps,
            causal=self.causal,
            attention_dropout=self.attention_dropout,
            residual_dropout=self.dropout,
            checkpointing=self.checkpointing,
        )


class BERT(Encoder):
    """Words, positions and segments, normalised, then blocks. Rows begin with [CLS], which sums them up;
    where attention is causal, the [SEP] at their end does.

    For pretraining there are a transform before the decoder of masked words, which is tied to `words`, its
    bias, and the classifier of next sentences. `mask_id`, which stands for a masked word, is needed only
    where a task goes on predicting such words (`pretune.tasks.joint`).
    """

    def __init__(self, config: BERTConfig, vocab_size: int, pad_id: int, mask_id: int | None = None) -> None:
        super().__init__()
        self.config, self.pad_id, self.mask_id = config, pad_id, mask_id
        D = config.width
        self.words = nn.Embedding(vocab_size, D)
        self.positions = nn.Embedding(config.context, D)
        self.types = nn.Embedding(config.types, D)
        self.embedding_norm = nn.LayerNorm(D, config.norm_eps)
        self.transformer = Transformer(config.transformer())
        self.pooler = nn.Linear(D, D) if config.pooler else None
        heads = config.pretraining_heads
        self.mlm_transform = nn.Linear(D, D) if heads else None
        self.mlm_norm = nn.LayerNorm(D, config.norm_eps) if heads else None
        self.mlm_bias = nn.Parameter(torch.zeros(vocab_size)) if heads else None  # (V,)
        self.nsp = nn.Linear(D, 2) if heads else None
        self.width = self.summary_width = D
        self._initialise()

    @property
    def causal(self) -> bool:
        return self.config.causal

    def layer_widths(self) -> tuple[int, ...]:
        return (self.width,) * (self.config.layers + 1)

    def groups(self) -> list[nn.Module]:
        """Embeddings, then blocks; whatever reads the top is with the last of them."""
        names = "words", "positions", "types", "embedding_norm"
        bottom = nn.ModuleDict({name: self.get_submodule(name) for name in names})
        *lower, last = self.transformer.blocks
        top = nn.ModuleDict({"block": last})
        for name in ("pooler", *PRETRAINING):
            part = getattr(self, name)
            if part is not None:
                setattr(top, name, part)
        return [bottom, *lower, top]

    def fresh(self) -> BERT:
        return BERT(self.config, self.words.num_embeddings, self.pad_id, self.mask_id)

    def for_task(self) -> BERT:
        """Without what only pretraining needs."""
        parts = {name: getattr(self, name) for name in PRETRAINING}
        try:
            for name in parts:
                setattr(self, name, None)
            copy = deepcopy(self)
        finally:
            for name, part in parts.items():
                setattr(self, name, part)
        copy.config = replace(self.config, pretraining_heads=False)
        return copy

    def forward(self, batch: Batch, carry: None = None) -> Encoded:
        if carry is not None:
            raise UsageError("BERT reads rows whole and carries nothing from one to the next")
        rows = self._rows(batch)
        return self._read(self.words(rows.pack(batch.ids)), rows, batch)

    def vectors(self, batch: Batch) -> Tensor:
        """Of words alone, positions and segments apart."""
        found: Tensor = self.words(batch.ids)  # (N, T, D)
        return found

    def read_vectors(self, vectors: Tensor, batch: Batch) -> Encoded:
        rows = self._rows(batch)
        return self._read(rows.pack(vectors), rows, batch)

    def mlm_hidden(self, hidden: Tensor) -> Tensor:
        """What the decoder of masked words reads of top vectors: (K, D) -> (K, D)."""
        if self.mlm_transform is None or self.mlm_norm is None:
            raise UsageError("this BERT has no heads of pretraining; build it with pretraining_heads=True")
        approximate = "tanh" if self.config.activation == "gelu_tanh" else "none"
        found: Tensor = self.mlm_norm(F.gelu(self.mlm_transform(hidden), approximate=approximate))
        return found

    def _initialise(self) -> None:
        """Normal, cut at two deviations, as the release."""
        deviation = self.config.deviation
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def _read(self, words: Tensor, rows: Unpadded, batch: Batch) -> Encoded:
        """From vectors of words (M, D)."""
        x = words + self.positions(rows.place) + self.types(rows.pack(batch.segments))
        x = F.dropout(self.embedding_norm(x), self.config.dropout, self.embedding_norm.training)
        layers = tuple(rows.unpack(h) for h in self.transformer(x, rows))  # L + 1 × (N, T, D)
        places = torch.arange(batch.mask.shape[1], device=batch.mask.device)  # (T,)
        last = (places * batch.mask).amax(1)  # (N,)
        at = last if self.config.causal else batch.mask.long().argmax(1)
        summary = layers[-1][torch.arange(len(at), device=at.device), at]  # (N, D)
        if self.pooler is not None:
            summary = self.pooler(summary).tanh()
        return Encoded(layers, batch.mask, summary)

    def _rows(self, batch: Batch) -> Unpadded:
        rows = Unpadded.of(batch.mask)
        if rows.longest > self.config.context:
            raise UserError(
                f"a row has {rows.longest} tokens, more than the {self.config.context} positions that this "
                "BERT knows; shorten it, or pretrain with a larger encoder.context"
            )
        return rows
