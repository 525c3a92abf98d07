"""A published ULMFiT as a codec, an encoder and, of a classifier, its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pretune.config import build
from pretune.data.vocab import Vocab
from pretune.errors import UsageError, UserError, choose
from pretune.methods.ulmfit.encoder import AWDLSTM
from pretune.methods.ulmfit.generations import Layout, vocabulary_of
from pretune.methods.ulmfit.heads import PublishedHead, head_of
from pretune.methods.ulmfit.pieces import NAME, published_words, read_sentencepiece
from pretune.methods.ulmfit.published import Words, read_tensors, read_words
from pretune.methods.ulmfit.release import Files
from pretune.methods.ulmfit.rules import Rules
from pretune.methods.ulmfit.tokens import UlmfitCodec, UlmfitCodecConfig
from pretune.methods.ulmfit.weights import Published, encoder_of, published

CHUNKS: Mapping[Layout, tuple[int, int]] = {"v2": (72, 1440)}  # bptt and max_len of classifiers; else ours


@dataclass(frozen=True)
class Imported:
    """What was read; `head` is None where there was none, or where it was not wanted."""

    codec: UlmfitCodec
    encoder: AWDLSTM
    head: PublishedHead | None
    labels: tuple[str, ...] | None
    notes: list[str]


def import_ulmfit(
    files: Files, codec: Mapping[str, Any], encoder: Mapping[str, Any], encoder_only: bool = False
) -> Imported:
    """`codec` and `encoder` hold settings that differ from what the files say."""
    found = published(read_tensors(files.weights), files.weights)
    pieces = None if files.pieces is None else read_sentencepiece(files.pieces)
    words, whence = _words(files, found)
    if len(words.words) != found.words:
        raise UserError(
            f"{whence} has {len(words.words):,} words, {files.weights} rows for {found.words:,}; they do not "
            "belong together"
        )
    rules: Rules | None = codec.get("rules")
    if rules is not None and rules not in get_args(Rules):
        raise choose("--rules", rules, get_args(Rules))
    vocabulary = vocabulary_of(words.words, found.layout, rules, pieces is not None)
    if found.head:
        bptt, max_len = CHUNKS.get(found.layout, (70, 1400))
        encoder = {"bptt": bptt, "max_len": max_len, **encoder}
    network, notes = encoder_of(found, encoder, vocabulary.added)
    way, said = _direction(files, codec)
    settings = {**codec, "direction": way, "rules": vocabulary.rules}
    if pieces is not None:
        settings = {"segmenter": NAME, **settings}
        if network.config.cell == "qrnn" and "mark_fields" not in settings:
            settings["mark_fields"] = True
            said.append("xxfld 1 stands before texts, as in MultiFiT; codec.mark_fields=false leaves it out")
    made = UlmfitCodec(build(UlmfitCodecConfig, settings, "codec"), Vocab(vocabulary.words), pieces)
    notes = [*notes, *found.notes, *vocabulary.notes, *said]
    head = None
    if found.head and not encoder_only:
        head, more = head_of(found.head, network.summary_width, files.weights)
        notes = [*notes, *more]
    elif found.head:
        notes.append(f"the head of a classifier, {len(found.head)} tensors, is left out")
    elif encoder_only and "embedding.decoder_bias" in found.encoder:
        notes.append("there is no head to leave out; the decoder stays, which is tied to the encoder")
    return Imported(made, network, head, words.labels, notes)


def _words(files: Files, found: Published) -> tuple[Words, Path]:
    if files.vocab is not None:
        return read_words(files.vocab), files.vocab
    if files.pieces is not None:
        return Words(published_words(files.pieces)), files.pieces
    folder = files.weights.parent
    near = [
        path.name
        for path in sorted(folder.glob("*"))
        if path.suffix in (".pkl", ".json", ".txt") and ("itos" in path.name or "vocab" in path.name)
    ]
    hint = f", such as {folder / near[0]}" if near else ""
    raise UsageError(
        f"--vocab is missing: {found.words:,} rows of words, and nothing says which words; give the "
        f"itos.pkl of these weights{hint}"
    )


def _direction(files: Files, codec: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What was asked for, else what names say."""
    asked = codec.get("direction")
    if asked is None:
        way = files.way or "forward"
        return way, [f"{files.weights.name} reads backward, by its name"] if way == "backward" else []
    if files.way not in (None, asked):
        return asked, [f"{files.weights.name} is named as if it read {files.way}; it is taken as {asked}"]
    return asked, []
