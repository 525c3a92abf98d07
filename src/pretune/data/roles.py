"""Semantic roles as CoNLL 2005, CoNLL 2012 and PropBank write them: a word a line, a column a predicate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pretune.data.conll import sentence
from pretune.data.files import listed, read_text, shown, suffix
from pretune.data.role_questions import read_role_lines
from pretune.data.samples import Sample
from pretune.errors import UsageError, UserError, choose

FORMATS: Final = ("conll", "jsonl")
LINES: Final = (".jsonl", ".ndjson")
OTHERS: Final = (".csv", ".tsv", ".json", ".parquet", ".txt")
NONE: Final = "-"  # in the column of predicates: no predicate
CELL: Final = re.compile(r"(?:\(([^()*]+))?\*([^()*]*\))?")  # begins, and ends
VERB: Final = re.compile(r"\(V\*")


@dataclass(frozen=True)
class Roles:
    """What a file gave: one sample a predicate.

    A sample's `marks` has the predicate's word; its gold is a BIO tag for each word, None if unlabelled.
    """

    samples: list[Sample]
    columns: tuple[int, int] | None  # of words and of predicates; None for JSON lines
    notes: list[str]  # for the user


@dataclass(frozen=True)
class _Layout:
    """Columns: the words, the predicates, and the first and the one after the last of arguments."""

    words: int
    predicates: int
    first: int
    behind: int = 0  # how many columns stand behind the arguments

    def arguments(self, columns: int) -> range:
        return range(self.first, columns - self.behind)


Lines = list[tuple[int, list[str]]]  # of a sentence: number of the line, its fields


def read_roles(
    path: Path,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    format: str | None = None,  # noqa: A002 - the option's name
    encoding: str = "utf-8",
    labelled: bool = True,
) -> Roles:
    """One sample for each predicate of a file, in order; `key` is "file:line" of the predicate.

    Columns stand between tabs where there are any, else between spaces. Arguments are brackets such as
    `(ARG0*`, `*`, `*)`, in one column for each predicate, in the order of predicates. Three layouts are
    known by their look: CoNLL 2012's (words in column 3, counted from 0, predicates in 7, arguments from 11,
    coreference in the last); PropBank's, which is that without columns 8 to 10 and the last; CoNLL 2005's
    (words in column 0, predicates right before the arguments). `text` and `label` name other columns of words
    and of predicates; arguments follow the latter. Sentences without a predicate are left
    out and counted. JSON lines are read by `role_questions`. Unlabelled files need no arguments.
    """
    if format is not None and format not in FORMATS:
        raise choose("--format", format, FORMATS)
    if format is None and suffix(path) in OTHERS:
        raise UserError(
            f"{path.name}: semantic roles are read from CoNLL's columns, a word a line, or from .jsonl with "
            "words and a predicate in each line; convert the file, or give --format conll or jsonl"
        )
    lines = read_text(path, encoding).split("\n")
    if is_lines(path, format):
        if text or label:
            raise UsageError("--text and --label are columns of CoNLL's files; leave them out")
        return Roles(samples := read_role_lines(path.name, lines, labelled), None, _notes(path.name, samples))
    sentences = list(_sentences(path.name, lines))
    if not sentences:
        raise UserError(f"{path.name}: holds no word; a word a line is expected, a column for each predicate")
    layout = _layout(path.name, sentences, text, label, labelled)
    samples, without = list[Sample](), 0
    for rows in sentences:
        read = list(_of_sentence(path.name, rows, layout, labelled))
        without += not read
        samples += read
    if not samples:
        raise UserError(
            f"{path.name}: none of {len(sentences)} sentences has a predicate in column {layout.predicates}; "
            "name it with --label, counted from 0"
        )
    notes = _notes(path.name, samples, len(sentences), without)
    return Roles(samples, (layout.words, layout.predicates), notes)


def is_lines(path: Path, format: str | None) -> bool:  # noqa: A002
    """Whether a file is JSON lines, as the option says or else its name."""
    return format == "jsonl" or (format is None and suffix(path) in LINES)


def _sentences(name: str, lines: Sequence[str]) -> Iterator[Lines]:
    found: Lines = []
    for number, line in enumerate([*lines, ""], 1):
        line = line.strip(" \r")
        if line and not line.startswith(("#begin ", "#end ")):
            found.append((number, line.split("\t") if "\t" in line else line.split()))
            if len(found[-1][1]) != len(found[0][1]):
                raise UserError(
                    f"{name}:{number}: {len(found[-1][1])} columns, where the sentence began with "
                    f"{len(found[0][1])}; each word of it needs as many"
                )
        elif found:
            yield found
            found = []


def _layout(
    name: str, sentences: Sequence[Lines], text: Sequence[str], label: Sequence[str], labelled: bool
) -> _Layout:
    """As options name it, else as files of known layouts look."""
    found, words, predicates = _known(sentences, labelled), _place("text", text), _place("label", label)
    if predicates is not None and (found is None or found.predicates != predicates):
        found = _Layout(0, predicates, predicates + 1)
    if found is None:
        raise UserError(
            f"{name}: no layout of CoNLL 2005, CoNLL 2012 or PropBank: no column of predicates has a column "
            "of brackets behind it for each of them; name the columns of words and predicates by --text and "
            "--label, counted from 0 (of CoNLL 2005 paste the file of words before that of props)"
        )
    if words is not None:
        found = replace(found, words=words)
    number, fields = min((row for rows in sentences for row in rows), key=lambda row: len(row[1]))
    if max(found.words, found.predicates) >= len(fields):
        place = max(found.words, found.predicates)
        raise UserError(f"{name}:{number}: no column {place}, there are {len(fields)}, counted from 0")
    return found


def _place(option: str, said: Sequence[str]) -> int | None:
    if not said:
        return None
    if len(said) > 1 or not re.fullmatch("[0-9]+", said[0]):
        raise UsageError(f"--{option} is {', '.join(said)!r}; give one column's number, counted from 0")
    return int(said[0])


def _known(sentences: Sequence[Lines], labelled: bool) -> _Layout | None:
    columns = [len(rows[0][1]) for rows in sentences]
    if all(_numbered(rows) for rows in sentences):
        if all(len(_said(rows, 7)) == width - 8 for rows, width in zip(sentences, columns, strict=True)):
            return _Layout(3, 7, 8)
        if min(columns) >= 12:
            return _Layout(3, 7, 11, behind=1)
        return _Layout(3, 7, 8) if not labelled and set(columns) == {8} else None
    for place in range(1, min(columns)):
        if all(_fits(rows, place) for rows in sentences):
            return _Layout(0, place, place + 1)
    last = columns[0] - 1
    bare = not labelled and last and set(columns) == {columns[0]}
    return _Layout(0, last, last + 1) if bare and any(_said(rows, last) for rows in sentences) else None


def _numbered(rows: Lines) -> bool:
    """Whether columns 1 and 2 count documents' parts or sentences, and words from 0."""
    return len(rows[0][1]) > 7 and all(
        fields[1].isdigit() and fields[2] == str(i) for i, (_, fields) in enumerate(rows)
    )


