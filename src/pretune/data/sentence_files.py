"""A file of sentences, read as often as wanted, a row at a time: files of any size fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pretune.data.document_files import decoded_lines, read_file
from pretune.data.files import check_encoding, check_exists, shown, suffix
from pretune.data.jsonlines import json_object
from pretune.errors import UsageError, UserError

Sentence = str | list[str]  # a text, or its words

FORMS: Final = {
    ".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip


@dataclass(frozen=True)
class SentenceFile:
    """Every row of a file, blank ones too, in order: lines of .txt, rows of .csv, .tsv, .jsonl, .parquet.

    A text is under `column` ("text" if none is named, or a csv's only column). `split` takes it as words
    between spaces; a list of strings in .jsonl and .parquet is words as it is.
    """

    path: Path
    form: str
    column: str | None = None
    split: bool = False
    encoding: str = "utf-8"

    @classmethod
    def find(
        cls,
        path: Path,
        form: str | None = None,
        column: str | None = None,
        split: bool = False,
        encoding: str = "utf-8",
    ) -> SentenceFile:
        """`form` is the ending's if it is None."""
        check_exists(path)
        if path.is_dir():
            raise UserError(f"{path} is a folder where a file of sentences is needed")
        form = form or FORMS.get(suffix(path))
        if form is None or form not in FORMS.values():
            ways = ", ".join(dict.fromkeys(FORMS.values()))
            raise UserError(f"{path.name}: unknown ending; give --input-format, one of {ways}")
        if column is not None and form == "txt":
            raise UsageError(f"--text {shown(column)} names a column, but {path.name} has lines only")
        return cls(path, form, column, split, check_encoding(encoding))

    def __iter__(self) -> Iterator[Sentence]:
        for cell in self._cells():
            if isinstance(cell, str):
                text = cell.strip()
                yield text.split() if self.split else text
            else:
                yield cell

    def _cells(self) -> Iterator[Sentence]:
        if self.form == "jsonl":
            return self._objects()
        if self.form == "parquet":
            return self._parquet()
        ending = f".{self.form}"
        return iter(read_file(self.path, ending, self.encoding, "line", self.column))

    def _objects(self) -> Iterator[Sentence]:
        column = self.column or "text"
        for number, line in enumerate(decoded_lines(self.path, self.encoding), 1):
            if not line.strip():
                continue
            where = f"{self.path.name}:{number}"
            record = json_object(where, line)
            if column not in record:
                names = ", ".join(list(record)[:12])
                raise UserError(f"{where}: no key {shown(column)}; name the text's with --text: {names}")
            yield _cell(record[column], where)

    def _parquet(self) -> Iterator[Sentence]:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError(f"{self.path.name}: Parquet needs pyarrow: pip install 'pretune[data]'") from None
        column, number = self.column or "text", 0
        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                if column not in file.schema_arrow.names:
                    names = ", ".join(file.schema_arrow.names[:12])
                    raise UserError(
                        f"{self.path.name}: no column {shown(column)}; name the text's with --text: {names}"
                    )
                for batch in file.iter_batches(1024, columns=[column]):
                    for cell in batch.column(0).to_pylist():
                        number += 1
                        yield _cell(cell, f"{self.path.name}:{number}")
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:80]
            raise UserError(f"{self.path.name}: not readable as Parquet ({reason})") from None


def _cell(cell: Any, where: str) -> Sentence:
    if cell is None:
        return ""
    if isinstance(cell, str) or (isinstance(cell, list) and all(isinstance(word, str) for word in cell)):
        return cell
    raise UserError(f"{where}: {shown(cell)} is no text and no list of words; see --text")
