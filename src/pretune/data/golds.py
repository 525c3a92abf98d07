"""Label cells -> golds: one label, many labels, or a number."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal

from pretune.data.files import listed, shown
from pretune.data.tables import NUMBER, Table, TableRow
from pretune.errors import UsageError, UserError

LabelKind = Literal["one", "many", "number"]
Gold = str | tuple[str, ...] | float
NO_CONSENSUS: Final = "-"  # what SNLI, OCNLI and others write where annotators did not agree
FLAGS: Final = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def word_of(row: TableRow, cell: object, column: str | None = None) -> str | None:
    """A cell as label, exactly as written; None where it is blank. Errors say the `column`."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, dict | bytes):
        raise UserError(
            f"{row.where}: the label is a {type(cell).__name__}{in_column(column)}; write a word, a number, "
            "or a list of words"
        )
    word = json.dumps(cell) if isinstance(cell, bool | int | float) else str(cell)
    return word if word.strip() else None


def in_column(name: str | None) -> str:
    """Where a cell stands, within a message."""
    return "" if name is None else f" (column {shown(name)})"


def read_golds(
    table: Table, columns: Sequence[int], kind: LabelKind | None, separator: str | None
) -> tuple[LabelKind, Sequence[Gold | None]]:
    """The kind of label and each row's gold; None where a row has no label."""
    listing = len(columns) == 1 and any(isinstance(row.cells[columns[0]], list) for row in table.rows)
    several = len(columns) > 1 or separator is not None or listing
    if several and kind not in (None, "many"):
        what = "several label columns" if len(columns) > 1 else "a list or --label-separator"
        raise UsageError(
            f"{table.name}: {what} makes many labels, not --kind {kind}; give --kind many or none"
        )
    if separator == "":
        raise UsageError("--label-separator is empty; give the sign between the labels, such as ','")
    if kind == "many" and not several:
        raise UsageError(
            f"{table.name}: --kind many needs several --label columns of 0 and 1, lists, or --label-separator"
        )
    if len(columns) > 1:
        if separator is not None:
            raise UsageError("--label-separator splits one label column; name one, or leave it out")
        return "many", [flagged(table, row, columns) for row in table.rows]
    if several:
        return "many", [separated(row, row.cells[columns[0]], separator) for row in table.rows]
    column = table.columns[columns[0]]
    words = [word_of(row, row.cells[columns[0]], column) for row in table.rows]
    kind = kind or guess_kind([word for word in words if word is not None])
    if kind == "number":
        return kind, [
            None if w is None else number(row, w, column) for row, w in zip(table.rows, words, strict=True)
        ]
    return "one", [None if word == NO_CONSENSUS else word for word in words] if undecided(words) else words


def undecided(words: Sequence[str | None]) -> bool:
    """Whether "-" says that there is no label: not beside a "+", and not as one of two labels."""
    labels = {word for word in words if word is not None}
    return NO_CONSENSUS in labels and "+" not in labels and len(labels) > 2


def flagged(table: Table, row: TableRow, columns: Sequence[int]) -> tuple[str, ...] | None:
    """The names of the columns that hold a 1; None if all are blank."""
    words = [word_of(row, row.cells[c], table.columns[c]) for c in columns]
    if not any(words):
        return None
    for word, c in zip(words, columns, strict=True):
        if (word or "").strip().lower() not in FLAGS:
            raise UserError(
                f"{row.where}: {shown(word or '')} in label column {shown(table.columns[c])}; "
                "of several label columns each holds 0 or 1"
            )
    named = zip((table.columns[c] for c in columns), words, strict=True)
    return tuple(sorted(column for column, word in named if FLAGS[str(word).strip().lower()]))


def separated(row: TableRow, cell: object, separator: str | None) -> tuple[str, ...] | None:
    """The labels of a list or of one string; none at all is an answer too, but null is not."""
    if isinstance(cell, list):
        words = [word_of(row, item) for item in cell]
    elif isinstance(cell, str):
        words = [word.strip() for word in cell.split(separator)] if separator else [word_of(row, cell)]
    else:
        words = [word_of(row, cell)]
        if words == [None]:
            return None
    return tuple(sorted({word for word in words if word}))


def guess_kind(words: Sequence[str]) -> LabelKind:
    """Numbers if all are, and one is fractional or more than 20 differ; else classes."""
    if not words or not all(map(NUMBER.fullmatch, words)):
        return "one"
    values = set(map(float, words))
    fractional = any(not value.is_integer() for value in values)
    return "number" if fractional or len(values) > 20 else "one"


def number(row: TableRow, word: str, column: str) -> float:
    if not NUMBER.fullmatch(word) or not math.isfinite(value := float(word)):
        raise UserError(
            f"{row.where}: label {shown(word)} is not a number{in_column(column)}; correct it, or give "
            "--kind one for classes"
        )
    return value


def label_notes(name: str, golds: Sequence[Gold], kind: LabelKind) -> list[str]:
    """What the labels were taken for, and what looks odd about them."""
    if kind == "number":
        values = [gold for gold in golds if isinstance(gold, float)]
        low, high = min(values), max(values)
        return [f"{name}: labels are numbers from {low:g} to {high:g} (--kind one makes them classes)"]
    counts = Counter(word for gold in golds for word in (gold if isinstance(gold, tuple) else (str(gold),)))
    several = "any number of" if kind == "many" else "one of"
    classes = listed([f"{shown(word, 24)} {count}" for word, count in sorted(counts.items())], 6)
    numeric = kind == "one" and all(map(NUMBER.fullmatch, counts))
    hint = " (--kind number makes them numbers)" if numeric else ""
    notes = [f"{name}: labels are {several} {len(counts)}: {classes}{hint}"]
    empty = sum(gold == () for gold in golds)
    if empty:
        notes.append(f"{name}: rows that carry none of the labels are kept ({empty})")
    alike: dict[str, list[str]] = {}
    for word in counts:
        alike.setdefault(word.strip().casefold(), []).append(word)
    same = [" and ".join(shown(word, 24) for word in words) for words in alike.values() if len(words) > 1]
    if same:
        notes.append(
            f"{name}: labels that differ by spaces or capitals count as different ({listed(same, 3)})"
        )
    if kind == "one" and len(counts) > 20 and len(counts) > len(golds) / 2:
        notes.append(f"{name}: {len(counts)} different labels on {len(golds)} rows; is --label right?")
    return notes


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Numbers by value, other labels by alphabet with the numbers in them by value: "2" before "10"."""

    def place(label: str) -> tuple[Any, ...]:
        try:
            value = float(label)
        except ValueError:
            value = float("nan")
        if math.isfinite(value):
            return (0, value, label)
        pieces = re.split(r"([0-9]+)", label)  # text at even places, digits at odd
        return (1, [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], label)

    return tuple(sorted(labels, key=place))