def _said(rows: Lines, column: int) -> list[int]:
    """The words that have a predicate in a column."""
    return [i for i, (_, fields) in enumerate(rows) if fields[column] != NONE]


def _fits(rows: Lines, place: int) -> bool:
    """Whether a column says as many predicates as columns of brackets follow it."""
    return len(_said(rows, place)) == len(rows[0][1]) - 1 - place and all(
        "*" not in fields[place] and all(CELL.fullmatch(cell) for cell in fields[place + 1 :])
        for _, fields in rows
    )


def _of_sentence(name: str, rows: Lines, layout: _Layout, labelled: bool) -> Iterator[Sample]:
    arguments = layout.arguments(len(rows[0][1]))
    predicates = _said(rows, layout.predicates)
    if arguments and len(arguments) != len(predicates):  # CoNLL 2012 has senses of some nouns there too
        begun = [[i for i, (_, fields) in enumerate(rows) if VERB.match(fields[at])] for at in arguments]
        predicates = [places[0] for places in begun if places]
    if labelled and layout.behind and not arguments:
        predicates = []  # a noun's sense alone
    if len(predicates) != len(arguments) and (labelled or arguments):
        raise UserError(
            f"{name}:{rows[0][0]}: {len(predicates)} predicates in column {layout.predicates}, but "
            f"{len(arguments)} columns of arguments in this sentence; each predicate needs one"
        )
    part = sentence([fields[layout.words] for _, fields in rows]) if predicates else None
    for k, word in enumerate(predicates):
        assert part is not None
        gold = _tags(name, rows, arguments[k]) if labelled else None
        yield Sample(f"{name}:{rows[word][0]}", (part,), gold, (part.words[word],))


def _tags(name: str, rows: Lines, column: int) -> tuple[str, ...]:
    """Brackets -> BIO."""
    tags, role = list[str](), ""
    for number, fields in rows:
        cell = CELL.fullmatch(fields[column])
        if cell is None or (role and cell[1]) or (cell[2] and not role and not cell[1]):
            raise UserError(
                f"{name}:{number}: {shown(fields[column])} in column {column} is no argument that begins, "
                "goes on or ends here, such as (ARG0*, * or *); arguments of a predicate do not overlap"
            )
        tags.append(f"B-{cell[1]}" if cell[1] else f"I-{role}" if role else "O")
        role = "" if cell[2] else cell[1] or role
    if role:
        raise UserError(
            f"{name}:{rows[-1][0]}: ({role}* in column {column} never ends; write *) where it does"
        )
    return tuple(tags)


def _notes(name: str, samples: Sequence[Sample], sentences: int = 0, without: int = 0) -> list[str]:
    roles = Counter(tag[2:] for s in samples for tag in s.gold or () if tag.startswith("B-"))
    del roles["V"]
    said = f"{name}: "
    if sentences:
        said += f"{sentences:,} sentence{'s' * (sentences > 1)}"
        said += f", {without:,} of them without a predicate left out; " if without else "; "
    said += f"{len(samples):,} predicate{'s' * (len(samples) > 1)}"
    if roles:
        most = listed([f"{shown(role, 24)} {count}" for role, count in roles.most_common()], 6)
        said += f", {roles.total():,} arguments of {len(roles)} roles: {most}"
    return [said]
