"""Feature extraction: a frozen encoder, a learned mix of its layers, a task model on top (ELMo)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pretune.encoder import Encoded, Encoder, Purpose
from pretune.layers.scalar_mix import ScalarMix
from pretune.recipes.limits import check
from pretune.tasks.base import Head, Task
from pretune.tensors.batch import Batch
from pretune.training.optimizers import AdamW
from pretune.training.schedules import WarmupLinear
from pretune.training.stage import Group, Stage


@dataclass(frozen=True)
class Features:
    """Leave the encoder as it is; learn which of its layers to listen to, and a head.

    Peters et al. (2018), section 3.2. The cheapest recipe, and one encoder then serves many tasks. The mix
    runs over the layers as wide as the top one. The head sees the encoder's own summary, joined by mean
    and maximum of the mix where there are several such layers, or of a task BiLSTM where one is asked for.
    """

    lr: float = 1e-2
    """Peak rate of mix, BiLSTM and head."""
    epochs: int = 30
    """Passes over the data; each is cheap, since nothing below is trained."""
    batch_size: int = 32
    """Samples a step."""
    bilstm: int = 0
    """Units a direction of a BiLSTM over the mixed layers; 0 for none."""
    dropout: float = 0.5
    """Dropout on the mixed layers; ELMo's authors call 0.5 a good default."""
    layer_norm: bool = False
    """Norm each layer over the batch before mixing, as ELMo's option does."""
    warmup: float = 0.1
    """Share of the steps spent climbing."""
    weight_decay: float = 0.0
    """Decoupled decay of the BiLSTM and the head."""
    clip: float | None = 5.0
    """Largest gradient norm, as in ELMo's task models."""
    alpha: float = 0.0
    """Activation regularisation (AR) of what the head sees."""
    beta: float = 0.0
    """Temporal activation regularisation (TAR) of what the head sees."""

    def __post_init__(self) -> None:
        check(self)

    def task(self, task: Task) -> Task:
        return task

    def wrap(self, encoder: Encoder) -> FrozenFeatures:
        return FrozenFeatures(encoder, self)

    def stages(self, encoder: Encoder, head: Head) -> list[Stage]:
        assert isinstance(encoder, FrozenFeatures)
        groups = [Group("mix", (encoder.mix,), self.lr)] if encoder.mix is not None else []
        if encoder.bilstm is not None:
            groups.append(Group("bilstm", (encoder.bilstm,), self.lr, self.weight_decay))
        groups.append(Group("head", (head,), self.lr, self.weight_decay))
        return [Stage("features", tuple(groups), self.epochs, WarmupLinear(self.warmup), AdamW(), self.clip)]


class FrozenFeatures(Encoder):
    """An encoder that never moves, under a scalar mix and an optional BiLSTM.

    `groups` leaves the inner encoder out, so whatever trains this freezes it; it also stays in `eval`.
    """

    def __init__(self, encoder: Encoder, recipe: Features) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        self.mixed = [k for k, width in enumerate(encoder.layer_widths()) if width == encoder.width]
        mixes = len(self.mixed) > 1 or recipe.bilstm > 0  # else only the encoder's own summary is read
        self.mix = ScalarMix(len(self.mixed), recipe.layer_norm) if mixes else None
        self.dropout = nn.Dropout(recipe.dropout)
        self.bilstm = (
            nn.LSTM(encoder.width, recipe.bilstm, batch_first=True, bidirectional=True)
            if recipe.bilstm
            else None
        )
        self.width = 2 * recipe.bilstm or encoder.width
        self.summary_width = encoder.summary_width + (2 * self.width if mixes else 0)

    def train(self, mode: bool = True) -> FrozenFeatures:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, batch: Batch, carry: Any = None) -> Encoded:
        with torch.no_grad():
            inner = self.encoder(batch, carry)
        if self.mix is None:
            return Encoded(inner.layers[-1:], inner.mask, inner.summary, inner.carry)
        layers = [inner.layers[k] for k in self.mixed]
        top = self.dropout(self.mix(layers, inner.mask))  # (N, T, D)
        if self.bilstm is not None:
            top = _recur(self.bilstm, top, inner.mask)  # (N, T, 2H)
        summary = torch.cat([inner.summary, _mean(top, inner.mask), _max(top, inner.mask)], -1)  # (N, S)
        return Encoded((top,), inner.mask, summary, inner.carry)

    def groups(self) -> list[nn.Module]:
        return [module for module in (self.mix, self.bilstm) if module is not None]

    def purpose(self, purpose: Purpose) -> None:
        self.encoder.purpose(purpose)


def _recur(lstm: nn.LSTM, x: Tensor, mask: Tensor) -> Tensor:
    """A BiLSTM over real tokens only, zero at padding."""
    with torch.autocast(x.device.type, enabled=False):  # LSTMs fail in bfloat16 on most CPUs
        packed = nn.utils.rnn.pack_padded_sequence(
            x.float(), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        output, _ = nn.utils.rnn.pad_packed_sequence(
            lstm(packed)[0], batch_first=True, total_length=x.shape[1]
        )
    return output  # (N, T, 2H)


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return x.sum(1) / mask.sum(1, keepdim=True)  # (N, D)


def _max(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask[..., None], float("-inf")).amax(1)  # (N, D)
