"""Model folders: written in one go or not at all, read strictly; no pickle, ever."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pretune.errors import UserError
from pretune.layers.packing import as_halves
from pretune.runs import guests
from pretune.runs.files import write_json

CONFIG, WEIGHTS, RUN = "config.json", "model.safetensors", "run.json"
FORMAT = 1  # of config.json
HALVES = {torch.float32: torch.float16}  # what stands for it in a file of half the size
TRUST = "PRETUNE_TRUST_CODE"  # 1: functions that a model folder names may be imported


def check_out(out: Path, overwrite: bool = False) -> None:
    """Raise before hours of training if their result could not be written to `out`."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out wants a folder")
    if out.is_dir() and any(out.iterdir()):
        if not (out / CONFIG).is_file():
            raise UserError(f"{out} is not empty and no model folder; choose another --out")
        if not overwrite:
            raise UserError(f"{out} holds a model already; choose another --out or add --overwrite")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not os.access(above, os.W_OK):
        raise UserError(f"{above} cannot be written to; choose another --out")


def write_folder(out: Path, fill: Callable[[Path], None]) -> None:
    """`fill` a temporary sibling of `out`, then put it in the place of `out`: the whole or nothing."""
    check_out(out, overwrite=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    new, old = (out.parent / f".{out.name}.{uuid4().hex[:8]}.{end}" for end in ("new", "old"))
    try:
        new.mkdir()
        fill(new)
        if out.exists():
            out.replace(old)
        new.replace(out)
    finally:
        if old.exists() and not out.exists():
            old.replace(out)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_run(folder: Path, info: Mapping[str, Any]) -> None:
    """run.json: how the folder came about. JSON knows no NaN: such scores are null."""
    write_json(folder / RUN, _finite(info))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder; a folder that is none is answered with the nearest that is one.

    What transformers wrote, here or on the hub, is a pretrained folder of a guest.
    """
    folder = guests.resolved(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: no such model folder{_nearest(folder)}")
    try:
        config = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    if isinstance(config, dict) and guests.is_guest(config):
        return guests.as_ours(config)
    if not isinstance(config, dict) or "kind" not in config:
        raise UserError(f"{path}: no config of pretune: 'kind' is missing")
    if config.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path}: format {config['format']} is unknown here; this pretune reads {FORMAT}")
    check_code(folder, config)
    return config


def check_code(folder: Path, config: Mapping[str, Any]) -> None:
    """A folder may name functions and classes of its author's; reading it must not run them unasked."""
    named = [config.get("method"), config.get("segmenter")]
    for table in ("task", "recipe"):
        described = config.get(table)
        named += (
            [described.get(x) for x in ("name", "kind", "segmenter")] if isinstance(described, dict) else []
        )
    codec = folder / "codec.json"
    if codec.is_file():
        with suppress(ValueError):  # which the codec's own reader will complain of
            settings = json.loads(codec.read_text("utf-8"))
            named += [settings.get("segmenter")] if isinstance(settings, dict) else []
    for name in named:
        if not isinstance(name, str) or ":" not in name or os.environ.get(TRUST) == "1":
            continue
        if name.partition(":")[0] not in sys.modules:
            raise UserError(
                f"{folder} wants to run {name}, code that is not pretune's; set {TRUST}=1 if you trust it"
            )


def _nearest(folder: Path) -> str:
    above = folder.absolute().parent
    if not above.is_dir():
        return ""
    names = [path.name for path in above.iterdir() if (path / CONFIG).is_file()]
    near = get_close_matches(folder.name, names, n=1, cutoff=0.3)
    return f"; nearest: {folder.parent / near[0]}" if near else ""


def save_weights(module: nn.Module, path: Path, halves: bool = False) -> None:
    """Every parameter and buffer under its name; tied ones once. `halves` rounds float32 to float16."""
    found = {name: x.detach().cpu().contiguous() for name, x in _tensors(module).items()}
    if halves:
        found = {name: as_halves(x) if x.dtype == torch.float32 else x for name, x in found.items()}
    save_file(found, path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill `module` in place. Every tensor is accounted for, every shape equal, every value finite.

    float16 in the file fills float32 in the module.
    """
    wanted = _tensors(module)
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as weights: {error}") from None
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name} is not known" for name in found if name not in wanted]
    for name in wanted.keys() & found.keys():
        want, have = wanted[name], found[name]
        if want.shape != have.shape:
            wrong.append(f"{name} is {tuple(have.shape)}, not {tuple(want.shape)}")
        elif have.dtype not in (want.dtype, HALVES.get(want.dtype)):
            wrong.append(f"{name} is {have.dtype}, not {want.dtype}")
        elif have.is_floating_point() and not torch.isfinite(have).all():
            wrong.append(f"{name} has values that are not finite")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(f"{path}: {'; '.join(wrong[:5])}{more}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's parameters and buffers; of those that are one and the same, the first."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found
