"""Which columns are the texts and which the labels: as asked for, by well-known name, or by their values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pretune.data.files import shown
from pretune.data.tables import KNOWN_LABELS, KNOWN_PAIRS, KNOWN_TEXTS, NUMBER, Table
from pretune.errors import UsageError, UserError

LOOKED_AT = 1000  # rows from which a column of texts is guessed


@dataclass(frozen=True)
class Columns:
    """Positions of the text and label columns, and how they came about."""

    texts: tuple[int, ...]
    labels: tuple[int, ...]
    notes: tuple[str, ...]


def choose_columns(table: Table, text: Sequence[str], label: Sequence[str], labelled: bool) -> Columns:
    """Columns that are asked for by name or number (from 0); the others are guessed, and the guess noted.

    A label column is guessed by name ("label", "class", ...), else as the column of fewest different values;
    a text column by name ("text", "sentence", ..., or two as "premise" and "hypothesis"), else as the column
    of longest texts. Without `labelled` no label is needed, and none that is asked for needs to exist.
    """
    if labelled:
        labels = tuple(find(table, name, "--label") for name in label)
    else:
        labels = tuple(table.columns.index(name) for name in label if name in table.columns)
    texts = tuple(find(table, name, "--text") for name in text)
    twice = next((c for c in (*texts, *labels) if (*texts, *labels).count(c) > 1), None)
    if twice is not None:
        raise UsageError(f"{table.name}: column {shown(table.columns[twice])} is named twice; name it once")
    labels = labels or known(table, KNOWN_LABELS, texts)
    guessed = texts or known_texts(table, labels) or longest(table, labels)
    if labelled and not labels:
        labels = fewest(table, guessed)
    notes = []
    if not text and not table.fixed:
        notes.append(f"{table.name}: text from {names(table, guessed)} (guessed; --text COLUMN chooses)")
    if labelled and not label and not table.fixed:
        notes.append(f"{table.name}: labels from {names(table, labels)} (guessed; --label COLUMN chooses)")
    return Columns(guessed, labels if labelled else (), tuple(notes))


def find(table: Table, name: str, option: str) -> int:
    """Position of the column that is called `name`, or else has that number."""
    if name in table.columns:
        return table.columns.index(name)
    if name.isdecimal() and int(name) < len(table.columns):
        return int(name)
    several = [part.strip() for part in name.split(",")]
    near = get_close_matches(name, table.columns, n=1)
    hint = f"did you mean {shown(near[0])}? " if near else ""
    if len(several) > 1 and set(several) <= set(table.columns):
        hint = f"each has an option of its own: {' '.join(f'{option} {part}' for part in several)}; "
    there = ", ".join(shown(column) for column in table.columns[:12])
    raise UserError(f"{table.name}: no column {shown(name)} ({option}); {hint}columns: {there}")


def names(table: Table, positions: Iterable[int]) -> str:
    return " + ".join(f"column {shown(table.columns[c])}" for c in positions)


def known(table: Table, wanted: Sequence[str], taken: Sequence[int]) -> tuple[int, ...]:
    """The first of the well-known names that is there."""
    there = {name.casefold(): c for c, name in reversed(list(enumerate(table.columns))) if c not in taken}
    return next(((there[name],) for name in wanted if name in there), ())


def known_texts(table: Table, taken: Sequence[int]) -> tuple[int, ...]:
    pairs = (known(table, (one,), taken) + known(table, (two,), taken) for one, two in KNOWN_PAIRS)
    return next((pair for pair in pairs if len(pair) == 2), None) or known(table, KNOWN_TEXTS, taken)


def longest(table: Table, taken: Sequence[int]) -> tuple[int, ...]:
    """The column whose texts are longest on average."""
    characters = {}
    for c in range(len(table.columns)):
        texts = [
            cell for row in table.rows[:LOOKED_AT] if isinstance(cell := row.cells[c], str) and cell.strip()
        ]
        if c not in taken and any(not NUMBER.fullmatch(text) for text in texts):
            characters[c] = sum(map(len, texts)) / len(texts)
    if not characters:
        there = ", ".join(shown(column) for column in table.columns[:12])
        raise UserError(f"{table.name}: no column holds text (columns: {there}); choose one with --text")
    return (max(characters, key=lambda c: characters[c]),)


def fewest(table: Table, taken: Sequence[int]) -> tuple[int, ...]:
    """The column with fewest different values, of those with two or more."""
    different = {
        c: len({str(row.cells[c]) for row in table.rows} - {"", "None"})
        for c in range(len(table.columns))
        if c not in taken
    }
    some = {c: count for c, count in different.items() if count > 1} or {
        c: n for c, n in different.items() if n
    }
    if not some:
        there = ", ".join(shown(column) for column in table.columns[:12])
        raise UserError(f"{table.name}: no column for the labels (columns: {there}); choose one with --label")
    best = min(some, key=lambda c: some[c])
    values = [str(row.cells[best]) for row in table.rows]
    if some[best] == len(values) > 20 and not any("." in v and NUMBER.fullmatch(v) for v in values):
        raise UserError(
            f"{table.name}: no column looks like labels, every value differs in each; choose one with --label"
        )
    return (best,)
