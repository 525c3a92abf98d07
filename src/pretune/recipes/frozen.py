"""An encoder that never moves, under learned mixes of its layers and a BiLSTM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from pretune.encoder import Encoded, Encoder, Purpose
from pretune.errors import UsageError
from pretune.layers.bidirectional import over_tokens
from pretune.layers.scalar_mix import ScalarMix
from pretune.recipes.beside import VECTORS, Vectors
from pretune.recipes.characters import TokenCharacters
from pretune.tensors.batch import Batch

if TYPE_CHECKING:
    from pretune.recipes.features import Features

LAYERS, SUMMARY = "frozen_layers", "frozen_summary"  # in `Batch.given`: (N, L, T, D), (N, S)


class Mix(NamedTuple):
    """What a scalar mix has learned."""

    place: str  # input, output
    layers: tuple[int, ...]  # which of the encoder's, 0 the lowest
    weights: tuple[float, ...]  # after the softmax
    gamma: float


class FrozenFeatures(Encoder):
    """[x; ELMo] -> BiLSTM -> [h; ELMo'], section 3.3 of Peters et al. (2018), each part where asked for.

    The inner encoder is run once, or not at all where a batch comes with its layers (`LAYERS`), for all
    mixes, and they are shared by all parts of a sample. `groups` leaves it out, so whatever trains this
    freezes it; it also stays in `eval`.
    """

    def __init__(self, encoder: Encoder, recipe: Features) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        self.lambda_, self.cache_megabytes = recipe.lambda_, recipe.cache_megabytes
        self.mixed = _mixed(encoder, recipe.mix_last)
        wide = len(self.mixed) * encoder.width if recipe.mix == "concat" else encoder.width
        beside = 0 if recipe.vectors is None else Vectors.read(recipe.vectors, recipe.max_vectors).width
        self.beside = beside > 0
        self.characters = TokenCharacters(recipe.characters) if recipe.characters else None
        beside += recipe.characters
        at_input, at_output = recipe.placement != "output", recipe.placement != "input"
        # one layer alone needs no mix: only the encoder's own summary is read
        mixes = len(self.mixed) > 1 or recipe.bilstm > 0 or beside > 0
        self.mix = self._mix(recipe) if mixes and at_input else None
        self.output_mix = self._mix(recipe) if at_output else None
        self.dropout = nn.Dropout(recipe.dropout)
        self.width = beside + (wide if at_input else 0)
        self.bilstm = (
            nn.LSTM(
                self.width,
                recipe.bilstm,
                recipe.bilstm_layers,
                batch_first=True,
                dropout=recipe.dropout if recipe.bilstm_layers > 1 else 0.0,
                bidirectional=True,
            )
            if recipe.bilstm
            else None
        )
        self.width = (2 * recipe.bilstm or self.width) + (wide if at_output else 0)
        self.summary_width = encoder.summary_width + (2 * self.width if mixes else 0)

    def _mix(self, recipe: Features) -> ScalarMix | SideBySide:
        if recipe.mix == "concat":
            return SideBySide()
        start = recipe.mix_weights or None
        if start is not None and len(start) != len(self.mixed):
            raise UsageError(
                f"recipe.mix_weights has {len(start)} numbers; this encoder has {len(self.mixed)} layers "
                "to mix"
            )
        top, frozen = recipe.mix == "top", recipe.mix == "frozen"
        return ScalarMix(
            len(self.mixed), recipe.layer_norm, top=top, weights=start, gamma=recipe.mix_gamma, frozen=frozen
        )

    def train(self, mode: bool = True) -> FrozenFeatures:
        super().train(mode)
        self.encoder.eval()
        return self

    def read(self, batch: Batch, carry: Any = None) -> Encoded:
        """What the inner encoder says, only the layers to mix; as it came with the batch where it did."""
        if carry is None and LAYERS in batch.given:
            layers = batch.given[LAYERS].unbind(1)  # L × (N, T, D)
            return Encoded(layers, batch.mask, batch.given[SUMMARY])
        with torch.no_grad():
            inner: Encoded = self.encoder(batch, carry)
        return replace(inner, layers=tuple(inner.layers[k] for k in self.mixed))

    def forward(self, batch: Batch, carry: Any = None) -> Encoded:
        return self._upon(self.read(batch, carry), batch)

    def vectors(self, batch: Batch) -> Tensor:
        if self.beside or self.characters is not None:
            what = "word vectors" if self.beside else "characters"
            raise UsageError(
                f"this model reads {what} beside its encoder; explain it by occlusion, which counts both"
            )
        return self.encoder.vectors(batch)

    def read_vectors(self, vectors: Tensor, batch: Batch) -> Encoded:
        inner = self.encoder.read_vectors(vectors, batch)
        return self._upon(replace(inner, layers=tuple(inner.layers[k] for k in self.mixed)), batch)

    def _upon(self, inner: Encoded, batch: Batch) -> Encoded:
        """What is learned, upon what the inner encoder says."""
        parts = [batch.given[VECTORS]] if self.beside else []  # x
        if self.characters is not None:
            parts.append(self.dropout(self.characters(batch)))
        if self.mix is not None:
            parts.append(self.dropout(self.mix(inner.layers, inner.mask)))  # ELMo
        if not parts:
            return replace(inner, layers=inner.layers[-1:])
        top = torch.cat(parts, -1)  # (N, T, D)
        if self.bilstm is not None:
            top = over_tokens(self.bilstm, top, inner.mask)  # (N, T, 2H) h
        if self.output_mix is not None:
            mixed = self.dropout(self.output_mix(inner.layers, inner.mask))  # ELMo'
            top = torch.cat([top, mixed], -1)  # (N, T, 2H + D)
        summary = torch.cat([inner.summary, _mean(top, inner.mask), _max(top, inner.mask)], -1)  # (N, S)
        return Encoded((top,), inner.mask, summary, inner.carry)

    def mixes(self) -> dict[str, ScalarMix]:
        """The mixes in use, by their places."""
        found = {"input": self.mix, "output": self.output_mix}
        return {place: mix for place, mix in found.items() if isinstance(mix, ScalarMix)}

    def learned(self) -> list[Mix]:
        """Which layers the mixes listen to, as plain numbers."""
        return [
            Mix(place, tuple(self.mixed), tuple(mix.shares().tolist()), float(mix.gamma.detach()))
            for place, mix in self.mixes().items()
        ]

    def penalty(self) -> Tensor | None:
        """lambda * sum_l w_l² of each mix, section 5.1."""
        mixes = self.mixes().values()
        if not self.lambda_ or not mixes:
            return None
        return self.lambda_ * torch.stack([mix.penalty() for mix in mixes]).sum()

    def groups(self) -> list[nn.Module]:
        return [*self.mixes().values(), *(x for x in (self.characters, self.bilstm) if x is not None)]

    def purpose(self, purpose: Purpose) -> None:
        self.encoder.purpose(purpose)


class SideBySide(nn.Module):
    """Layers one beside the other, the top one first: the concatenation of Devlin et al. (2019), table 7."""

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:  # L × (N, T, D) -> (N, T, L·D)
        return torch.cat(tuple(reversed(layers)), -1)


def _mixed(encoder: Encoder, last: int | None) -> list[int]:
    """Which layers are mixed: those as wide as the top one, or the `last` of them."""
    found = [k for k, width in enumerate(encoder.layer_widths()) if width == encoder.width]
    if last is not None and last > len(found):
        raise UsageError(f"recipe.mix_last is {last}; this encoder has {len(found)} layers to mix")
    return found if last is None else found[-last:]


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return x.sum(1) / mask.sum(1, keepdim=True)  # (N, D)


def _max(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask[..., None], float("-inf")).amax(1)  # (N, D)
