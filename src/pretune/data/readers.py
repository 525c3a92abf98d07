"""A user's labelled file -> samples: csv, tsv, json lines, Parquet, a folder a class, label-first lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pretune.data.columns import choose_columns
from pretune.data.files import check_exists, listed, read_text, shown, suffix
from pretune.data.folders import read_folder
from pretune.data.golds import NO_CONSENSUS, LabelKind, in_column, label_notes, read_golds
from pretune.data.jsonlines import read_jsonl
from pretune.data.parquet import read_parquet
from pretune.data.samples import Part, Sample
from pretune.data.tables import (
    Table,
    TableRow,
    read_csv,
    read_label_first,
    read_lines,
    read_tsv,
)
from pretune.errors import UserError, choose

__all__ = ["FORMATS", "LabelKind", "Reading", "from_table", "read_samples"]

FORMATS: Final[dict[str, Callable[[Path, str, Sequence[str]], Table]]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "label-first": read_label_first,
    "txt": read_lines,
}
ENDINGS: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
}


@dataclass(frozen=True)
class Reading:
    """What a file gave."""

    samples: list[Sample]  # gold: str for one, sorted tuple for many, float for number, None if unlabelled
    kind: LabelKind
    text_columns: tuple[str, ...]
    label_columns: tuple[str, ...]
    notes: list[str]  # for the user: guesses, and rows that were left out


def read_samples(
    path: Path,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    kind: LabelKind | None = None,
    label_separator: str | None = None,
    format: str | None = None,  # noqa: A002 - the option's name
    encoding: str = "utf-8",
    labelled: bool = True,
) -> Reading:
    """The samples of a file or folder; `key` is "file:line".

    `format` is one of FORMATS or "folder"; without it the ending decides. Columns that are not named are
    guessed (`data.columns`), and so is `kind`. Several `label` columns of 0 and 1, a `label_separator`, or
    lists in JSON and Parquet make multi-label golds. Labelled rows with blank text or without label are left
    out and noted; with `labelled=False` every row stays, in order, and golds are None.
    """
    table = read_table(path, [*text, *label], format, encoding, labelled)
    return from_table(
        table, text=text, label=label, kind=kind, label_separator=label_separator, labelled=labelled
    )


def read_table(
    path: Path,
    asked: Sequence[str],
    form: str | None,
    encoding: str,
    labelled: bool,
) -> Table:
    """The table in a file of format `form`, or of the format that its ending tells."""
    if form is not None and form not in (*FORMATS, "folder"):
        raise choose("--format", form, [*FORMATS, "folder"])
    check_exists(path)
    if form == "folder" or (form is None and path.is_dir()):
        return read_folder(path, encoding, labelled)
    if form is None and suffix(path) == ".txt" and asked and _has_columns(path, asked, encoding):
        form = "tsv"
    form = form or ENDINGS.get(suffix(path))
    if form is None:
        raise UserError(
            f"{path.name}: unknown ending; name it {', '.join(ENDINGS)} (also .gz or .xz after it), "
            f"or give --format {'|'.join(FORMATS)}"
        )
    if form == "txt" and labelled:
        raise UserError(
            f"{path.name}: plain lines have no labels; give --format label-first (lines LABEL TEXT) or tsv, "
            "or save as .csv"
        )
    return FORMATS[form](path, encoding, asked)


def _has_columns(path: Path, asked: Sequence[str], encoding: str) -> bool:
    """Whether a file of lines is one of columns between tabs, whose first line names those asked for."""
    first = read_text(path, encoding).partition("\n")[0].strip().split("\t")
    return len(first) > 1 and set(asked) <= set(first)


def from_table(
    table: Table,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    kind: LabelKind | None = None,
    label_separator: str | None = None,
    labelled: bool = True,
) -> Reading:
    """The samples of a table, as `read_samples` makes them of a file."""
    columns = choose_columns(table, text, label, labelled)
    notes = [*table.notes, *columns.notes]
    texts = [tuple(text_of(row, c, table.columns[c]) for c in columns.texts) for row in table.rows]
    if labelled:
        kind, golds = read_golds(table, columns.labels, kind, label_separator)
        blank = [not any(part.strip() for part in parts) for parts in texts]
        missing = [gold is None for gold in golds]
        no_label = [m and not b for m, b in zip(missing, blank, strict=True)]
        notes += left_out(table, "text", blank) + no_consensus(table, columns.labels, no_label)
        keep = [not (b or m) for b, m in zip(blank, missing, strict=True)]
    else:
        golds, keep = [None] * len(texts), [True] * len(texts)
    samples = [
        Sample(row.where, tuple(map(Part, parts)), gold)
        for row, parts, gold, kept in zip(table.rows, texts, golds, keep, strict=True)
        if kept
    ]
    if not samples:
        what = "label" if all(gold is None for gold in golds) else "text"
        column = shown(table.columns[(columns.labels if what == "label" else columns.texts)[0]])
        raise UserError(f"{table.name}: no row has a {what} (column {column}); choose with --{what} COLUMN")
    if labelled:
        notes += label_notes(table.name, [sample.gold for sample in samples], kind or "one")
    return Reading(
        samples,
        kind or "one",
        tuple(table.columns[c] for c in columns.texts),
        tuple(table.columns[c] for c in columns.labels),
        notes,
    )


def text_of(row: TableRow, column: int, name: str | None = None) -> str:
    """A cell as text; what JSON or Parquet leaves out is blank, numbers are spelled. Errors say `name`."""
    cell = row.cells[column]
    if isinstance(cell, str):
        return cell
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool | int | float):
        return json.dumps(cell)
    raise UserError(
        f"{row.where}: the text is a {type(cell).__name__}{in_column(name)}; write it as one string, "
        "or choose with --text"
    )


def no_consensus(table: Table, labels: Sequence[int], missing: Sequence[bool]) -> list[str]:
    """Notes on rows without label, and on those whose label is the mark of annotators who did not agree."""
    marked = [
        m and len(labels) == 1 and row.cells[labels[0]] == NO_CONSENSUS
        for m, row in zip(missing, table.rows, strict=True)
    ]
    blank = [m and not dash for m, dash in zip(missing, marked, strict=True)]
    dashes = left_out(table, f"label ({shown(NO_CONSENSUS)}: annotators did not agree)", marked)
    return left_out(table, "label", blank) + dashes


def left_out(table: Table, what: str, rows: Sequence[bool]) -> list[str]:
    """A note on labelled rows that cannot be used."""
    where = [row.where for row, out in zip(table.rows, rows, strict=True) if out]
    count = f"{len(where)} row{'s' * (len(where) > 1)} without {what} left out"
    return [f"{table.name}: {count} ({listed(where, 3)})"] if where else []
