"""The data of a comparison: a pool to draw from, test samples, unlabelled text, and what to say of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pretune.data.frames import ACCEPTED, InPython, is_table, table_of
from pretune.data.samples import Sample
from pretune.data.segment import segmenter
from pretune.data.splits import split, without_leaks
from pretune.errors import UsageError, UserError, choose
from pretune.runs.asked import ASKED, OWN, Read
from pretune.runs.asked import kind_of as kind_of
from pretune.runs.cells import Data
from pretune.runs.options import Options, Size
from pretune.runs.prepare import Texts, plain, texts_of

Labelled = Path | str | Sequence[Sample] | InPython
Unlabelled = Literal["none"] | Sequence[Path | str] | None
LADDER = (100, 200, 500, 1000)  # sizes where none are given
ALL_UP_TO = 2000  # a pool of up to this many is also used whole


@dataclass(frozen=True)
class Problem:
    """A data set as read."""

    name: str
    data: Data
    labels: tuple[str, ...]  # in order; none for numbers
    columns: Mapping[str, Any]  # how files of this kind are read: what run.json says of the data
    language: str
    sizes: tuple[int, ...]
    own: Texts  # the training texts, without labels
    given: Texts | None  # those and what the user gave
    adapts: bool
    notes: tuple[str, ...]


def read(
    train: Labelled,
    test: Labelled | None,
    unlabelled: Unlabelled,
    name: str | None,
    reading: Mapping[str, Any],
    kind: str | None,
    options: Options,
    task: str = "classification",
) -> Problem:
    """Read, hold out a test set where there is none, remove leaks, and decide sizes and language."""
    if task not in ASKED:
        raise choose("--task", task, ASKED)
    _check_options(task, kind, reading)
    found = _samples(task, train, kind, reading, "train")
    learn, notes = found.samples, found.notes
    if test is None:
        together = ASKED[task].together
        learn, check = split(learn, options.test_share, options.seed, together is None, together)
        notes.append(
            f"{len(check):,} of {len(learn) + len(check):,} samples are held out for the test (no test file)."
        )
    else:
        kind = found.kind if task == "classification" else kind
        tested = _samples(task, test, kind, reading, "test", found)
        check = tested.samples
        notes += tested.notes
        parts = {len(s.parts) for s in (*learn, *check)}
        if len(parts) > 1 and task == "classification":
            raise UserError(
                f"samples have {' or '.join(map(str, sorted(parts)))} texts; all need the same number"
            )
    learn, leaks = without_leaks(learn, check)
    notes += [*leaks, *ASKED[task].checked(learn, check, found.kind)]
    data = Data(tuple(learn), tuple(check), found.kind, options.valid_share, task)
    language = options.language or guess_language(learn)
    guessed = "" if options.language else ", guessed from the characters (--language)"
    named = options.settings.get("codec", {}).get("segmenter")
    cut = "pieces that are learned" if named == "pieces" else segmenter(language, named).described
    notes.append(f"Language: {language}{guessed}; cut into {cut}.")
    own, given = _texts(unlabelled, data, str(reading["encoding"]), ASKED[task].unlabelled(found.columns))
    labels = labels_of(learn, task, found.kind)
    return Problem(
        name or (Path(cast(Any, train)).name if is_file(train) else "samples"),
        data,
        labels,
        found.columns,
        language,
        sizes(options.sizes, data, labels if found.kind in ("one", "many") else ()),
        own,
        given,
        unlabelled != "none",
        tuple(notes),
    )


def _check_options(task: str, kind: str | None, reading: Mapping[str, Any]) -> None:
    """Raise where options are another task's."""
    given = {**reading, "kind": kind}
    for name in OWN:
        if given.get(name) and name not in ASKED[task].options:
            theirs = " or ".join(f"--task {other}" for other, asked in ASKED.items() if name in asked.options)
            option = f"--{name.replace('_', '-')} {'are' if name.endswith('s') else 'is'}"
            raise UsageError(f"{option} for {theirs}, not for --task {task}; leave it out")


def is_file(data: Labelled) -> bool:
    return isinstance(data, (str, Path))


