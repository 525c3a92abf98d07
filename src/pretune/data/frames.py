"""Labelled rows that are already in Python as tables: pandas' frames, Datasets, lists of dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeGuard, runtime_checkable

from pretune.data.files import listed, shown
from pretune.data.tables import Table, TableRow
from pretune.errors import UserError

ACCEPTED: Final = (
    "a pandas DataFrame, a datasets.Dataset (one split), or a list of dicts that have the same keys"
)


@runtime_checkable
class Frame(Protocol):
    """What of a DataFrame is looked at; pandas itself is imported by nobody but the user."""

    columns: Any
    iloc: Any
    shape: Any


@runtime_checkable
class Dataset(Protocol):
    """Something with named columns that gives its rows as dicts, as `datasets.Dataset` does."""

    column_names: Any

    def __iter__(self) -> Iterator[Any]: ...


InPython = Frame | Dataset | Sequence[Mapping[str, Any]]


def is_table(data: object) -> TypeGuard[InPython]:
    """Whether `table_of` makes a table of it: it has columns, or is a sequence that begins with a dict."""
    if isinstance(data, Frame):
        return True
    if isinstance(data, Dataset) and not isinstance(data, Mapping):
        return isinstance(data.column_names, list)
    return isinstance(data, Sequence) and len(data) > 0 and isinstance(data[0], Mapping)


def table_of(data: InPython, name: str) -> Table:
    """The table; rows are called "name:row", counted from 0 as `df.iloc[row]` and `data[row]` are.

    What pandas calls missing is missing. Whole numbers that pandas made fractions because others in their
    column are missing are whole again. The numbers of a Dataset's `ClassLabel` become their names.
    """
    if isinstance(data, Frame):
        columns, rows = _of_frame(data, name)
    else:
        columns, rows = _of_dicts(data, name)
    if not columns:
        raise UserError(f"{name}: has no columns; give {ACCEPTED}")
    if not rows:
        raise UserError(f"{name}: holds no rows; check how it was made")
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise UserError(f"{name}: two columns are named {shown(twice[0])}; rename one")
    return Table(name, columns, [TableRow(f"{name}:{i}", cells) for i, cells in enumerate(rows)])


def _of_frame(frame: Frame, name: str) -> tuple[tuple[str, ...], list[Sequence[object]]]:
    columns: list[list[object]] = []
    for i in range(frame.shape[1]):
        column = frame.iloc[:, i]
        missing = [bool(x) for x in column.isna()]
        cells = [None if gone else plain(cell) for cell, gone in zip(column, missing, strict=True)]
        if any(missing) and all(x is None or (isinstance(x, float) and x.is_integer()) for x in cells):
            cells = [x if x is None else int(x) for x in cells]  # type: ignore[call-overload]
        columns.append(cells)
    return tuple(map(str, frame.columns)), [list(row) for row in zip(*columns, strict=True)]


def _of_dicts(data: Iterable[Any], name: str) -> tuple[tuple[str, ...], list[Sequence[object]]]:
    """A key that a row lacks is missing there, as in JSON lines."""
    given = getattr(data, "column_names", None)
    columns: dict[str, None] = dict.fromkeys(map(str, given or ()))
    rows: list[dict[str, object]] = []
    for i, row in enumerate(data):
        if not isinstance(row, Mapping):
            raise UserError(
                f"{name}:{i}: {type(row).__name__} {shown(row)} where a dict is needed; give {ACCEPTED}"
            )
        rows.append({str(key): plain(cell) for key, cell in row.items()})
        columns.update(dict.fromkeys(rows[-1]))
    for column, names in _named(data).items():
        for i, cells in enumerate(rows):
            cells[column] = _label(cells.get(column), names, f"{name}:{i}", column)
    return tuple(columns), [[row.get(column) for column in columns] for row in rows]


def _named(data: object) -> dict[str, list[str]]:
    """The columns of a Dataset whose numbers have names."""
    features = getattr(data, "features", None)
    found = features.items() if isinstance(features, Mapping) else ()
    return {
        str(column): kind.names for column, kind in found if isinstance(getattr(kind, "names", None), list)
    }


def _label(cell: object, names: Sequence[str], where: str, column: str) -> str | None:
    if cell is None or cell == -1:  # as Datasets write that there is no label
        return None
    if not isinstance(cell, int) or not 0 <= cell < len(names):
        raise UserError(
            f"{where}: column {shown(column)} holds {shown(cell)}, which is none of its {len(names)} labels "
            f"({listed(list(names), 3)})"
        )
    return names[cell]


def plain(cell: object) -> object:
    """A cell as JSON would give it: arrays and tuples as lists, numpy's numbers and texts as Python's."""
    if hasattr(cell, "tolist"):  # numpy's scalars and arrays
        cell = cell.tolist()
    if isinstance(cell, (list, tuple)):
        return [plain(one) for one in cell]
    if isinstance(cell, Mapping):
        return {str(key): plain(one) for key, one in cell.items()}
    return cell
