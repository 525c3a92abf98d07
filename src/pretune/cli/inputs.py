"""What training commands are given: corpora and labelled files; read, checked and noted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from pretune.cli.common import Notes
from pretune.cli.dividing import divided, note_unseen, prints_of
from pretune.errors import UsageError, choose
from pretune.runs.beginning import check_head as check_head
from pretune.runs.beginning import codec_config as codec_config
from pretune.runs.beginning import start_of as start_of
from pretune.runs.beginning import started_from as started_from

if TYPE_CHECKING:
    from pretune.data.corpus import Corpus
    from pretune.data.samples import Sample
    from pretune.methods.base import Method


def directions(method: Method, codec_config: Any, direction: str) -> Any:
    """Codec settings for --direction; two of them for both."""
    from dataclasses import fields

    ways = ("forward", "backward", "both")
    if direction not in ways:
        raise choose("--direction", direction, ways)
    if "direction" not in {field.name for field in fields(codec_config)}:
        if direction != "forward":
            raise UsageError(f"{method.name} has no direction; leave --direction out")
        return codec_config
    if direction == "both":
        return {way: replace(codec_config, direction=way) for way in ways[:2]}
    return replace(codec_config, direction=direction) if direction != "forward" else codec_config


def corpora(
    paths: Sequence[Path], documents: str | None, text: str | None, encoding: str, every: int, quiet: bool
) -> tuple[Corpus, Corpus | None, dict[str, Any]]:
    """Documents to learn from, documents kept for validation, and what run.json says of them.

    Passes over the former are shown while they last, unless `quiet`.
    """
    from pretune.data.corpus import documents as read
    from pretune.data.corpus import hold_out

    ways = ("file", "blank", "line")
    if documents is not None and documents not in ways:
        raise choose("--documents", documents, ways)
    corpus = read(paths, encoding=encoding, split=cast(Any, documents), text=text)
    prints = {"corpus": [str(path) for path in paths], "held_out_every": every}
    if not every:
        return _shown(corpus, quiet), None, prints
    rest, held_out = hold_out(corpus, every)
    return _shown(rest, quiet), held_out, prints


def _shown(corpus: Corpus, quiet: bool) -> Corpus:
    """The same documents. How many there are is known once they have been read to the end."""
    from pretune.training.progress import passed

    known: list[int] = []

    def read() -> Iterator[str]:
        count = 0
        for document in passed(corpus.read(), "reading documents", quiet, *known[:1]):
            yield document
            count += 1
        known.append(count)

    return replace(corpus, read=read)


def labelled(
    train: Path,
    valid: Path | None,
    share: float,
    kind: str | None,
    reading: Mapping[str, Any],
    seed: int,
    notes: Notes,
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """Samples to learn from, samples to validate on, and what run.json says of them."""
    from pretune.data.readers import LabelKind, Reading, read_samples
    from pretune.data.splits import check_labels

    if kind is not None and kind not in get_args(LabelKind):
        raise choose("--kind", kind, get_args(LabelKind))

    def read(path: Path, first: Reading | None) -> Reading:
        return read_samples(path, kind=cast(Any, first.kind if first else kind), **reading)

    found, learn, check = divided(
        read, train, valid, share, seed, notes, stratify=lambda found: found.kind != "number"
    )
    notes(*check_labels(learn, check, found.kind))
    prints = {
        **prints_of(train, learn, valid, check),
        "kind": found.kind,
        "text": list(found.text_columns),
        "label": list(found.label_columns),
        "label_separator": reading["label_separator"],
    }
    return learn, check, prints


def tagged(
    train: Path, valid: Path | None, share: float, reading: Mapping[str, Any], seed: int, notes: Notes
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """The same of files whose words are tagged."""
    from pretune.data.conll import Tagged
    from pretune.data.json_spans import read_tagged
    from pretune.metrics.tagging import scheme_of

    columns = {name: reading[name] for name in ("text", "label", "format", "encoding")}

    def read(path: Path, first: Tagged | None) -> Tagged:
        scheme = scheme_of(sample.gold for sample in first.samples) if first else None
        return read_tagged(path, **columns, scheme=scheme)

    found, learn, check = divided(read, train, valid, share, seed, notes, "sentences")
    note_unseen(learn, check, notes)
    prints = {
        **prints_of(train, learn, valid, check),
        "kind": "tags",
        "text": [found.words_column],
        "label": [found.tags_column],
        "layout": found.layout,
    }
    return learn, check, prints


def several(start: str) -> bool:
    """Whether a folder to start from holds several models."""
    from pretune.runs.folders import read_config

    return start != "scratch" and read_config(Path(start))["kind"] == "ensemble"
