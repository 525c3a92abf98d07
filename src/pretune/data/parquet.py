"""Parquet files as tables, through pyarrow (the extra `data`)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from pretune.data.files import read_bytes
from pretune.data.tables import Table, TableRow
from pretune.errors import UserError


def read_parquet(path: Path, encoding: str, asked: Sequence[str]) -> Table:
    """All columns as Python values; rows are numbered from 1. Parquet states its own encoding."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path.name}: Parquet needs pyarrow; run pip install 'pretune[data]'") from None
    data = read_bytes(path)
    if not data:
        raise UserError(f"{path.name}: is empty; check the path, or write the rows")
    try:
        found = pyarrow.parquet.read_table(BytesIO(data))
        columns = [column.to_pylist() for column in found.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{path.name}: not readable as Parquet ({reason}); write or copy it again") from None
    if not columns or not found.num_rows:
        raise UserError(f"{path.name}: holds no rows; check how it was written")
    rows = [
        TableRow(f"{path.name}:{line}", cells) for line, cells in enumerate(zip(*columns, strict=True), 1)
    ]
    return Table(path.name, tuple(map(str, found.column_names)), rows)
