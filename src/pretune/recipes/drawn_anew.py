"""Blocks that begin as before any pretraining, over others that keep what they know."""

from __future__ import annotations

import torch

from pretune.encoder import Encoder
from pretune.keys import key


def draw_anew(encoder: Encoder, kept: int) -> None:
    """All groups of `encoder` above the lowest `kept`, in place: a function of how torch was last seeded.

    The global generator is left as it was, so that the head drawn after this is the same with any `kept`.
    """
    if kept == len(encoder.groups()):
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(torch.initial_seed(), "drawn anew"))
        fresh = encoder.fresh()
    for ours, theirs in zip(encoder.groups()[kept:], fresh.groups()[kept:], strict=True):
        ours.load_state_dict(theirs.state_dict())
