"""Published GPT weights in and out: names of transformers and places in OpenAI's arrays, and ours."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretune.data.files import listed
from pretune.data.vocab import write_text
from pretune.errors import UserError
from pretune.methods.gpt.encoder import GPT
from pretune.methods.tensor_files import written

Look = Callable[[Tensor], Tensor]  # how ours lies there: a view, so that what is written into it is ours


def same(x: Tensor) -> Tensor:
    return x


def turned(x: Tensor) -> Tensor:
    """They multiply from the left: (in, out)."""
    return x.t()


# fmt: off
EMBEDDINGS: Final = (
    # ours                      transformers             how ours lies there
    ("positions.weight",        "positions_embed.weight",   same),
    ("tokens.weight",           "tokens_embed.weight",      same),
)
BLOCK: Final = (  # in the order of OpenAI's arrays, after the two above; a matrix there has a 1 in front
    # ours: transformer.blocks.{l}.…    transformers: h.{l}.…   how ours lies there
    ("attention.qkv.weight",            "attn.c_attn.weight",   turned),
    ("attention.qkv.bias",              "attn.c_attn.bias",     same),
    ("attention.output.weight",         "attn.c_proj.weight",   turned),
    ("attention.output.bias",           "attn.c_proj.bias",     same),
    ("attention_norm.weight",           "ln_1.weight",          same),
    ("attention_norm.bias",             "ln_1.bias",            same),
    ("up.weight",                       "mlp.c_fc.weight",      turned),
    ("up.bias",                         "mlp.c_fc.bias",        same),
    ("down.weight",                     "mlp.c_proj.weight",    turned),
    ("down.bias",                       "mlp.c_proj.bias",      same),
    ("output_norm.weight",              "ln_2.weight",          same),
    ("output_norm.bias",                "ln_2.bias",            same),
)
# fmt: on
MASK: Final = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$|^position_ids$")  # said by the shape alone
DECODER: Final = "lm_head.weight"
TOKENS: Final = "tokens_embed.weight"
HEADS: Final = ("score.", "multiple_choice_head.")
SPECIALS: Final = 3  # _start_, _delimiter_, _classify_: the last rows of ours
CHUNKS: Final = 10  # files that OpenAI's arrays are cut into


def table(layers: int) -> Iterator[tuple[str, str, Look]]:
    """Our name, theirs, and how ours lies there, in the order of OpenAI's arrays."""
    yield from EMBEDDINGS
    for number in range(layers):
        for ours, theirs, look in BLOCK:
            yield f"transformer.blocks.{number}.{ours}", f"h.{number}.{theirs}", look


def views(encoder: GPT, specials: bool = True) -> dict[str, Tensor]:
    """Our tensors by transformers' names, as they lie there; without `specials` those rows are left out."""
    ours = dict(encoder.named_parameters())
    found = {theirs: look(ours[name].detach()) for name, theirs, look in table(encoder.config.layers)}
    if not specials:
        found[TOKENS] = found[TOKENS][:-SPECIALS]
    return found


