"""Weights taken over: where learning from the target's own text begins."""

from __future__ import annotations

import torch

from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError
from pretune.methods.bert.encoder import BERT, PRETRAINING
from pretune.methods.bert.tokens import BERTCodec

BY_PIECE = "words.weight", "mlm_bias"  # a row, or a number, for each piece


def adopt(old_encoder: Encoder, old_codec: Codec, new_encoder: Encoder, new_codec: Codec) -> None:
    """All as it was; where the vocabularies differ, pieces by their strings, new ones as the mean of all old.

    The mean is that of ULMFiT (Howard & Ruder 2018, section 3.2); BERT's README keeps the vocabulary. What
    only pretraining needs, and the pooler, begin fresh where the old encoder has none.
    """
    if not isinstance(old_encoder, BERT) or not isinstance(new_encoder, BERT):
        raise UsageError("only one BERT can take over the weights of another")
    assert isinstance(old_codec, BERTCodec) and isinstance(new_codec, BERTCodec)
    old, new = old_encoder.state_dict(), new_encoder.state_dict()
    lost = {name for name in new.keys() - old.keys() if name.partition(".")[0] in ("pooler", *PRETRAINING)}
    for name in old.keys() | new.keys() - lost:
        shapes = [tuple(x[name].shape)[name in BY_PIECE :] for x in (old, new) if name in x]
        if len(shapes) < 2 or shapes[0] != shapes[1]:
            raise UserError(f"the encoders differ in {name}; only one of the same size can be taken over")
    theirs = old_codec.vocab.ids
    at = torch.tensor([theirs.get(piece, -1) for piece in new_codec.vocab.words])  # (V,)
    for name in BY_PIECE:
        if name in old:
            fresh = old[name][at.clamp(min=0)]
            fresh[at < 0] = old[name].mean(0)
            old[name] = fresh
    new_encoder.load_state_dict({**{name: new[name] for name in lost}, **old})
