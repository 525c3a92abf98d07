"""One file of raw text -> its documents, a line at a time: files of any size fit."""

from __future__ import annotations

import csv
import gzip
import lzma
import zlib
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from pretune.data.files import MAGIC, shown
from pretune.data.jsonlines import json_object
from pretune.errors import UserError

Split = Literal["file", "blank", "line"]

TEXTS: Final = (".txt",)
TABLES: Final = (".jsonl", ".ndjson", ".csv", ".tsv")
PACKS: Final = {start: what for start, what in MAGIC.items() if start != b"PAR1"}  # a corpus is no Parquet


def read_file(path: Path, ending: str, encoding: str, split: Split, column: str | None) -> Iterator[str]:
    """The documents of one file, blank ones too. `split` is for .txt files, `column` for all others."""
    lines = decoded_lines(path, encoding)
    if ending in (".jsonl", ".ndjson"):
        return _objects(path.name, lines, column or "text")
    if ending in (".csv", ".tsv"):
        return _column(path.name, lines, "\t" if ending == ".tsv" else ",", column)
    if split == "file":
        return iter(["".join(lines)])
    return _paragraphs(lines) if split == "blank" else lines


def opened(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked while they are read if its name ends in .gz or .xz."""
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix.lower() == ".xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    return path.open("rb")


def decoded_lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines with their ends, without a byte-order mark.

    Raises UserError with file and line where a byte does not fit `encoding`, or is NUL.
    """
    line = 0
    by_bytes = "\n".encode(encoding) == b"\n"  # else lines cannot be told apart before decoding: UTF-16
    try:
        with opened(path) as stream:
            for line, text in enumerate(_decoded(path, stream, encoding, by_bytes), 1):
                if "\0" in text:
                    raise UserError(
                        f"{path.name}:{line}: NUL byte; not a text file, or UTF-16 (--encoding utf-16)"
                    )
                yield text
    except UnicodeError as error:
        where = f"{path.name}:{line + 1}" if by_bytes else f"{path.name}, after line {line}"
        byte = (
            f"byte 0x{error.object[error.start]:02x}" if isinstance(error, UnicodeDecodeError) else str(error)
        )
        raise UserError(
            f"{where}: {byte} is not {encoding.upper()}; "
            "give the file's true encoding with --encoding (latin-1, gb18030, utf-16, ...)"
        ) from None
    except EOFError:
        raise UserError(f"{path.name}: the packed file is cut short; copy or download it again") from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{path.name}: not valid {path.suffix[1:]} data ({error}); copy it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _decoded(path: Path, stream: BinaryIO, encoding: str, by_bytes: bool) -> Iterator[str]:
    if not by_bytes:
        yield from TextIOWrapper(stream, encoding, newline="\n")
        return
    for number, line in enumerate(stream):
        if number == 0:
            for start, what in PACKS.items():
                if line.startswith(start):
                    raise UserError(f"{path.name}: is {what}")
        text = line.decode(encoding)
        yield text.removeprefix("\ufeff") if number == 0 else text


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    for line in lines:
        if line.strip():
            held.append(line)
        elif held:
            yield "".join(held)
            held = []
    yield "".join(held)


def _objects(name: str, lines: Iterable[str], column: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = json_object(f"{name}:{number}", line)
        if column not in record:
            raise UserError(
                f"{name}:{number}: no key {shown(column)}; name the text's with --text: {_names(record)}"
            )
        text = record[column]
        if text is None:
            continue
        if not isinstance(text, str):
            raise UserError(
                f"{name}:{number}: {shown(column)} is {shown(text)}, which is no text; see --text"
            )
        yield text


def _column(name: str, lines: Iterable[str], delimiter: str, column: str | None) -> Iterator[str]:
    """One column of a table with a header; in a .tsv, quotes are ordinary characters."""
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))  # the largest that every C long holds
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    start = 1
    try:
        header = [cell.strip() for cell in next(reader, [])]
        wanted = column or ("text" if "text" in header or len(header) != 1 else header[0])
        if wanted not in header:
            raise UserError(
                f"{name}:1: no column {shown(wanted)}; name the text's with --text: {_names(header)}"
            )
        place = header.index(wanted)
        start = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise UserError(f"{name}:{start}: {len(row)} columns where the header has {len(header)}")
            if row:
                yield row[place]
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{name}:{start}: malformed row ({error}); check its quotes") from None


def _names(columns: Iterable[str]) -> str:
    return ", ".join(list(columns)[:12]) or "there are none"
