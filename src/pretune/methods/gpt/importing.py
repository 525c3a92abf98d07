"""A published GPT as a codec, an encoder and, of a finetuned one, its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

from pretune.config import build, update
from pretune.data.files import check_exists, listed
from pretune.errors import UsageError, UserError, choose
from pretune.keys import generator
from pretune.methods.gpt import files
from pretune.methods.gpt.encoder import GPT, GPTConfig
from pretune.methods.gpt.tokens import CLASSIFY, SPECIALS, GPTCodec
from pretune.methods.gpt.weights import TOKENS, named, read_arrays, read_saved, shape_of, views
from pretune.methods.published_config import activation_of, settings_of
from pretune.methods.tensor_files import fill, read_folder, read_json, unfilled, weights_of

Layout = Literal["original", "transformers"]

# fmt: off
NAMES: Final = (
    # theirs                    ours
    ("n_embd",                  "width"),
    ("n_layer",                 "layers"),
    ("n_head",                  "heads"),
    ("n_positions",             "context"),
    ("n_ctx",                   "context"),
    ("layer_norm_epsilon",      "norm_eps"),
    ("embd_pdrop",              "embedding_dropout"),
    ("attn_pdrop",              "attention_dropout"),
    ("resid_pdrop",             "residual_dropout"),
)
# fmt: on
ACTIVATIONS: Final = {"gelu": "gelu_tanh", "gelu_new": "gelu_tanh"}  # this model's "gelu" is the one by tanh
POSITIONS: Final = "positions_embed.weight"
PRETOKENIZERS: Final[Mapping[Layout, str]] = {"original": "original", "transformers": "hf"}
AUTHORS: Final[Mapping[Layout, str]] = {"original": "OpenAI", "transformers": "transformers"}
SHAPES: Final = "params_shapes.json"
ALONE: Final = {"marks": False, "cut": "longest"}  # as classifiers of transformers read texts
DEVIATION: Final = 0.02  # of new rows, as the release draws those of its special tokens


@dataclass(frozen=True)
class Imported:
    """What was read; `head` is empty where there was none."""

    codec: GPTCodec
    encoder: GPT
    head: Mapping[str, Tensor]  # score.weight, or those of another task
    config: Mapping[str, Any]  # of the file; empty where there is none
    layout: Layout
    notes: list[str]


class Files(NamedTuple):
    """What lies in a folder."""

    folder: Path  # of the vocabulary
    weights: Path
    tensors: dict[str, Tensor]
    layout: Layout
    head: Mapping[str, Tensor]
    config: Mapping[str, Any]
    notes: list[str]
    specials: bool = False  # whether their rows are there, whatever the vocabulary says


def import_gpt(
    source: Path,
    codec: Mapping[str, Any],
    encoder: Mapping[str, Any],
    seed: int = 0,
    encoder_only: bool = False,
) -> Imported:
    """`codec` and `encoder` hold settings that differ from what the files say; `seed` draws the vectors of
    special tokens that they lack. `encoder_only` leaves the head out.
    """
    read = _read(source)
    if "score.weight" in read.head and not encoder_only and not _framed(read.folder):
        codec, encoder = {**ALONE, **codec}, {"summary": "last", **encoder}
    file = read.folder / "config.json"
    shape = shape_of(read.tensors, read.weights)
    settings = settings_of(read.config, NAMES, shape, encoder, file)
    if "activation" not in settings:
        settings["activation"] = activation_of(read.config, "afn", ACTIVATIONS, "gelu", file)
    made = _codec(read.folder, codec, settings["context"], read.layout)
    tensors, own, notes = _rows(read, made)
    if shape["context"] > settings["context"]:
        notes.append(f"positions from {settings['context']} on are left out")
        tensors[POSITIONS] = tensors[POSITIONS][: settings["context"]]
    config = build(GPTConfig, settings, "encoder")
    network = unfilled(lambda: GPT(config, made.size, made.classify_id))
    notes += fill(views(network, specials=own), tensors, read.weights)
    if not own:
        chance = generator(seed, "special tokens")
        with torch.no_grad():
            network.tokens.weight[-len(SPECIALS) :].normal_(0, DEVIATION, generator=chance)
        notes.append(f"the vectors of {', '.join(SPECIALS)} are new (seed {seed}): the file has none")
    said = [_summary(network, read.layout), _words(made, codec, read.layout)]
    return Imported(made, network, read.head, read.config, read.layout, [*said, *read.notes, *notes])


def _framed(folder: Path) -> bool:
    """Whether the tokenizer puts texts between `_start_` and `_classify_`."""
    path = folder / files.WHOLE
    template = (read_json(path).get("post_processor") or {}).get("single", []) if path.is_file() else []
    return [*template[-1:]] == [{"SpecialToken": {"id": CLASSIFY, "type_id": 0}}]


def _summary(network: GPT, layout: Layout) -> str:
    config, parameters = network.config, sum(x.numel() for x in network.parameters())
    return (
        f"{parameters:,} parameters, laid out as by {AUTHORS[layout]}: {len(network.tokens.weight):,} pieces "
        f"of {config.width:,} values, {config.layers} blocks of {config.heads} heads, {config.context:,} "
        "positions"
    )


def _words(codec: GPTCodec, said: Mapping[str, Any], layout: Layout) -> str:
    whose = (
        "" if "pretokenizer" in said else f", as by {AUTHORS[layout]}; codec.pretokenizer=… says otherwise"
    )
    return f"words are found by the pretokenizer {codec.config.pretokenizer!r}{whose}"


def _read(source: Path) -> Files:
    check_exists(source)
    if source.is_file():
        _refuse_pickle(source)
        if source.suffix != ".npz":
            raise UserError(f"{source} is a file; give the folder of weights and vocabulary, or an .npz")
        tensors, notes = read_saved(source, len(files.read(source.parent)[0]))
        return Files(source.parent, source, tensors, "original", {}, {}, notes, specials=True)
    for folder in (source, source / "model"):
        if (folder / SHAPES).is_file():
            return Files(folder, folder / SHAPES, read_arrays(folder), "original", {}, {}, [])
    if weights_of(source) is None:
        for path in sorted(source.glob("*.jl")):
            _refuse_pickle(path)
    weights, found = read_folder(source)
    tensors, head = named(found, weights)
    config = read_json(source / "config.json") if (source / "config.json").is_file() else {}
    kind = config.get("model_type", "openai-gpt")
    if kind != "openai-gpt":
        raise UserError(
            f"{source}: model_type is {kind!r}, not openai-gpt; it can be a guest of the method hub"
        )
    return Files(source, weights, tensors, "transformers", head, config, [])


def _refuse_pickle(path: Path) -> None:
    if path.suffix in (".jl", ".pkl", ".pickle", ".joblib"):
        raise UserError(
            f"{path}: a pickle of joblib, whose code would have to run. Where it came from, run python -c "
            f"\"import joblib, numpy; numpy.savez('{path.stem}.npz', *joblib.load('{path.name}'))\" and "
            "import the .npz, with the vocabulary's files beside it"
        )


def _codec(folder: Path, said: Mapping[str, Any], context: int, layout: Layout) -> GPTCodec:
    pretokenizer = said.get("pretokenizer", PRETOKENIZERS[layout])
    possible = ("builtin", "original", "hf")
    if pretokenizer not in possible:
        raise choose("codec.pretokenizer", pretokenizer, possible)
    made = GPTCodec.read(folder, pretokenizer, context)
    if more := {name: x for name, x in said.items() if name != "pretokenizer"}:
        if "merges" in more:
            raise UsageError("codec.merges is said by the file; leave it out")
        made = GPTCodec(update(made.config, more, "codec"), made.vocab, made.merges)
    if made.config.context > context:
        raise UsageError(f"codec.context is {made.config.context}; the model has {context} positions")
    return made


def _rows(read: Files, codec: GPTCodec) -> tuple[dict[str, Tensor], bool, list[str]]:
    """The tensors with a row for each piece, whether those of the special tokens are among them, and what
    was left out.
    """
    rows, added = len(read.tensors[TOKENS]), _added(read.folder)
    plain = codec.size - len(SPECIALS)
    own = read.specials or codec.size == len(files.read(read.folder)[0])  # which itself ends with them
    own = own or [added.get(plain + number) for number in range(len(SPECIALS))] == list(SPECIALS)
    wanted = codec.size if own else plain
    if rows < wanted:
        raise UserError(
            f"{read.folder}: the vocabulary has {wanted:,} pieces, {read.weights.name} rows for {rows:,}; "
            "they do not belong together"
        )
    notes = []
    if rows > wanted:
        names = [added[number] for number in range(wanted, rows) if number in added]
        whose = f"of the added tokens {listed(names)}" if names else "that no piece of the vocabulary has"
        notes.append(f"{rows - wanted:,} rows {whose} are left out")
    return {**read.tensors, TOKENS: read.tensors[TOKENS][:wanted]}, own, notes


def _added(folder: Path) -> dict[int, str]:
    """Tokens that were added to a tokenizer of transformers, by their ids."""
    found: dict[int, str] = {}
    if (folder / "tokenizer.json").is_file():
        for token in read_json(folder / "tokenizer.json").get("added_tokens") or ():
            found[int(token["id"])] = str(token["content"])
    if (folder / "added_tokens.json").is_file():
        found |= {int(number): name for name, number in read_json(folder / "added_tokens.json").items()}
    return found