def _samples(
    task: str,
    data: Labelled,
    kind: str | None,
    reading: Mapping[str, Any],
    name: str,
    first: Read | None = None,
) -> Read:
    """What `data` holds, which messages call `name` where it has no name of its own; read as `first` was."""
    if isinstance(data, (str, Path)):
        return ASKED[task].read(Path(data), kind, reading, first)
    accepted = f"a file, a list of pretune.Sample{', ' + ACCEPTED if ASKED[task].tables else ''}"
    if is_table(data):
        if not ASKED[task].tables:
            raise UserError(f"{name}: {task} takes no {type(data).__name__} of rows; give {accepted}")
        if reading["format"] is not None:
            raise UsageError(f"--format is for files, and {name} is a {type(data).__name__}; leave it out")
        return ASKED[task].read(table_of(data, name), kind, reading, first)
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise UserError(f"{name} is a {type(data).__name__}; give {accepted}")
    samples = list(data)
    if not samples:
        raise UserError("there are no samples to compare on")
    wrong = next((i for i, one in enumerate(samples) if not isinstance(one, Sample)), None)
    if wrong is not None:
        raise UserError(f"{name}: number {wrong} is a {type(samples[wrong]).__name__}; give {accepted}")
    missing = sum(sample.gold is None for sample in samples)
    if missing:
        raise UserError(f"{missing} of {len(samples)} samples have no gold; give labelled ones")
    return Read(samples, kind or ASKED[task].kind(samples), {}, [])


def labels_of(samples: Sequence[Sample], task: str, kind: str) -> tuple[str, ...]:
    """The labels or tags; none where answers are others."""
    from pretune.runs.trained import task_class

    return () if kind == "number" else tuple(getattr(task_class(task).of(samples, kind), "labels", ()))


def guess_language(samples: Sequence[Sample]) -> str:
    """zh or ja where most letters are theirs, else en: it decides how words are found."""
    text = "".join(text for sample in samples[:2000] for text in sample.texts)
    letters = sum(c.isalpha() for c in text)
    kana = len(re.findall(r"[\u3040-\u30ff]", text))
    han = len(re.findall(r"[\u3400-\u9fff]", text))
    if han + kana < 0.3 * max(1, letters):
        return "en"
    return "ja" if kana > 0.2 * (han + kana) else "zh"


def sizes(asked: Sequence[Size], data: Data, labels: Sequence[str]) -> tuple[int, ...]:
    """In rising order; "all" is the whole pool."""
    pool = len(data.pool)
    if not asked:
        found = {size for size in LADDER if size < pool}
        found |= {pool} if pool <= ALL_UP_TO or not found else set()
    else:
        found = {pool if size == "all" else int(size) for size in asked}
    least = max(4, len(labels) + 1)
    for size in sorted(found):
        if size > pool:
            raise UsageError(
                f"--sizes {size}: the pool for training has {pool:,} samples; 'all' takes them all"
            )
        if size < least:
            reason = f" of {len(labels)} labels" if labels else ""
            if not asked:
                raise UserError(
                    f"{pool} training samples{reason} are too few to compare anything; give at least {least}"
                )
            raise UsageError(f"--sizes {size} is too small for data{reason}; give at least {least}")
    return tuple(sorted(found))


def _texts(
    unlabelled: Unlabelled, data: Data, encoding: str, column: str | None
) -> tuple[Texts, Texts | None]:
    """(training texts, those and what was given, in tables the texts of `column`)."""
    tested = frozenset(plain(text) for text in texts_of(data.test))
    own = Texts(texts=texts_of(data.pool), tested=tested)
    if unlabelled is None or unlabelled == "none":
        return own, None
    if isinstance(unlabelled, (str, Path)):
        raise UsageError(f"unlabelled is {str(unlabelled)!r}; give a list, of Path for files or of texts")
    paths = tuple(x for x in unlabelled if isinstance(x, Path))
    texts = tuple(x for x in unlabelled if not isinstance(x, Path))
    for path in paths:
        if not path.exists():
            raise UsageError(f"--unlabelled {path}: no such file or folder")
    tables = any(re.search(r"\.(csv|tsv|jsonl|ndjson|json|parquet)(\.gz|\.xz)?$", p.name) for p in paths)
    return own, Texts(paths, own.texts + texts, encoding, column if tables else None, tested)
