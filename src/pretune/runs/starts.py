"""Starts: encoders before a task, fresh from a method's sizes or loaded from a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from pretune.config import build, imported, to_dict, update
from pretune.data.rows import Codec
from pretune.data.vocab import Vocab
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.keys import key
from pretune.methods import GUESTS, METHODS
from pretune.methods.base import Method, Vocabulary
from pretune.methods.hub import PRETRAINED, load
from pretune.runs.files import write_json
from pretune.runs.folders import (
    CONFIG,
    FORMAT,
    WEIGHTS,
    load_weights,
    read_config,
    save_weights,
    write_folder,
    write_run,
)
from pretune.runs.guests import called

Corpus = Callable[[], Iterable[str]]


@runtime_checkable
class WordCodec(Codec, Protocol):
    """A codec of words: made of a vocabulary and settings, so that another vocabulary can take its place."""

    vocab: Vocab | None
    config: Any


@dataclass
class Start:
    """An encoder that knows no task yet, with the codec that feeds it."""

    name: str  # scratch, or the folder it came from
    method: Method
    codec: Codec
    encoder: Encoder
    encoder_config: Any

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.encoder.parameters())


def method_named(name: str) -> Method:
    """A method of the table, or somebody else's, whose name is where it is imported from: `module:NAME`."""
    known = METHODS | GUESTS
    if name not in known and ":" not in name:
        raise choose("the method", name, METHODS)
    method: Method = known[name] if name in known else imported(name, "the method")
    return method


def method_to_begin(name: str) -> Method:
    """A method whose encoders can be made anew; guests come pretrained."""
    method = method_named(name)
    if method.name in GUESTS:
        raise UsageError(PRETRAINED)
    return method


def scratch(
    method: Method,
    size: str,
    corpus: Corpus,
    seed: int,
    codec_config: Any = None,
    codec: Codec | None = None,
    encoder_config: Any = None,
) -> Start:
    """A fresh encoder; its codec is learned from `corpus` unless one is given."""
    if method.name in GUESTS:
        raise UsageError(PRETRAINED)
    if encoder_config is None:
        if size not in method.sizes:
            raise choose(f"the size of {method.name}", size, method.sizes)
        encoder_config = method.sizes[size]
    if codec is None:
        codec = method.learn_codec(corpus, codec_config or method.codec_config())
    return Start("scratch", method, codec, fresh(method, encoder_config, codec, seed), encoder_config)


def fresh(method: Method, encoder_config: Any, codec: Codec, seed: int) -> Encoder:
    """New weights, a function of the seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "init"))
        return method.build(encoder_config, codec)


def vectors_start(file: Path, codec: Mapping[str, Any], encoder: Mapping[str, Any]) -> Start:
    """Published word vectors as a start; `codec` and `encoder` hold settings that differ from the file's."""
    from pretune.methods.wordvectors import WordCodecConfig, WordVectorConfig, import_vectors

    for section, said, possible in (
        ("codec", codec, ("language", "segmenter", "lowercase", "max_vocab")),
        ("encoder", encoder, ("pooling",)),
    ):
        for name in said:
            if name not in possible:
                raise UsageError(
                    f"{section}.{name} is fixed by --vectors; only {', '.join(possible)} can be set"
                )
    words = build(WordCodecConfig, codec, "codec")
    shape = build(WordVectorConfig, encoder, "encoder")
    made, network = import_vectors(
        file,
        max_words=words.max_vocab if "max_vocab" in codec else None,
        language=words.language,
        segmenter=words.segmenter,
        lowercase=words.lowercase if "lowercase" in codec else None,
        pooling=shape.pooling,
    )
    return Start(file.name, METHODS["wordvectors"], made, network, network.config)


def guest_start(
    folder: Path, codec_settings: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
) -> Start:
    """What transformers wrote; settings are those that differ from what is found there."""
    codec, encoder = load(folder, codec_settings or {}, settings or {})
    return Start(called(folder), GUESTS["hub"], codec, encoder, encoder.config)


def for_task(start: Start, auxiliary: bool = False) -> Start:
    """A copy to teach a task to; with `auxiliary` what predicts words is kept, to go on learning."""
    encoder = deepcopy(start.encoder) if auxiliary else start.encoder.for_task()
    return replace(start, encoder=encoder, encoder_config=getattr(encoder, "config", start.encoder_config))


def check_adjustable(method: Method, settings: Iterable[str], name: str) -> None:
    """Raise where a setting is one that the weights of the start `name` were made with."""
    for setting in settings:
        if setting not in method.adjustable:
            there = f"; {', '.join(method.adjustable)} can be chosen anew" if method.adjustable else ""
            raise UsageError(f"encoder.{setting} comes with the weights of {name}{there}")


