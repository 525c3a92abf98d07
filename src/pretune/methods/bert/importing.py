"""A published BERT as a codec, an encoder and, of a finetuned one, its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from pretune.config import build
from pretune.data.files import check_exists, listed
from pretune.errors import UsageError, UserError
from pretune.keys import key
from pretune.methods.bert.encoder import BERT, BERTConfig
from pretune.methods.bert.tokens import BERTCodec, BERTCodecConfig, is_cased, read_vocab
from pretune.methods.bert.weights import MLM, NSP, WORDS, named, read_checkpoint, shape_of, views
from pretune.methods.published_config import activation_of, settings_of
from pretune.methods.tensor_files import fill, read_folder, read_json, unfilled, weights_of

# fmt: off
NAMES: Final = (
    # theirs                            ours
    ("hidden_size",                     "width"),
    ("num_hidden_layers",               "layers"),
    ("num_attention_heads",             "heads"),
    ("intermediate_size",               "inner"),
    ("max_position_embeddings",         "context"),
    ("type_vocab_size",                 "types"),
    ("layer_norm_eps",                  "norm_eps"),
    ("hidden_dropout_prob",             "dropout"),
    ("attention_probs_dropout_prob",    "attention_dropout"),
)
ACTIVATIONS: Final = {
    "gelu": "gelu", "gelu_python": "gelu",
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
}
# fmt: on
PLAIN: Final = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
TOKENIZERS: Final = ("BertTokenizer", "PreTrainedTokenizer", "TokenizersBackend")  # also with Fast behind


@dataclass(frozen=True)
class Imported:
    """What was read; `head` is empty where there was none."""

    codec: BERTCodec
    encoder: BERT
    head: Mapping[str, Tensor]  # classifier.weight and classifier.bias, or those of another task
    config: Mapping[str, Any]  # of the file
    notes: list[str]


def import_bert(
    folder: Path,
    codec: Mapping[str, Any],
    encoder: Mapping[str, Any],
    checkpoint: Path | None = None,
    vocab: Path | None = None,
    seed: int = 0,
) -> Imported:
    """`codec` and `encoder` hold settings that differ from what the files say. `seed` draws what a file of
    BertForMaskedLM lacks of the heads.
    """
    check_exists(folder)
    config_file, config = _config(folder)
    if checkpoint is None and weights_of(folder) is not None:
        file, tensors = read_folder(folder)
        found, head = named(tensors, file)
        notes: list[str] = []
        layout = "transformers"
    else:
        file = checkpoint or _checkpoint(folder)
        found, head, notes = read_checkpoint(file)
        layout = "tensorflow"
    shape = shape_of(found, file)
    settings = settings_of(config, NAMES, shape, encoder, config_file)
    if "activation" not in settings:
        settings["activation"] = activation_of(config, "hidden_act", ACTIVATIONS, "gelu", config_file)
    if layout == "tensorflow" and settings["activation"] == "gelu":
        notes.append("GELU is the exact one, of 2018's code; encoder.activation=gelu_tanh is the one since")
    made = _codec(folder, vocab, codec, settings["context"], layout, notes)
    found = _cut(found, made.size, settings["context"], file, notes)
    network = _network(found, settings, made, file, seed, notes)
    parameters = sum(x.numel() for x in network.parameters())
    shown = network.config
    whose = {"transformers": "transformers", "tensorflow": "Google"}[layout]
    notes.insert(
        0,
        f"{parameters:,} parameters, laid out as by {whose}: {made.size:,} pieces of {shown.width:,} values, "
        f"{shown.layers} blocks of {shown.heads} heads, {shown.context:,} positions",
    )
    return Imported(made, network, head, config, notes)


def _config(folder: Path) -> tuple[Path, dict[str, Any]]:
    """transformers' config.json or Google's bert_config.json."""
    for name in ("config.json", "bert_config.json"):
        path = folder / name
        if path.is_file():
            config = read_json(path)
            kind = config.get("model_type", "bert")
            if kind != "bert":
                raise UserError(
                    f"{path}: model_type is {kind!r}, not bert; it can be a guest of the method hub"
                )
            for setting, plain in PLAIN.items():
                if config.get(setting, plain) != plain:
                    raise UserError(
                        f"{path}: {setting} is {config[setting]!r}; only {plain!r} is BERT as published"
                    )
            return path, config
    raise UserError(
        f"{folder}: no config.json or bert_config.json there, which says how many heads there are"
    )


def _checkpoint(folder: Path) -> Path:
    names = sorted(path.name for path in folder.glob("*.index"))
    if not names:
        raise UserError(f"{folder}: no model.safetensors, pytorch_model.bin or *.ckpt.index there")
    if len(names) > 1:
        raise UserError(f"{folder} holds {listed(names)}; say which one with --checkpoint")
    return folder / names[0]


def _codec(
    folder: Path,
    vocab: Path | None,
    said: Mapping[str, Any],
    context: int,
    layout: str,
    notes: list[str],
) -> BERTCodec:
    """Text as the file's users had it read: by the tokenizer's files, else by the vocabulary's case."""
    words, settings = _published_words(folder, vocab)
    if layout == "tensorflow":
        settings.setdefault("style", "google")
    if "lowercase" not in {**settings, **said}:
        settings["lowercase"] = not is_cased(words)
        case = "small letters" if settings["lowercase"] else "letters as they are"
        notes.append(f"text is read in {case}, as the vocabulary has them; codec.lowercase says otherwise")
    settings = {"style": "hf", "context": context, "vocab_size": len(words), **settings, **said}
    config = build(BERTCodecConfig, settings, "codec")
    if config.context > context:
        raise UsageError(f"codec.context is {config.context}; the model has {context} positions")
    return BERTCodec(config, words)


