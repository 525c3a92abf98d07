"""Files of published tensors: read as data, no code of theirs is ever run; and strictly put into a model."""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pretune.data.files import check_exists, listed, read_text
from pretune.errors import UserError

WRAPPERS: Final = ("model", "state_dict", "model_state_dict")  # where a file has an optimizer's state as well
DAMAGED: Final = (  # what unpickling raises where bytes are wrong
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
UNSUPPORTED: Final = re.compile(r"Unsupported (?:global|class|operand)[^\w]*(?:GLOBAL )?([\w.]+)")
WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")  # of transformers; .index.json where in parts
OTHERS: Final = ("tf_model.h5", "flax_model.msgpack", "rust_model.ot", "onnx")
Network = TypeVar("Network", bound=nn.Module)
StandIn = tuple[type, str]  # a class of ours, for what a file calls by that name


def read_tensors(path: Path, stand_ins: Sequence[StandIn] = (), advice: str = "") -> dict[str, Tensor]:
    """A state dict: of torch in any of its formats whatever the ending says, or safetensors. The optimizer's
    state beside it is left out. `advice` is what else to say where a file holds more than tensors.
    """
    check_exists(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the file of weights in it")
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path}: cannot be read as safetensors ({error})") from None
    return _state_dict(_loaded(path, stand_ins, advice), path)


def _loaded(path: Path, stand_ins: Sequence[StandIn], advice: str) -> Any:
    try:
        with torch.serialization.safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = UNSUPPORTED.search(str(error))
        if named is None or "." not in named[1]:
            raise UserError(f"{path}: not a file of torch weights, or damaged") from None
        raise UserError(
            f"{path}: holds an object of {named[1]}, whose code would have to run; where it loads, write "
            f"torch.save(model.state_dict(), 'weights.pth'){advice} and import that"
        ) from None
    except DAMAGED:
        raise UserError(f"{path}: not a file of torch weights, or damaged") from None


def _state_dict(value: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(value, Mapping):
        if value and all(isinstance(x, Tensor) for x in value.values()):
            return {str(name): x for name, x in value.items()}
        for name in WRAPPERS:
            if isinstance(value.get(name), Mapping):
                return _state_dict(value[name], path)
    what = f"a {type(value).__name__}"
    if isinstance(value, Mapping):
        what += f" of {listed([str(name) for name in value])}" if value else " of nothing"
    raise UserError(f"{path}: holds {what}, no weights by name; save model.state_dict() and import that")


def weights_of(folder: Path) -> Path | None:
    """The file of weights in a folder of transformers, or the index of its parts, or None."""
    for name in WEIGHTS:
        for path in (folder / name, folder / f"{name}.index.json"):
            if path.is_file():
                return path
    return None


def read_folder(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The weights of a folder of transformers, of one file or of several, and the file that names them."""
    path = weights_of(folder)
    if path is None:
        other = [name for name in OTHERS if (folder / name).exists()]
        hint = f"; {listed(other)} cannot be read, save_pretrained from torch writes one" if other else ""
        raise UserError(f"{folder}: no {' or '.join(WEIGHTS)} there{hint}")
    if path.suffix != ".json":
        return path, read_tensors(path)
    parts = read_json(path).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
        raise UserError(f'{path}: no index of weights: "weight_map" is missing')
    found: dict[str, Tensor] = {}
    for name in dict.fromkeys(parts.values()):
        found |= read_tensors(folder / Path(name).name)
    return path, found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a table."""
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a {type(value).__name__} where a table of names is wanted")
    return value


def unfilled(make: Callable[[], Network]) -> Network:
    """A network without the time that drawing its first weights takes; every one is still to be written."""
    with torch.device("meta"):
        network = make()
    return network.to_empty(device="cpu")


def fill(views: Mapping[str, Tensor], found: Mapping[str, Tensor], file: Path) -> list[str]:
    """Write `found` into the model through `views`: by their names, our tensors as theirs lie. Each tensor is
    accounted for, every shape checked, all values finite, before anything is written. Returns what to know.
    """
    wrong = [f"{name} {list(views[name].shape)} is missing" for name in views if name not in found]
    wrong += [f"{name} {list(found[name].shape)} is not expected" for name in found if name not in views]
    for name in views.keys() & found.keys():
        if views[name].shape != found[name].shape:
            wrong.append(f"{name} is {list(found[name].shape)}, expected {list(views[name].shape)}")
        elif not found[name].is_floating_point():
            wrong.append(f"{name} is of {found[name].dtype}; weights are floating-point numbers")
        elif not torch.isfinite(found[name]).all():
            wrong.append(f"{name} has values that are not finite; the file is damaged")
    if wrong:
        more = f"; and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise UserError(f"{file}: {'; '.join(sorted(wrong)[:6])}{more}")
    with torch.no_grad():
        for name, view in views.items():
            view.copy_(found[name])
    kinds = sorted({str(x.dtype).removeprefix("torch.") for x in found.values()})
    return [] if kinds == ["float32"] else [f"values are of {' and '.join(kinds)}; from here on float32"]


def written(views: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of our tensors as theirs lie: what `fill` reads."""
    return {
        name: view.detach().cpu().clone(memory_format=torch.contiguous_format) for name, view in views.items()
    }
