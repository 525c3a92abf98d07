"""Published BERT weights in and out: names of transformers and of Google's checkpoints, and ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from pretune.data.bundle_writer import write_bundle
from pretune.data.files import listed
from pretune.data.tensor_bundle import TensorBundle
from pretune.errors import UserError
from pretune.methods.bert.encoder import BERT
from pretune.methods.tensor_files import written

Look = Callable[[Tensor], Tensor]  # how ours lies there: a view, so that what is written into it is ours


def same(x: Tensor) -> Tensor:
    return x


def query(x: Tensor) -> Tensor:
    return x.chunk(3)[0]


def key(x: Tensor) -> Tensor:
    return x.chunk(3)[1]


def value(x: Tensor) -> Tensor:
    return x.chunk(3)[2]


# fmt: off
EMBEDDINGS: Final = (
    # ours                      transformers: bert.…                            how ours lies there
    ("words.weight",            "embeddings.word_embeddings.weight",            same),
    ("positions.weight",        "embeddings.position_embeddings.weight",        same),
    ("types.weight",            "embeddings.token_type_embeddings.weight",      same),
    ("embedding_norm.weight",   "embeddings.LayerNorm.weight",                  same),
    ("embedding_norm.bias",     "embeddings.LayerNorm.bias",                    same),
)
BLOCK: Final = (
    # ours: transformer.blocks.{l}.…  transformers: bert.encoder.layer.{l}.…    how ours lies there
    ("attention.qkv.weight",    "attention.self.query.weight",                  query),
    ("attention.qkv.bias",      "attention.self.query.bias",                    query),
    ("attention.qkv.weight",    "attention.self.key.weight",                    key),
    ("attention.qkv.bias",      "attention.self.key.bias",                      key),
    ("attention.qkv.weight",    "attention.self.value.weight",                  value),
    ("attention.qkv.bias",      "attention.self.value.bias",                    value),
    ("attention.output.weight", "attention.output.dense.weight",                same),
    ("attention.output.bias",   "attention.output.dense.bias",                  same),
    ("attention_norm.weight",   "attention.output.LayerNorm.weight",            same),
    ("attention_norm.bias",     "attention.output.LayerNorm.bias",              same),
    ("up.weight",               "intermediate.dense.weight",                    same),
    ("up.bias",                 "intermediate.dense.bias",                      same),
    ("down.weight",             "output.dense.weight",                          same),
    ("down.bias",               "output.dense.bias",                            same),
    ("output_norm.weight",      "output.LayerNorm.weight",                      same),
    ("output_norm.bias",        "output.LayerNorm.bias",                        same),
)
POOLER: Final = (
    ("pooler.weight",           "pooler.dense.weight",                          same),
    ("pooler.bias",             "pooler.dense.bias",                            same),
)
HEADS: Final = (  # without bert. in front
    ("mlm_transform.weight",    "cls.predictions.transform.dense.weight",       same),
    ("mlm_transform.bias",      "cls.predictions.transform.dense.bias",         same),
    ("mlm_norm.weight",         "cls.predictions.transform.LayerNorm.weight",   same),
    ("mlm_norm.bias",           "cls.predictions.transform.LayerNorm.bias",     same),
    ("mlm_bias",                "cls.predictions.bias",                         same),
    ("nsp.weight",              "cls.seq_relationship.weight",                  same),
    ("nsp.bias",                "cls.seq_relationship.bias",                    same),
)
TENSORFLOW: Final = (  # transformers' names to Google's; dots are slashes there
    (r"^encoder\.layer\.(\d+)\.",               r"encoder.layer_\1."),
    (r"_embeddings\.weight$",                   "_embeddings"),
    (r"LayerNorm\.weight$",                     "LayerNorm.gamma"),
    (r"LayerNorm\.bias$",                       "LayerNorm.beta"),
    (r"(dense|query|key|value)\.weight$",       r"\1.kernel"),          # turned: (in, out)
    (r"^cls\.predictions\.bias$",               "cls.predictions.output_bias"),
    (r"^cls\.seq_relationship\.weight$",        "cls.seq_relationship.output_weights"),
    (r"^cls\.seq_relationship\.bias$",          "cls.seq_relationship.output_bias"),
)
CLASSIFIER: Final = {"output_weights": "classifier.weight", "output_bias": "classifier.bias"}
# fmt: on
TRAINING: Final = re.compile(r"(^|/)(adam_[mv]|global_step|power_\d|beta\d_power|AdamWeightDecay\w*)(_\d+)?$")
LAYER: Final = re.compile(r"^encoder\.layer\.(\d+)\.")
GOOGLES: Final = "bert/embeddings/word_embeddings"
SIZES: Final = (  # setting, a tensor that says it, on which side
    ("width", "embeddings.word_embeddings.weight", 1),
    ("context", "embeddings.position_embeddings.weight", 0),
    ("types", "embeddings.token_type_embeddings.weight", 0),
    ("inner", "encoder.layer.0.intermediate.dense.bias", 0),
)
DROPPED: Final = re.compile(r"^embeddings\.position_ids$")  # said by the shape alone
WORDS: Final = "embeddings.word_embeddings.weight"
DECODER: Final = "cls.predictions.decoder.weight"
MLM, NSP = "cls.predictions.", "cls.seq_relationship."


def table(layers: int, pooler: bool = True, heads: bool = True) -> Iterator[tuple[str, str, Look]]:
    """Our name, transformers' without bert., and how ours lies there."""
    yield from EMBEDDINGS
    for number in range(layers):
        for ours, theirs, look in BLOCK:
            yield f"transformer.blocks.{number}.{ours}", f"encoder.layer.{number}.{theirs}", look
    yield from POOLER if pooler else ()
    yield from HEADS if heads else ()


