"""config.json of published Transformers: what it says of the network, checked against the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretune.errors import UsageError, UserError

Names = Sequence[tuple[str, str]]  # theirs, ours; of several of theirs for one of ours the first counts


def settings_of(
    config: Mapping[str, Any], names: Names, shape: Mapping[str, Any], said: Mapping[str, Any], file: Path
) -> dict[str, Any]:
    """Settings of the encoder: by shapes, by the file, by the user (`said`), who may set what neither fixes.

    Other names of the file are not looked at.
    """
    found: dict[str, Any] = {}
    for theirs, ours in names:
        if config.get(theirs) is not None and ours not in found:
            found[ours] = config[theirs]
            if ours in shape and found[ours] != shape[ours]:
                raise UserError(
                    f"{file}: {theirs} is {found[ours]}, but the weights have {shape[ours]}; they do not "
                    "belong together"
                )
    fixed = {**shape, **{name: found[name] for name in ("heads",) if name in found}}
    for name in said:
        if name in fixed and name != "context":
            raise UsageError(f"encoder.{name} is said by the file; leave it out")
    whole = {**found, **shape, **said}
    if "heads" not in whole:
        if whole["width"] % 64:
            raise UsageError(
                f"{file}: nothing says how many heads share a width of {whole['width']}; give encoder.heads"
            )
        whole["heads"] = whole["width"] // 64  # as in all models of both papers
    if whole["inner"] == 4 * whole["width"]:
        whole["inner"] = None  # what our settings call the usual
    if whole["context"] > shape["context"]:
        raise UsageError(
            f"encoder.context is {whole['context']}; the weights have {shape['context']} positions"
        )
    return whole


def activation_of(
    config: Mapping[str, Any], name: str, known: Mapping[str, str], default: str, file: Path
) -> str:
    """Our name of the function inside blocks."""
    theirs = config.get(name, default)
    if theirs not in known:
        raise UserError(f"{file}: {name} is {theirs!r}; known are {', '.join(known)}")
    return known[theirs]
