"""Tables: csv, tsv, label-first and plain lines -> columns and rows, with file:line errors."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple

from pretune.data.files import listed, read_text, shown
from pretune.errors import UserError

NUMBER: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
KNOWN_TEXTS: Final = (
    "text", "sentence", "review", "content", "body", "comment", "document", "utterance", "tweet", "message",
    "review_text", "review_body", "description", "abstract", "text_a", "title", "headline", "question",
)  # fmt: skip
KNOWN_PAIRS: Final = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_a", "sentence_b"), ("text_a", "text_b"),
    ("text1", "text2"), ("question1", "question2"), ("question", "passage"), ("question", "sentence"),
)  # fmt: skip
KNOWN_LABELS: Final = (
    "label", "labels", "class", "category", "stars", "rating", "sentiment", "target", "gold_label", "score",
    "intent", "topic", "polarity",
)  # fmt: skip
KNOWN: Final = {*KNOWN_TEXTS, *KNOWN_LABELS, *(name for pair in KNOWN_PAIRS for name in pair)}


class TableRow(NamedTuple):
    where: str  # "file:line", the sample's key
    cells: Sequence[object]  # one a column; None where JSON or Parquet has nothing


@dataclass
class Table:
    """Rows under named columns; a table without header has the columns "0", "1", ..."""

    name: str
    columns: tuple[str, ...]
    rows: list[TableRow]
    notes: list[str] = field(default_factory=list)
    fixed: bool = False  # the format itself says which column is the text and which the label


def read_csv(path: Path, encoding: str, asked: Sequence[str]) -> Table:
    """Comma-separated as in RFC 4180; semicolons or tabs if the first line has no comma."""
    text = whole(path, encoding)
    first = text.partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))  # the largest that every C long holds
    table = with_header(path.name, csv_rows(path.name, text, delimiter), asked, "quote a text that holds one")
    if delimiter != ",":
        table.notes.insert(0, f"{path.name}: columns are separated by {delimiter!r}")
    return table


def csv_rows(name: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line that the row starts on, fields); quoted fields may hold line breaks."""
    reader = csv.reader(StringIO(text, newline="\n"), delimiter=delimiter, strict=True)
    start = 1
    try:
        for fields in reader:
            yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise UserError(
                f'{name}:{start}: a quoted field opens in this row and never closes; add the closing "'
            ) from None
        raise UserError(
            f'{name}:{start}: malformed row ({error}); double every " inside a quoted field'
        ) from None


def read_tsv(path: Path, encoding: str, asked: Sequence[str]) -> Table:
    """Tab-separated, one row a line; quotes are ordinary characters."""
    rows = ((line, fields.split("\t")) for line, fields in numbered(whole(path, encoding)))
    return with_header(path.name, rows, asked, "write tabs and line breaks inside a text as spaces")


def with_header(name: str, rows: Iterator[tuple[int, list[str]]], asked: Sequence[str], advice: str) -> Table:
    """A table of rows that all have the first row's length; its first row names the columns or is data."""
    found = list(rows)
    width = next((len(fields) for _, fields in found if any(map(str.strip, fields))), 1)
    kept, blank = [], []
    for line, fields in found:
        if not fields or (width > 1 and len(fields) == 1 and not fields[0].strip()):
            blank.append(f"{name}:{line}")
        elif len(fields) != width:
            raise UserError(f"{name}:{line}: {len(fields)} columns where the first row has {width}; {advice}")
        else:
            kept.append((line, fields))
    if not kept:
        raise UserError(f"{name}: holds no rows, only blank lines; check the file")
    names = tuple(cell.strip() for cell in kept[0][1])
    notes = blank_note(name, blank)
    if has_header([fields for _, fields in kept], asked):
        check_names(name, kept, names)
        columns, kept = names, kept[1:]
    else:
        columns = tuple(map(str, range(width)))
        notes.append(
            f"{name}: line {kept[0][0]} is read as data; without header the columns are 0 to {width - 1}"
        )
    return Table(name, columns, [TableRow(f"{name}:{line}", fields) for line, fields in kept], notes)