def adjusted(start: Start, settings: Mapping[str, Any]) -> Start:
    """The same weights under other encoder settings, those that no weight depends on, such as dropout."""
    if not settings:
        return start
    check_adjustable(start.method, settings, start.name)
    config = update(start.encoder_config, settings, "encoder")
    encoder = fresh(start.method, config, start.codec, 0)
    encoder.load_state_dict(start.encoder.state_dict())
    return replace(start, encoder=encoder, encoder_config=config)


def side_by_side(starts: Sequence[Start], name: str) -> Start:
    """Several directions as one encoder."""
    method = starts[0].method
    if method.beside is None:
        raise UserError(f"{name}: models of {method.name} cannot stand side by side; --join average")
    codec, encoder, config = method.beside({start.name: (start.codec, start.encoder) for start in starts})
    return Start(name, method, codec, encoder, config)


def adopted(old: Start, corpus: Corpus, vocabulary: Vocabulary | None, seed: int) -> Start:
    """The old weights, ready to learn from `corpus`: under its words ("target"), under the old ones as well
    ("union"), or under those alone ("keep"; a start that has none takes the corpus's).
    """
    method, before = old.method, old.codec
    if method.name in GUESTS:
        raise UsageError(PRETRAINED)
    if not isinstance(before, WordCodec):
        raise UserError(f"{method.name} has no vocabulary of words to learn anew")
    vocabulary = vocabulary or method.vocabulary
    if vocabulary == "union" and getattr(before, "pieces", None) is not None:
        raise UserError(
            f"{old.name} reads pieces, which are learned as a whole and cannot be joined with others; choose "
            "--vocabulary target (new ones; those of the same name keep their vectors) or keep"
        )
    codec: Codec = before
    if vocabulary != "keep" or before.vocab is None:
        codec = method.learn_codec(corpus, before.config)
    if vocabulary == "union" and before.vocab is not None:
        assert isinstance(codec, WordCodec) and codec.vocab is not None
        words = dict.fromkeys([*codec.vocab.words, *before.vocab.words])
        codec = type(codec)(vocab=Vocab(words), config=codec.config)  # type: ignore[call-arg]
    config = method.learner(old.encoder_config)
    encoder = fresh(method, config, codec, seed)
    method.adopt(old.encoder, before, encoder, codec)
    return Start(old.name, method, codec, encoder, config)


def save_start(start: Start | list[Start], folder: Path, info: Mapping[str, Any]) -> None:
    """A pretrained folder, or one with a subfolder for each of several."""

    def fill(new: Path) -> None:
        if isinstance(start, list):
            _fill_members(new, start)
        else:
            _fill(new, start)
        write_run(new, info)

    write_folder(folder, fill)


def _fill_members(folder: Path, starts: list[Start]) -> None:
    write_json(folder / CONFIG, {"kind": "ensemble", "format": FORMAT, "members": [s.name for s in starts]})
    for start in starts:
        (folder / start.name).mkdir()
        _fill(folder / start.name, start)


def _fill(folder: Path, start: Start) -> None:
    write_json(folder / CONFIG, {"kind": "pretrained", **describe(start)})
    save_weights(start.encoder, folder / WEIGHTS)
    start.codec.save(folder)


def describe(start: Start) -> dict[str, Any]:
    """What config.json says of an encoder."""
    return {
        "format": FORMAT,
        "method": start.method.name,
        "encoder": to_dict(start.encoder_config),
        "codec": start.codec.describe(),
    }


def empty_start(folder: Path, config: Mapping[str, Any]) -> Start:
    """The start that config.json describes, its weights still to be loaded."""
    try:
        method = method_named(config["method"])
        encoder_config: Any = build(method.encoder_config, config["encoder"], "encoder")
    except (KeyError, UserError) as error:
        raise UserError(f"{folder / CONFIG}: {error}") from None
    codec = method.load_codec(folder)
    return Start(folder.name, method, codec, fresh(method, encoder_config, codec, 0), encoder_config)


def load_pretrained(folder: Path, config: Mapping[str, Any]) -> Start:
    """A folder of kind "pretrained", or a guest's."""
    if "encoder" not in config and config.get("method") in GUESTS:
        return guest_start(folder)
    start = empty_start(folder, config)
    load_weights(start.encoder, folder / WEIGHTS)
    return start


def is_pretrained(folder: Path) -> bool:
    """Whether a folder, or each member of an ensemble, has learned from text alone and knows no task."""
    config = read_config(folder)
    if config["kind"] != "ensemble":
        return bool(config["kind"] == "pretrained")
    return all(map(is_pretrained, member_folders(folder, config)))


def member_folders(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """The subfolders of an ensemble; one that is missing is an error."""
    found = [folder / Path(str(name)).name for name in config.get("members", [])]
    for member in found:
        if not (member / CONFIG).is_file():
            raise UserError(f"{folder / CONFIG}: its member {member} is missing")
    if not found:
        raise UserError(f"{folder / CONFIG}: an ensemble without members")
    return found
