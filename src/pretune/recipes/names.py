"""An encoder's groups with the names that plans print."""

from __future__ import annotations

from torch import nn

from pretune.encoder import Encoder


def all_groups(encoder: Encoder) -> list[tuple[str, nn.Module]]:
    """(name, module) from bottom to top; the name is the module's place in the encoder, or its parts'."""
    places = {id(module): name for name, module in encoder.named_modules()}

    def name(k: int, group: nn.Module) -> str:
        own = places.get(id(group))
        inner = ", ".join(places[id(part)] for part in group.children() if id(part) in places)
        return own or inner or f"layer {k}"

    return [(name(k, group), group) for k, group in enumerate(encoder.groups())]