def has_header(rows: Sequence[Sequence[str]], asked: Sequence[str]) -> bool:
    """Whether the first row names the columns.

    It does if a column is asked for by name, or if two cells are well-known names ("text", "label", ...). It
    is data if a cell stands again below in its column. Otherwise one well-known name makes it a header; a
    cell that is a number, is long or ends like a sentence makes it data, and so do columns that are asked
    for by number, and a single column. All else is a header.
    """
    first = [cell.strip() for cell in rows[0]]
    known = sum(cell.casefold() in KNOWN for cell in first)
    counted = first == list(map(str, range(len(first))))  # a table that was written without names
    if known > 1 or counted or any(not name.isdecimal() for name in asked):
        return True
    others = [row for row in rows[1:] if list(row) != list(rows[0])]
    if any(first[c] and any(row[c].strip() == first[c] for row in others) for c in range(len(first))):
        return False
    return bool(known) or (len(first) > 1 and not asked and not any(map(like_data, first)))


def like_data(cell: str) -> bool:
    return (
        bool(NUMBER.fullmatch(cell))
        or len(cell) > 40
        or cell.count(" ") > 3
        or cell.endswith(tuple(".!?。！？"))
    )


def check_names(name: str, rows: Sequence[tuple[int, list[str]]], names: tuple[str, ...]) -> None:
    """Raise if two columns share a name, if the header stands again below, or if nothing does."""
    twice = next((column for column in names if column and names.count(column) > 1), None)
    if twice is not None:
        raise UserError(f"{name}:{rows[0][0]}: two columns are named {shown(twice)}; rename one")
    again = next((line for line, fields in rows[1:] if len(names) > 1 and fields == rows[0][1]), None)
    if again is not None:
        raise UserError(
            f"{name}:{again}: the header stands here again; delete this line (were two files joined?)"
        )
    if len(rows) == 1:
        raise UserError(f"{name}: has a header ({shown(', '.join(names))}) and no rows; add rows below it")


def read_label_first(path: Path, encoding: str, asked: Sequence[str]) -> Table:
    """LABEL<space>TEXT lines, as SST and TREC are released."""
    rows, blank = [], []
    for line, text in numbered(whole(path, encoding)):
        where = f"{path.name}:{line}"
        label, _, rest = text.replace("\t", " ", 1).partition(" ")
        if not text.strip():
            blank.append(where)
        elif not label:
            raise UserError(f"{where}: starts with a space, not with a label; write LABEL TEXT")
        else:
            rows.append(TableRow(where, (label, rest)))
    return Table(path.name, ("label", "text"), filled(path.name, rows), blank_note(path.name, blank), True)


def read_lines(path: Path, encoding: str, asked: Sequence[str]) -> Table:
    """One text a line, blank ones too: as many answers as lines."""
    rows = [TableRow(f"{path.name}:{line}", (text,)) for line, text in numbered(whole(path, encoding))]
    return Table(path.name, ("text",), filled(path.name, rows), fixed=True)


def whole(path: Path, encoding: str) -> str:
    """The text of a file of rows; raise if it is empty or has no line ends that we split at."""
    text = read_text(path, encoding)
    if not text.strip():
        raise UserError(f"{path.name}: is empty; check the path, or write the rows")
    if "\n" not in text and "\r" in text.rstrip("\r"):
        raise UserError(f"{path.name}:1: lines end in bare carriage returns (old Mac); save with line feeds")
    return text


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """(line number, line without its end)."""
    for line, row in enumerate(StringIO(text, newline="\n"), 1):
        yield line, row.removesuffix("\n").removesuffix("\r")


def filled(name: str, rows: list[TableRow]) -> list[TableRow]:
    if not rows:
        raise UserError(f"{name}: holds no rows; check the file")
    return rows


def blank_note(name: str, blank: list[str]) -> list[str]:
    count = f"{len(blank)} blank line{'s' * (len(blank) > 1)}"
    return [f"{name}: {count} skipped ({listed(blank, 3)})"] if blank else []