def views(encoder: BERT) -> dict[str, Tensor]:
    """Our tensors by transformers' names without bert., as they lie there."""
    ours = dict(encoder.named_parameters())
    config = encoder.config
    rows = table(config.layers, config.pooler, config.pretraining_heads)
    return {theirs: look(ours[name].detach()) for name, theirs, look in rows}


def named(tensors: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file of transformers under the names of `views`: the encoder's tensors, the head's.

    With `bert.` before names or not, norms called gamma and beta or weight and bias; a decoder that is there
    once more must be equal to what it is tied to.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name.removeprefix("bert."))
        short = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", short)
        if short in found:
            raise UserError(f"{file}: {short} is there twice, the second time as {name}")
        if not DROPPED.match(short):
            found[short] = tensor
    tied = ((DECODER, WORDS), ("cls.predictions.decoder.bias", "cls.predictions.bias"))
    for copy, original in tied:
        if copy in found and not torch.equal(found.setdefault(original, found[copy]), found[copy]):
            raise UserError(f"{file}: {copy} and {original} should be equal and are not; BERT ties them")
        found.pop(copy, None)
    if WORDS not in found:
        raise UserError(f"{file}: no BERT: {WORDS} is not among its tensors, {listed(list(tensors), 4)}")
    body = ("embeddings.", "encoder.", "pooler.", "cls.predictions.", "cls.seq_relationship.")
    head = {name: found.pop(name) for name in list(found) if not name.startswith(body)}
    return found, head


def shape_of(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Any]:
    """The settings that shapes and names say."""
    numbers = sorted({int(match[1]) for name in tensors if (match := LAYER.match(name))})
    if numbers != list(range(len(numbers))) or not numbers:
        raise UserError(f"{file}: has the layers {listed([*map(str, numbers)]) or 'of nothing'}; from 0 on")
    sizes = {}
    for said, name, side in SIZES:
        if name not in tensors:
            raise UserError(f"{file}: {name} is missing")
        sizes[said] = int(tensors[name].shape[side])
    return {**sizes, "layers": len(numbers)}


def tensorflow(name: str) -> str:
    """Google's name of the variable that transformers call `name`, without bert. in front."""
    for pattern, theirs in TENSORFLOW:
        name = re.sub(pattern, theirs, name)
    return name.replace(".", "/")


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """A checkpoint of Google's code, read without TensorFlow: the encoder's tensors under the names of
    `views`, the head's, and what the reader should know.
    """
    bundle = TensorBundle(path)
    layers = {int(match[1]) for name in bundle.shapes if (match := re.search(r"/layer_(\d+)/", name))}
    known = {tensorflow(name): name for _, name, _ in table(max(layers, default=-1) + 1)} | CLASSIFIER
    found, left = {}, 0
    for name in bundle.shapes:
        if TRAINING.search(name):
            left += 1
            continue
        tensor = torch.from_numpy(bundle.read(name))
        theirs = known.get(re.sub("^bert/", "", name), name)
        found[theirs] = tensor.t() if name.endswith("/kernel") else tensor
    if WORDS not in found:
        names = listed(list(found), 3) or "nothing that is no variable of training"
        raise UserError(
            f"{path}: no checkpoint of Google's BERT, for there is no {GOOGLES}; it holds {names}"
        )
    encoder, head = named(found, path)
    return encoder, head, [f"{left} variables that only training needs are left out"] if left else []


def write_transformers(encoder: BERT, prefix: str) -> dict[str, Tensor]:
    """By transformers' names: `prefix` before those of the body, bert. in models with a head."""
    found = written(views(encoder))
    return {name if name.startswith((MLM, NSP)) else prefix + name: x for name, x in found.items()}


def write_checkpoint(encoder: BERT, path: Path, head: Mapping[str, Tensor]) -> None:
    """As Google's code saves: PATH.index and PATH.data-00000-of-00001. `head` by transformers' names."""
    googles = {theirs: name for name, theirs in CLASSIFIER.items()}
    arrays = {googles[name]: x.numpy() for name, x in written(head).items()}
    for name, tensor in written(views(encoder)).items():
        called = tensorflow(name)
        body = "" if called.startswith("cls/") else "bert/"
        arrays[body + called] = (tensor.t() if called.endswith("/kernel") else tensor).contiguous().numpy()
    write_bundle(path, arrays)
