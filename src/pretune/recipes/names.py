"""An encoder's groups with the names that plans print."""

from __future__ import annotations

from torch import nn

from pretune.encoder import Encoder


def all_groups(encoder: Encoder) -> list[tuple[str, nn.Module]]:
    """(name, module) from bottom to top; the name is the module's place in the encoder."""
    places = {id(module): name for name, module in encoder.named_modules()}
    return [(places.get(id(module)) or f"layer {k}", module) for k, module in enumerate(encoder.groups())]
