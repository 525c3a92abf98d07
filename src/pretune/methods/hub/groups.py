"""Groups of a model that somebody else wrote: what lies under its list of layers, and each layer."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def groups_of(model: nn.Module) -> list[nn.Module]:
    """Bottom to top, every parameter in exactly one.

    The lowest is all embeddings and what comes before the layers; what comes after them (a last norm, a
    pooler) is one with the top layer. A model without a list of layers is one group.
    """
    place = _list_of_layers(model)
    if place is None:
        return [model]
    below: list[nn.Module] = []
    above: list[nn.Module] = []
    holder = model
    *outer, name = place.split(".")
    for step in outer:
        _beside(holder, {step}, below, above)
        holder = holder.get_submodule(step)
    chosen = holder.get_submodule(name)
    assert isinstance(chosen, nn.ModuleList)
    lists = {  # some models keep the parts of a layer in several lists side by side
        other: child
        for other, child in holder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == len(chosen)
    }
    _beside(holder, set(lists), below, above)
    layers = [_together(list(parts)) for parts in zip(*lists.values(), strict=True)]
    layers[-1] = _together([layers[-1], *above])
    return [_together(below), *layers] if below else layers


def _beside(holder: nn.Module, inner: set[str], below: list[nn.Module], above: list[nn.Module]) -> None:
    """What a holder of `inner` has beside it: before it in the order of its parts, or an embedding; after."""
    own = list(holder.parameters(recurse=False))
    if own:
        below.append(nn.ParameterList(own))
    passed = False
    for name, child in holder.named_children():
        if name in inner:
            passed = True
        elif any(True for _ in child.parameters()):
            (above if passed and "embed" not in name else below).append(child)


def _together(modules: list[nn.Module]) -> nn.Module:
    return modules[0] if len(modules) == 1 else nn.ModuleList(modules)


def _list_of_layers(model: nn.Module) -> str | None:
    """The name of the outermost list of modules that has most weights."""
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in _lists(model)}
    return max(sizes, key=lambda name: sizes[name], default=None)


def _lists(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList) and len(child):
            yield prefix + name, child
        else:
            yield from _lists(child, f"{prefix}{name}.")
