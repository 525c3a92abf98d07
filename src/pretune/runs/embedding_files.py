"""Files of embeddings, written a sentence at a time: HDF5 as bilm-tf or AllenNLP, Parquet, safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Protocol, get_args

import numpy as np

from pretune.data.files import listed
from pretune.data.hdf5 import library
from pretune.errors import UsageError, UserError, choose
from pretune.runs.embedder import Embedded, Embedder, Layers
from pretune.runs.readings import Sentence

Format = Literal["bilm", "allennlp"]
Shapes = Iterable[tuple[int, ...]]  # of the vectors of each sentence, in order

ENDINGS = (".h5", ".hdf5", ".parquet", ".safetensors")
GROUP_BYTES = 64 << 20  # of a row group of Parquet
HEADER_BYTES = 100_000_000  # of a safetensors file, above which its readers refuse it


class Writer(Protocol):
    """A file that grows; a context manager, which finishes the file if no error leaves it."""

    def __enter__(self) -> Writer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, sentence: Sentence, found: Embedded) -> None: ...


def check_output(out: Path, form: Format | None, layers: Layers, embedder: Embedder) -> None:
    """Raise before hours of work if their result could not be written to `out` so."""
    if out.suffix not in ENDINGS:
        raise UsageError(f"--out {out}: name it {', '.join(ENDINGS)} or .jsonl")
    if form is not None and form not in get_args(Format):
        raise choose("--format", form, get_args(Format))
    if form is not None and out.suffix not in ENDINGS[:2]:
        raise UsageError(f"--format {form} is a layout of .h5 files; leave it out for {out.suffix}")
    if form == "allennlp" and layers not in ("all", "top", "average"):
        raise UsageError(f"AllenNLP's files hold layers all, top or average, not {layers}")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserError(f"{out}: its folder does not exist, or cannot be written to")
    embedder.shape(0, layers)
    if out.suffix == ".parquet":
        _pyarrow()
    elif out.suffix != ".safetensors":
        library()


@contextmanager
def renamed(out: Path) -> Iterator[Path]:
    """A name beside `out` to write to, which takes the place of `out` if no error leaves the block."""
    new = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield new
        new.replace(out)
    finally:
        with suppress(FileNotFoundError):
            new.unlink()


@contextmanager
def embedding_file(
    out: Path, form: Format | None, layers: Layers, shapes: Callable[[], Shapes], keep_sentences: bool = True
) -> Iterator[Writer]:
    """The writer for `out`, whole or absent. `shapes` is asked only by formats that begin with them."""
    with renamed(out) as new:
        writer: Writer
        if out.suffix == ".parquet":
            writer = ParquetWriter(new, layers)
        elif out.suffix == ".safetensors":
            writer = SafetensorsWriter(new, layers, shapes())
        else:
            writer = Hdf5Writer(new, form == "allennlp" and keep_sentences)
        with writer:
            yield writer


class Hdf5Writer:
    """Datasets "0", "1", ... by the number of the sentence, float32: `dump_bilm_embeddings`.

    With `index` also AllenNLP's `sentence_to_index`: (1,), a JSON object of each sentence and its key, the
    last one's where a sentence stands twice. It is one string, so the sentences are held until the end.
    """

    def __init__(self, path: Path, index: bool) -> None:
        self.h5py = library()
        self.path, self.number = path, 0
        self.index: dict[str, str] | None = {} if index else None

    def __enter__(self) -> Hdf5Writer:
        self.file: Any = self.h5py.File(self.path, "w")
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None and self.index is not None:
            found = self.file.create_dataset("sentence_to_index", (1,), self.h5py.string_dtype())
            found[0] = json.dumps(self.index)
        self.file.close()

    def write(self, sentence: Sentence, found: Embedded) -> None:
        key = str(self.number)
        self.file.create_dataset(key, data=np.asarray(found.vectors, np.float32))
        if self.index is not None:
            self.index[sentence if isinstance(sentence, str) else " ".join(sentence)] = key
        self.number += 1


class ParquetWriter:
    """Columns key, text, words and vectors: lists (T, D), or (L, T, D) for all layers, (S,) for summaries."""

    def __init__(self, path: Path, layers: Layers) -> None:
        self.arrow = arrow = _pyarrow()
        kind = arrow.float32()
        for _ in range({"all": 3, "summary": 1}.get(layers, 2)):
            kind = arrow.list_(kind)
        self.schema = arrow.schema(
            {
                "key": arrow.int64(),
                "text": arrow.string(),
                "words": arrow.list_(arrow.string()),
                "vectors": kind,
            }
        )
        self.path, self.number, self.held, self.size = path, 0, [], 0
        self.rows: list[tuple[int, str, list[str]]] = []

    held: list[Any]

    def __enter__(self) -> ParquetWriter:
        self.file = self.arrow.parquet.ParquetWriter(self.path, self.schema)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self._flush()
        self.file.close()

    def write(self, sentence: Sentence, found: Embedded) -> None:
        vectors = np.asarray(found.vectors, np.float32)
        text = sentence if isinstance(sentence, str) else " ".join(sentence)
        self.rows.append((self.number, text, found.words))
        self.held.append(vectors)
        self.number += 1
        self.size += vectors.nbytes
        if self.size > GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        """A row group of what is held."""
        if not self.rows:
            return
        flat: Any = self.arrow.array(np.concatenate([x.ravel() for x in self.held]))
        for depth in reversed(range(self.held[0].ndim)):  # lists of the innermost numbers first
            sizes = np.concatenate(
                [np.full(int(np.prod(x.shape[:depth])), x.shape[depth]) for x in self.held]
            )
            offsets = np.concatenate(([0], sizes.cumsum())).astype(np.int32)
            flat = self.arrow.ListArray.from_arrays(self.arrow.array(offsets), flat)
        columns = [self.arrow.array(column, kind) for column, kind in zip(zip(*self.rows), self.schema.types)]
        self.file.write_table(self.arrow.Table.from_arrays([*columns, flat], schema=self.schema))
        self.rows, self.held, self.size = [], [], 0


class SafetensorsWriter:
    """Tensors "0", "1", ... by the number of the sentence.

    The format begins with the shapes of all, so they are written first, from a pass over the words alone;
    then tensors follow one another, none of them kept.
    """

    def __init__(self, path: Path, layers: Layers, shapes: Shapes) -> None:
        self.path, self.layers, self.shapes, self.number = path, layers, shapes, 0

    def __enter__(self) -> SafetensorsWriter:
        self.file: IO[bytes] = self.path.open("wb")
        try:
            self._header()
        except BaseException:
            self.file.close()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.file.close()

    def _header(self) -> None:
        """Its length, then JSON, padded to 8 bytes."""
        self.file.write(bytes(8))
        self.file.write(json.dumps({"__metadata__": {"layers": self.layers}})[:-1].encode())
        at = 0
        for number, shape in enumerate(self.shapes):
            end = at + 4 * int(np.prod(shape))
            entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
            self.file.write(f', "{number}": {json.dumps(entry)}'.encode())
            if self.file.tell() > HEADER_BYTES:
                raise UserError(
                    f"{number + 1} sentences are more than a safetensors file can name; write .h5 or .parquet"
                )
            at = end
        self.file.write(b"}")
        self.file.write(b" " * (-self.file.tell() % 8))
        length = self.file.tell() - 8
        self.file.seek(0)
        self.file.write(length.to_bytes(8, "little"))
        self.file.seek(0, os.SEEK_END)

    def write(self, sentence: Sentence, found: Embedded) -> None:
        self.file.write(np.ascontiguousarray(found.vectors, "<f4").tobytes())
        self.number += 1


def check_blank(sentences: Iterable[Sentence], form: Format | None, name: str) -> int:
    """How many sentences there are; in AllenNLP's format blank ones are an error, as they are there."""
    count, blank = 0, []
    for sentence in sentences:
        if not sentence:
            blank.append(str(count))
        count += 1
    if not count:
        raise UserError(f"{name}: holds no sentence; check the file")
    if blank and form == "allennlp":
        raise UserError(
            f"{name}: AllenNLP's format has no place for blank lines, counted from 0: {listed(blank, 20)}; "
            "remove them, or choose --format bilm, where they are empty arrays"
        )
    return count


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet files need pyarrow: pip install 'pretune[data]'") from None
    return pyarrow
