"""A word a line and its tag, a blank line between sentences: CoNLL's columns and CoNLL-U -> samples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pretune.data.files import check_exists, listed, read_text, shown, suffix
from pretune.data.samples import Part, Sample, Span
from pretune.data.segment import CJK
from pretune.errors import UsageError, UserError, choose

FORMATS: Final = ("conll", "conllu")
TABLES: Final = (".csv", ".jsonl", ".ndjson", ".json", ".parquet")
FIELDS: Final = (
    "id",
    "form",
    "lemma",
    "upos",
    "xpos",
    "feats",
    "head",
    "deprel",
    "deps",
    "misc",
)  # CoNLL-U's
DOCUMENT: Final = "-DOCSTART-"  # opens a document in CoNLL 2003
UNSPACED: Final = re.compile(rf"[{CJK}\u3000-\u303f\uff00-\uffef]")  # beside these no space is written


@dataclass(frozen=True)
class Tagged:
    """What a file gave."""

    samples: list[Sample]  # gold: a tag for each of the words, None if unlabelled
    layout: str  # conll, conllu, jsonl
    words_column: str
    tags_column: str
    notes: list[str]  # for the user


@dataclass(frozen=True)
class _Word:
    where: str  # "file:line"
    form: str
    tag: str | None
    glued: bool = False  # no space behind it
    within: str = ""  # the longer word of the text that it is a part of, on the first of its parts
    parts: int = 1  # how many words are parts of it


def read_conll(
    path: Path,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    format: str | None = None,  # noqa: A002 - the option's name
    encoding: str = "utf-8",
    labelled: bool = True,
) -> Tagged:
    """The sentences of a file; `key` is "file:line" of the first word.

    `conllu` is taken where the file's name ends in .conllu, otherwise `conll`: columns between tabs where
    there are any, else between spaces. `text` and `label` name the columns of the word and of its tag: by
    number from 0, -1 the last, or as CoNLL-U calls them. Words and tags are in the first and the last one, in
    CoNLL-U in `form` and `upos`. Sentences are written with spaces between words, except beside Chinese and
    Japanese characters, and where CoNLL-U says SpaceAfter=No.
    """
    if format is not None and format not in FORMATS:
        raise choose("--format", format, FORMATS)
    check_exists(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file with a word a line")
    if format is None and suffix(path) in TABLES:
        raise UserError(
            f"{path.name}: tags are read from CoNLL's columns, a word a line, from CoNLL-U, or spans from "
            "JSON lines; convert the file, or give --format conll if it is one"
        )
    universal = (format or suffix(path).lstrip(".")) == "conllu"
    words_column = _one(text, "text", universal, "form" if universal else "0")
    tags_column = _one(label, "label", universal, "upos" if universal else "-1")
    lines = read_text(path, encoding).split("\n")
    read = _universal if universal else _columns
    sentences = list(read(path.name, lines, words_column, tags_column if labelled else None))
    if not sentences:
        raise UserError(f"{path.name}: holds no word; a word a line is expected, its tag behind it")
    samples = [_sample(words, labelled) for words in sentences]
    notes = notes_of(path.name, samples) if labelled else []
    return Tagged(samples, "conllu" if universal else "conll", words_column, tags_column, notes)


def sentence(forms: Sequence[str]) -> Part:
    """Words as one text, for samples that come as words."""
    return _written([_Word("", form, None) for form in forms])


def _one(asked: Sequence[str], option: str, universal: bool, usual: str) -> str:
    if len(asked) > 1:
        raise UsageError(f"--{option} names {len(asked)} columns; words and tags have one each")
    name = asked[0].lower() if asked else usual
    if re.fullmatch(r"-?[0-9]+", name) or (universal and name in FIELDS):
        return name
    if universal:
        raise choose(f"--{option}", asked[0], FIELDS)
    raise UsageError(
        f"--{option} is {asked[0]!r}; give the column's number, counted from 0, or -1 for the last"
    )


def _columns(name: str, lines: Iterable[str], word: str, tag: str | None) -> Iterator[list[_Word]]:
    found: list[_Word] = []
    for number, line in enumerate(lines, 1):
        fields = _fields(line)
        if not any(fields) or fields[0] == DOCUMENT:
            if found:
                yield found
            found = []
            continue
        where = f"{name}:{number}"
        form = _field(fields, int(word), where, "text")
        if tag is not None and len(fields) < 2:
            raise UserError(f"{where}: {shown(line)} has one column; a word and its tag are needed")
        found.append(_Word(where, form, None if tag is None else _field(fields, int(tag), where, "label")))
    if found:
        yield found


def _fields(line: str) -> list[str]:
    """What is between tabs or spaces; other white space, such as in 10\u00a0000, belongs to words."""
    line = line.strip(" \r")
    return [x.strip(" ") for x in line.split("\t")] if "\t" in line else re.split(" +", line)


def _field(fields: Sequence[str], at: int, where: str, option: str) -> str:
    if not -len(fields) <= at < len(fields):
        raise UserError(
            f"{where}: no column {at}, there are {len(fields)}; columns are counted from 0 (--{option})"
        )
    if not fields[at]:
        raise UserError(f"{where}: column {at} is empty; a word and its tag are needed (--{option})")
    return fields[at]


def _universal(name: str, lines: Iterable[str], word: str, tag: str | None) -> Iterator[list[_Word]]:
    found: list[_Word] = []
    within: tuple[str, int, int, bool] | None = None  # a longer word: form, its parts, those read, glued
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        fields = line.rstrip("\r").split("\t")
        if not line.strip():
            if found:
                yield found
            found, within = [], None
        elif line.startswith("#"):
            continue
        elif len(fields) != len(FIELDS):
            raise UserError(f"{where}: {len(fields)} columns between tabs; CoNLL-U has {len(FIELDS)}")
        elif match := re.fullmatch(r"([0-9]+)-([0-9]+)", fields[0]):
            within = fields[1], int(match[2]) - int(match[1]) + 1, 0, "SpaceAfter=No" in fields[9]
        elif fields[0].isdigit():
            form = _field(fields, _place(word), where, "text")
            said = None if tag is None else _field(fields, _place(tag), where, "label")
            glued = "SpaceAfter=No" in fields[9]
            if within is None:
                found.append(_Word(where, form, said, glued))
                continue
            whole, parts, read, glued = within
            found.append(_Word(where, form, said, glued, "" if read else whole, 1 if read else parts))
            within = (whole, parts, read + 1, glued) if read + 1 < parts else None
        elif not re.fullmatch(r"[0-9]+\.[0-9]+", fields[0]):  # words that were left out of the text
            raise UserError(f"{where}: {shown(fields[0])} is no number of a word (CoNLL-U's first column)")
    if found:
        yield found


def _place(column: str) -> int:
    return FIELDS.index(column) if column in FIELDS else int(column)


def _sample(words: Sequence[_Word], labelled: bool) -> Sample:
    gold = tuple(str(word.tag) for word in words) if labelled else None
    return Sample(words[0].where, (_written(words),), gold)


def _written(words: Sequence[_Word]) -> Part:
    """The sentence, and where its words are."""
    text, spans, glued = "", list[Span](), True
    at = 0
    while at < len(words):
        parts = words[at : at + words[at].parts]
        surface = parts[0].within or parts[0].form
        if text and not glued and not (UNSPACED.match(text[-1]) or UNSPACED.match(surface)):
            text += " "
        start = len(text)
        text += surface
        spans += _inside(surface, [part.form for part in parts], start)
        glued = parts[-1].glued
        at += len(parts)
    return Part(text, tuple(spans))


def _inside(surface: str, forms: Sequence[str], start: int) -> list[Span]:
    """Where the parts of a word are, one after another; else all of it for each, as for zum: zu dem."""
    spans, at = [], 0
    for form in forms:
        place = surface.find(form, at)
        if place < 0:
            return [Span(start, start + len(surface))] * len(forms)
        at = place + len(form)
        spans.append(Span(start + place, start + at))
    return spans


def notes_of(name: str, samples: Sequence[Sample]) -> list[str]:
    counts = Counter(tag for sample in samples for tag in sample.gold)
    most = listed([f"{shown(tag, 24)} {count}" for tag, count in counts.most_common()], 6)
    sentences = f"{len(samples):,} sentence{'s' * (len(samples) > 1)}"
    return [f"{name}: {sentences}, {counts.total():,} words with {len(counts)} different tags: {most}"]
