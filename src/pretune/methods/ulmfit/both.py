"""Both ways: a forward and a backward AWD-LSTM side by side, as one encoder for tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from pretune.data.rows import Codec
from pretune.encoder import Encoded, Encoder, Purpose
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit.encoder import AWDLSTM, AWDLSTMConfig
from pretune.methods.ulmfit.tokens import UlmfitCodec
from pretune.tensors.batch import Batch


class TwoWayAWDLSTM(Encoder):
    """[forward; backward] at every token of every layer, and both summaries.

    Rows are the forward codec's. The backward network reads each from its last token to its first, as a
    backward codec has them, and its vectors are turned back. The ensemble of section 4.1 averages what two
    models say of a whole text; here a word's vector knows what stands before it and what stands behind it.
    """

    def __init__(self, config: AWDLSTMConfig, words: int) -> None:
        super().__init__()
        self.config = config
        of_side = replace(config, directions="one")
        self.forwards, self.backwards = AWDLSTM(of_side, words), AWDLSTM(of_side, words)
        self.width = 2 * self.forwards.width
        self.summary_width = 2 * self.forwards.summary_width

    def layer_widths(self) -> tuple[int, ...]:
        return tuple(2 * width for width in self.forwards.layer_widths())

    def fresh(self) -> TwoWayAWDLSTM:
        return TwoWayAWDLSTM(self.config, len(self.forwards.embedding.weight))

    def groups(self) -> list[nn.Module]:
        """The same layer of both networks, so that they thaw together."""
        sides = zip(self.forwards.groups(), self.backwards.groups(), strict=True)
        return [nn.ModuleList(layer) for layer in sides]

    def purpose(self, purpose: Purpose) -> None:
        if purpose == "language_model":
            raise UsageError(
                "two networks side by side see the words that a language model has to predict; "
                "train each alone: --direction both"
            )
        self.forwards.purpose(purpose)
        self.backwards.purpose(purpose)

    def forward(self, batch: Batch, carry: Any = None) -> Encoded:
        if carry is not None:
            raise UsageError("a text read both ways has no state to begin with: one way ends where it begins")
        turned = _turned(batch)
        return self._beside(self.forwards(batch), self.backwards(_reversed(batch, turned)), turned)

    def vectors(self, batch: Batch) -> Tensor:
        return torch.cat((self.forwards.vectors(batch), self.backwards.vectors(batch)), -1)  # (N, T, 2D)

    def read_vectors(self, vectors: Tensor, batch: Batch) -> Encoded:
        one, other = vectors.chunk(2, -1)
        turned = _turned(batch)
        backward = self.backwards.read_vectors(_turn(other, turned), _reversed(batch, turned))
        return self._beside(self.forwards.read_vectors(one, batch), backward, turned)

    def _beside(self, forward: Encoded, backward: Encoded, turned: Tensor) -> Encoded:
        layers = tuple(
            torch.cat((h, _turn(g, turned)), -1)  # (N, T, 2D_l)
            for h, g in zip(forward.layers, backward.layers, strict=True)
        )
        return Encoded(layers, forward.mask, torch.cat((forward.summary, backward.summary), -1))


def _turned(batch: Batch) -> Tensor:
    """Where each row's tokens are when it is read from its end, (N, T); padding stays where it is."""
    place = torch.arange(batch.mask.shape[1], device=batch.mask.device)  # (T,)
    return torch.where(batch.mask, batch.lengths[:, None] - 1 - place, place)


def _turn(x: Tensor, turned: Tensor) -> Tensor:  # (N, T, D), (N, T) -> (N, T, D)
    return x.gather(1, turned[..., None].expand_as(x))


def _reversed(batch: Batch, turned: Tensor) -> Batch:
    return replace(batch, ids=batch.ids.gather(1, turned), segments=batch.segments.gather(1, turned))


def built(config: AWDLSTMConfig, codec: Codec) -> Encoder:
    """What the settings ask for: one network or two."""
    if config.directions == "one":
        return AWDLSTM(config, codec.size)
    if isinstance(codec, UlmfitCodec) and codec.config.direction == "backward":
        raise UsageError("encoder.directions=both reads both ways itself; leave codec.direction out")
    return TwoWayAWDLSTM(config, codec.size)


def beside(sides: Mapping[str, tuple[Codec, Encoder]]) -> tuple[Codec, Encoder, AWDLSTMConfig]:
    """A forward and a backward model, by any names, as one: codec, encoder and its settings.

    Both must have been learned on the same tokens, and have the same shape.
    """
    found: dict[str, tuple[str, UlmfitCodec, AWDLSTM]] = {}
    for name, (codec, encoder) in sides.items():
        if not isinstance(codec, UlmfitCodec) or not isinstance(encoder, AWDLSTM):
            raise UserError(f"{name} is no AWD-LSTM that reads one way, so nothing can stand beside it")
        found[codec.config.direction] = name, codec, encoder
    if len(sides) != 2 or len(found) != 2:
        ways = ", ".join(f"{name} {way}" for way, (name, _, _) in found.items())
        raise UserError(f"a forward and a backward model can stand side by side, but not {ways} alone")
    (one, codec, forward), (other, behind, backward) = found["forward"], found["backward"]
    if codec.fingerprint() != behind.fingerprint():
        raise UserError(
            f"{one} and {other} read text differently ({codec.describe()}; {behind.describe()}); side by "
            "side they need the same vocabulary and rules: --join average lets each read its own way"
        )
    for field in fields(AWDLSTMConfig):
        theirs = getattr(forward.config, field.name), getattr(backward.config, field.name)
        if theirs[0] != theirs[1]:
            raise UserError(
                f"{one} has encoder.{field.name} {theirs[0]} and {other} {theirs[1]}; side by side they must "
                "be alike: --join average"
            )
    config = replace(forward.config, directions="both")
    encoder = TwoWayAWDLSTM(config, codec.size)
    encoder.forwards.load_state_dict(forward.state_dict())
    encoder.backwards.load_state_dict(backward.state_dict())
    return codec, encoder, config
