"""Weights taken over: where learning from the target's own text begins."""

from __future__ import annotations

import torch

from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError
from pretune.methods.gpt.encoder import GPT
from pretune.methods.gpt.tokens import GPTCodec


def adopt(old_encoder: Encoder, old_codec: Codec, new_encoder: Encoder, new_codec: Codec) -> None:
    """All as it was; where the vocabularies differ, pieces by their strings, new ones as the mean of all old.

    Marks are pieces too. The mean is that of ULMFiT (Howard & Ruder 2018, section 3.2); the paper keeps its
    vocabulary, and so is `Method.vocabulary`.
    """
    if not isinstance(old_encoder, GPT) or not isinstance(new_encoder, GPT):
        raise UsageError("only one GPT can take over the weights of another")
    assert isinstance(old_codec, GPTCodec) and isinstance(new_codec, GPTCodec)
    kept = {name: x for name, x in old_encoder.state_dict().items() if name != "tokens.weight"}
    wanted = new_encoder.state_dict()
    for name in wanted.keys() - {"tokens.weight"} | kept.keys():
        if name not in kept or name not in wanted or kept[name].shape != wanted[name].shape:
            raise UserError(f"the encoders differ in {name}; only one of the same size can be taken over")
    theirs = old_codec.vocab.ids
    at = torch.tensor([theirs.get(piece, -1) for piece in new_codec.vocab.words])  # (V,)
    old = old_encoder.tokens.weight.detach()
    fresh = old[at.clamp(min=0)]  # (V, D)
    fresh[at < 0] = old.mean(0)
    new_encoder.load_state_dict({**kept, "tokens.weight": fresh})
