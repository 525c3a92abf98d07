"""Files of word vectors: GloVe text, word2vec text and binary, plain or compressed (.gz, .xz)."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from pretune.errors import UserError

Vector = NDArray[np.float32]
UNKNOWN = "<unk>"  # stands for all other words in some files, and is none itself
LONGEST = 1 << 20  # bytes of one line or word; a longer one means that the file is no vector file


class Layout(NamedTuple):
    """What the first bytes of a file tell."""

    kind: Literal["text", "binary"]
    width: int  # D
    header: bool  # word2vec's first line: how many words, how wide


def read_vectors(
    file: Path, *, max_words: int | None = None, words: Container[str] | None = None
) -> tuple[list[str], Vector]:
    """Words and their vectors (W, D) in the order of the file; of a repeated word, the first.

    `max_words` takes the first (most frequent) ones, `words` only those that it contains.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file of word vectors")
    names: dict[str, None] = {}
    vectors: list[Vector] = []
    try:
        layout = _layout(file)
        with _open(file) as stream:
            read = _text if layout.kind == "text" else _binary
            for place, name, vector in read(stream, file, layout, words):
                if name in names or name == UNKNOWN or (words is not None and name not in words):
                    continue
                if not np.isfinite(vector).all():
                    raise UserError(f"{place}: the vector of {name!r} has a value that is not finite")
                names[name] = None
                vectors.append(vector)
                if len(vectors) == max_words:
                    break
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError) as broken:
        raise UserError(f"{file}: cannot decompress: {broken}") from None
    if not vectors:
        raise UserError(f"{file}: holds no vector of a wanted word")
    return list(names), np.stack(vectors)


def write_vectors(file: Path, words: Sequence[str], table: Vector) -> None:
    """word2vec's binary format, which keeps every bit; words must be free of white space."""
    with file.open("wb") as stream:
        stream.write(f"{len(words)} {table.shape[1]}\n".encode())
        for word, vector in zip(words, table.astype("<f4"), strict=True):
            stream.write(word.encode() + b" " + vector.tobytes() + b"\n")


def _open(file: Path) -> BinaryIO:
    if file.suffix == ".gz":
        return cast(BinaryIO, gzip.open(file, "rb"))
    if file.suffix == ".xz":
        return cast(BinaryIO, lzma.open(file, "rb"))
    return file.open("rb")


def _layout(file: Path) -> Layout:
    with _open(file) as stream:
        first = stream.readline(LONGEST).split()
        if len(first) == 2 and all(field.isdigit() for field in first):
            width = int(first[1])
            if not width:
                raise UserError(f"{file}:1: the header says that vectors have no numbers")
            return Layout("text" if _is_text(stream.readline(LONGEST), width) else "binary", width, True)
        if len(first) < 3 or not _is_text(b" ".join(first), 1):
            raise UserError(
                f"{file}:1: is neither a line of GloVe (a word and its numbers) nor a header of word2vec "
                "(two whole numbers)"
            )
        return Layout("text", len(first) - 1, False)


def _is_text(line: bytes, width: int) -> bool:
    fields = line.split()
    try:
        return len(fields) > width and all(map(_is_number, fields[-width:])) and bool(line.decode())
    except UnicodeDecodeError:
        return False


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _text(
    stream: BinaryIO, file: Path, layout: Layout, words: Container[str] | None
) -> Iterator[tuple[str, str, Vector]]:
    """(place, word, vector) of each line; words may hold spaces, as a few of GloVe's do."""
    for number, line in enumerate(stream, start=1):
        place = f"{file}:{number}"
        if (number == 1 and layout.header) or not line.strip():
            continue
        fields = line.rstrip().rsplit(None, layout.width)
        if len(fields) <= layout.width:
            raise UserError(f"{place}: has {len(fields) - 1} numbers where {layout.width} are expected")
        name = _word(fields[0], place)
        if words is not None and name not in words:
            continue
        try:
            vector = np.array(fields[1:], dtype=np.float32)  # (D,)
        except ValueError as wrong:
            raise UserError(f"{place}: the vector of {name!r} is malformed: {wrong}") from None
        yield place, name, vector


def _binary(
    stream: BinaryIO, file: Path, layout: Layout, words: Container[str] | None
) -> Iterator[tuple[str, str, Vector]]:
    """(place, word, vector): a word, a space, D little-endian float32, perhaps a line feed."""
    count = int(stream.readline(LONGEST).split()[0])
    size = 4 * layout.width
    buffer, at = b"", 0
    for number in range(1, count + 1):
        place = f"{file}: word {number}"
        while (space := buffer.find(b" ", at)) < 0 or len(buffer) < space + 1 + size:
            more = stream.read(LONGEST)
            if not more or (space < 0 and len(buffer) - at > LONGEST):
                raise UserError(f"{place}: the file is cut or damaged; its header promises {count} words")
            buffer, at = buffer[at:] + more, 0
        name = _word(buffer[at:space].lstrip(b"\n"), place)
        at = space + 1 + size
        yield place, name, np.frombuffer(buffer, "<f4", layout.width, space + 1).astype(np.float32)


def _word(raw: bytes, place: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as wrong:
        raise UserError(f"{place}: the word {raw!r} is not UTF-8: {wrong.reason}") from None