def named(tensors: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file of transformers under the names of its base model: the encoder's tensors, the head's.

    With `transformer.` before names or not; masks are dropped; the decoder must be the embedding, or stands
    for it where a file of OpenAIGPTDoubleHeadsModel holds it alone.
    """
    short = {name.removeprefix("transformer."): x for name, x in tensors.items()}
    if len(short) < len(tensors):
        raise UserError(f"{file}: has tensors both with and without transformer. before their names")
    found = {name: x for name, x in short.items() if not MASK.match(name)}
    head = {name: found.pop(name) for name in list(found) if name.startswith(HEADS)}
    decoder = found.pop(DECODER, None)
    if decoder is not None and not torch.equal(found.setdefault(TOKENS, decoder), decoder):
        raise UserError(f"{file}: {DECODER} and {TOKENS} should be equal and are not; GPT ties them")
    if TOKENS not in found:
        raise UserError(f"{file}: no GPT: {TOKENS} is not among its tensors, {listed(list(tensors), 4)}")
    return found, head


def shape_of(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Any]:
    """The settings that shapes say: width, layers, inner, context."""
    numbers = sorted({int(match[1]) for name in tensors if (match := re.match(r"h\.(\d+)\.", name))})
    if numbers != list(range(len(numbers))) or not numbers:
        raise UserError(f"{file}: has the blocks {listed([*map(str, numbers)]) or 'of nothing'}; from 0 on")
    sizes = {}
    for name, said in (
        (TOKENS, "width"),
        ("positions_embed.weight", "context"),
        ("h.0.mlp.c_fc.bias", "inner"),
    ):
        if name not in tensors:
            raise UserError(f"{file}: {name} is missing")
        sizes[said] = int(tensors[name].shape[0 if said == "context" else -1])
    return {**sizes, "layers": len(numbers)}


def read_arrays(folder: Path) -> dict[str, Tensor]:
    """OpenAI's `params_0.npy`, `params_1.npy`, …: one long run of values in pieces, cut anew by
    `params_shapes.json`. Under transformers' names.
    """
    path = folder / "params_shapes.json"
    try:
        shapes = [tuple(map(int, shape)) for shape in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as a list of shapes ({error})") from None
    numbers = sorted(
        int(match[1]) for x in folder.iterdir() if (match := re.match(r"params_(\d+)\.npy$", x.name))
    )
    if numbers != list(range(len(numbers))) or not numbers:
        raise UserError(f"{folder}: params_0.npy and those after it are wanted, each once; found {numbers}")
    values = np.concatenate([_array(folder / f"params_{number}.npy") for number in numbers])
    total = sum(map(prod, shapes))
    if values.size != total:
        raise UserError(
            f"{folder}: {len(numbers)} files of params have {values.size:,} values, params_shapes.json wants "
            f"{total:,}; a file is missing or damaged"
        )
    borders = np.cumsum([prod(shape) for shape in shapes])[:-1]
    parts = [x.reshape(shape) for x, shape in zip(np.split(values, borders), shapes, strict=True)]
    return by_place(parts, path)


def _array(path: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a file of numpy numbers, or damaged ({error})") from None
    if found.dtype.kind != "f":
        raise UserError(f"{path}: holds {found.dtype}; weights are floating-point numbers")
    return found.reshape(-1)


def by_place(arrays: Sequence[NDArray[Any]], file: Path) -> dict[str, Tensor]:
    """Arrays in OpenAI's order under transformers' names; a 1 in front of a matrix is left out."""
    layers, rest = divmod(len(arrays) - len(EMBEDDINGS), len(BLOCK))
    if rest or layers < 1:
        raise UserError(
            f"{file}: {len(arrays)} arrays; a GPT has {len(EMBEDDINGS)} and {len(BLOCK)} more for each block"
        )
    found = {}
    for array, (_, theirs, look) in zip(arrays, table(layers), strict=True):
        if look is turned and array.ndim == 3 and len(array) == 1:
            array = array[0]
        found[theirs] = torch.from_numpy(np.ascontiguousarray(array))
    return found


def read_saved(path: Path, vocabulary: int) -> tuple[dict[str, Tensor], list[str]]:
    """An .npz of what OpenAI's own training saves: the matrix [tokens; three specials; positions], the
    blocks, and the head of its choices, which is left out.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[f"arr_{number}"] for number in range(len(file.files))]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: not the arrays of np.savez(path, *arrays) ({error})") from None
    blocks = (len(arrays) - 1) // len(BLOCK) * len(BLOCK)
    if not arrays or len(arrays) - 1 - blocks not in (0, 2) or arrays[0].ndim != 2:
        raise UserError(f"{path}: {len(arrays)} arrays are no GPT, which is [we, blocks …, clf/w, clf/b]")
    words = vocabulary + SPECIALS
    if len(arrays[0]) <= words:
        raise UserError(
            f"{path}: its first array has {len(arrays[0]):,} rows; {vocabulary:,} tokens, {SPECIALS} more "
            "and the positions are wanted"
        )
    parts = [arrays[0][words:], arrays[0][:words], *arrays[1 : 1 + blocks]]
    left = ["the head of choices (clf) is left out"] if len(arrays) > 1 + blocks else []
    return by_place(parts, path), left


def write_transformers(encoder: GPT, head: bool) -> dict[str, Tensor]:
    """By transformers' names, with all specials, as its models with a head have them."""
    return {f"transformer.{name}" if head else name: x for name, x in written(views(encoder)).items()}


def write_arrays(encoder: GPT, folder: Path) -> None:
    """As OpenAI published: `params_shapes.json` and ten files of values. The specials have no place there."""
    arrays = [
        x.numpy()[None] if look is turned else x.numpy()
        for x, (_, _, look) in zip(
            written(views(encoder, specials=False)).values(), table(encoder.config.layers), strict=True
        )
    ]
    values = np.concatenate([x.reshape(-1) for x in arrays])
    for number, part in enumerate(np.array_split(values, CHUNKS)):
        np.save(folder / f"params_{number}.npy", part, allow_pickle=False)
    write_text(folder / "params_shapes.json", json.dumps([list(x.shape) for x in arrays]) + "\n")