def _published_words(folder: Path, vocab: Path | None) -> tuple[list[str], dict[str, Any]]:
    """The pieces in the order of their ids, and what the files of the tokenizer say of reading."""
    settings: dict[str, Any] = {}
    about, whole = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if about.is_file():
        settings |= _by_config(about)
    if whole.is_file():
        words, more = _by_tokenizer(whole)
        settings |= more
    path = vocab or folder / "vocab.txt"
    if vocab is None and not path.is_file() and whole.is_file():
        return words, settings
    return read_vocab(path), settings


def _by_config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    kind = config.get("tokenizer_class") or TOKENIZERS[0]
    if str(kind).removesuffix("Fast") not in TOKENIZERS:
        raise UserError(
            f"{path}: text is cut by {kind}, not by BERT's rules; it can be a guest of the method hub"
        )
    if config.get("tokenize_chinese_chars", True) is False:
        raise UserError(f"{path}: tokenize_chinese_chars is false; BERT as published reads ideographs alone")
    found = {}
    for theirs, ours in (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents")):
        if isinstance(config.get(theirs), bool):
            found[ours] = config[theirs]
    return found


def _by_tokenizer(path: Path) -> tuple[list[str], dict[str, Any]]:
    whole = read_json(path)
    model, normalizer = whole.get("model") or {}, whole.get("normalizer") or {}
    before = whole.get("pre_tokenizer") or {}
    kinds = model.get("type", "WordPiece"), normalizer.get("type"), before.get("type")
    if kinds != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
        raise UserError(
            f"{path}: text is cut by {', '.join(map(str, kinds))}, not by BERT's rules; it can be a guest of "
            "the method hub"
        )
    if normalizer.get("handle_chinese_chars") is False or normalizer.get("clean_text") is False:
        raise UserError(
            f"{path}: BERT as published cleans text and reads ideographs alone; this one does not"
        )
    found: dict[str, Any] = {"lowercase": bool(normalizer.get("lowercase"))}
    if isinstance(normalizer.get("strip_accents"), bool):
        found["strip_accents"] = normalizer["strip_accents"]
    if model.get("max_input_chars_per_word") == 200:
        found["style"] = "google"
    ids = dict(model.get("vocab") or {})
    words = sorted(ids, key=ids.__getitem__)
    if [ids[word] for word in words] != list(range(len(words))):
        raise UserError(f"{path}: its ids are not the numbers 0 to {len(words) - 1:,}, each once")
    return words, found


def _cut(
    found: Mapping[str, Tensor], words: int, context: int, file: Path, notes: list[str]
) -> dict[str, Tensor]:
    """Without rows that no word has, which round up the size, and without positions that are not wanted."""
    rows = len(found[WORDS])
    if rows < words:
        raise UserError(
            f"the vocabulary has {words:,} pieces, {file} rows for {rows:,}; they do not belong together"
        )
    if rows > words:
        notes.append(f"{rows - words:,} rows that no piece of the vocabulary has are left out")
    most = {
        WORDS: words,
        "cls.predictions.bias": words,
        "embeddings.position_embeddings.weight": context,
    }
    positions = len(found["embeddings.position_embeddings.weight"])
    if positions > context:
        notes.append(f"positions from {context} on are left out, {positions - context:,} of them")
    return {name: x[: most[name]] if name in most else x for name, x in found.items()}


def _network(
    found: dict[str, Tensor],
    settings: dict[str, Any],
    codec: BERTCodec,
    file: Path,
    seed: int,
    notes: list[str],
) -> BERT:
    """The encoder with the heads that the file has; `found` loses what is not wanted."""
    pooler = "pooler.dense.weight" in found and settings.get("pooler", True)
    mlm = any(name.startswith(MLM) for name in found) and settings.get("pretraining_heads", True)
    heads = mlm and settings.get("pooler", True)
    config = build(BERTConfig, {**settings, "pooler": pooler or heads, "pretraining_heads": heads}, "encoder")
    for part, names, kept in (
        ("the pooler", ("pooler.",), config.pooler),
        ("the heads of pretraining", (MLM, NSP), config.pretraining_heads),
    ):
        gone = [name for name in found if name.startswith(names)]
        if gone and not kept:
            notes.append(f"{part}, {len(gone)} tensors, {'is' if part == 'the pooler' else 'are'} left out")
            for name in gone:
                del found[name]
    lacking = [
        (prefix, what)
        for prefix, what in (("pooler.", "a pooler"), (NSP, "a classifier of next sentences"))
        if heads and not any(name.startswith(prefix) for name in found)
    ]
    encoder = _fresh(config, codec, seed) if lacking else unfilled(lambda: _built(config, codec))
    wanted = views(encoder)
    for prefix, what in lacking:
        wanted = {name: x for name, x in wanted.items() if not name.startswith(prefix)}
        notes.append(f"the file has not {what}, which is new (seed {seed})")
    if not config.pooler:
        notes.append("there is no pooler: the summary of a text is the top vector of [CLS]")
    notes += fill(wanted, found, file)
    return encoder


def _built(config: BERTConfig, codec: BERTCodec) -> BERT:
    return BERT(config, codec.size, codec.pad_id, codec.mask_id)


def _fresh(config: BERTConfig, codec: BERTCodec, seed: int) -> BERT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "init"))
        return _built(config, codec)
