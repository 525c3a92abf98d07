"""Weights taken over to a new vocabulary: where learning from the target's own text begins."""

from __future__ import annotations

import torch

from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit.encoder import AWDLSTM
from pretune.methods.ulmfit.tokens import UlmfitCodec


def adopt(old_encoder: Encoder, old_codec: Codec, new_encoder: Encoder, new_codec: Codec) -> None:
    """All layers as they were; words by their strings, those that are new as the mean of all old ones.

    Embedding and decoder bias alike, section 3.2's starting point as the release makes it.
    """
    if not isinstance(old_encoder, AWDLSTM) or not isinstance(new_encoder, AWDLSTM):
        raise UsageError(
            "only one AWD-LSTM can take over the weights of another; where both directions stand side by "
            "side, adapt the folder that they came from"
        )
    assert isinstance(old_codec, UlmfitCodec) and isinstance(new_codec, UlmfitCodec)
    if old_encoder.layer_widths() != new_encoder.layer_widths():
        raise UserError(
            f"layers of widths {old_encoder.layer_widths()} do not fit an encoder of "
            f"{new_encoder.layer_widths()}"
        )
    theirs = old_codec.vocab.ids
    at = torch.tensor([theirs.get(word, -1) for word in new_codec.vocab.words])  # (V,)
    old, new = old_encoder.embedding, new_encoder.embedding
    with torch.no_grad():
        for known, ours in ((old.weight, new.weight), (old.decoder_bias, new.decoder_bias)):
            ours.copy_(known[at.clamp(min=0)])
            ours[at < 0] = known.mean(0)
    if new.adaptive is not None and old.adaptive is not None:
        new.adaptive.adopt(old.adaptive, at)
    new_encoder.rnns.load_state_dict(old_encoder.rnns.state_dict())
