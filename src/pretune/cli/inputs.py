"""What training commands are given: corpora, labelled files, starts; read, checked and noted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from pretune.cli.common import Notes
from pretune.cli.dividing import divided, note_unseen, prints_of
from pretune.errors import UsageError, choose

if TYPE_CHECKING:
    from pretune.data.corpus import Corpus, Documents
    from pretune.data.samples import Sample
    from pretune.methods.base import Method
    from pretune.runs.starts import Start


def codec_config(method: Method, changes: Mapping[str, Any], language: str | None) -> Any:
    from pretune.config import build

    return build(method.codec_config, {"language": language or "auto", **changes}, "codec")


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


def texts_of(samples: Sequence[Sample]) -> Documents:
    """Their texts as a corpus to learn a vocabulary from."""
    return lambda: (text for sample in samples for text in sample.texts)


def check_head(task: object, said: Mapping[str, Any]) -> None:
    """Raise where settings are of another head than the task has."""
    from pretune.tasks.head_kinds import ONLY_OF, of_another_head

    kind = getattr(task, "head_kind", None)
    for name, heads in ONLY_OF.items():
        if kind is not None and name in said and kind not in heads:
            raise of_another_head(name, kind)


def start_of(said: str, method: str | None) -> str:
    """What --from means: of `en` or `zh` the starter of `method`, else as it is."""
    from pretune.runs.starters import is_language, of_language

    return of_language(said, [method or "ulmfit"])[0].name if is_language(said) else said


def several(start: str) -> bool:
    """Whether a folder to start from holds several models."""
    from pretune.runs.folders import read_config

    return start != "scratch" and read_config(Path(start))["kind"] == "ensemble"


def started_from(
    name: str,
    join: str,
    method: str | None,
    size: str,
    vectors: Path | None,
    language: str | None,
    said: Mapping[str, Mapping[str, Any]],
    samples: Sequence[Sample],
    seed: int,
    notes: Notes,
) -> Start | list[Start]:
    """What finetuning starts from: a folder, a file of vectors, or fresh weights.

    `join` says what becomes of a folder's two directions: "concat", one encoder, or "average", a list.
    """
    from pretune.config import update
    from pretune.data.segment import guess_language
    from pretune.runs.folders import read_config
    from pretune.runs.guests import hint
    from pretune.runs.run import TABLES, load_start, scratch
    from pretune.runs.starts import adjusted, method_to_begin, side_by_side, vectors_start

    if name != "scratch":
        given = [option for option, value in (("--vectors", vectors), ("--language", language)) if value]
        given += ["codec.…"] if said["codec"] else []
        if given:
            raise UsageError(f"{given[0]} cannot be chosen anew with --from {name}: the folder has its own")
        loaded = load_start(Path(name))
        some = [adjusted(x, said["encoder"]) for x in (loaded if isinstance(loaded, list) else [loaded])]
        found = some if isinstance(loaded, list) else some[0]
        one = found[0] if isinstance(found, list) else found
        if method is not None and one.method.name != method:
            raise UsageError(f"--method is {method}, but {name} holds {one.method.name}; leave --method out")
        notes(one.codec.describe(), *hint(name, read_config(Path(name))))
        if isinstance(found, list) and join == "concat":
            notes(f"{' and '.join(start.name for start in found)} are read side by side, as one model")
            return side_by_side(found, Path(name).name)
        return found
    chosen = method_to_begin(method or ("wordvectors" if vectors else "ulmfit"))
    codec = codec_config(chosen, said["codec"], language)
    if vectors is not None:
        if chosen.name != "wordvectors":
            raise UsageError(f"--vectors are for wordvectors; {chosen.name} starts with --from DIR")
        changes = {"language": language or guess_language(text for s in samples for text in s.texts)}
        start = vectors_start(vectors, {**changes, **said["codec"]}, said["encoder"])
    else:
        if size not in chosen.sizes:
            raise choose("--size", size, chosen.sizes)
        encoder = update(chosen.sizes[size], said["encoder"], "encoder", TABLES)
        start = scratch(chosen, size, texts_of(samples), seed, codec, encoder_config=encoder)
    notes(start.codec.describe())
    return start
