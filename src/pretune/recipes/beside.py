"""Word vectors beside an encoder: frozen, looked up by what each token covers of the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.data.vector_files import read_vectors, write_vectors
from pretune.data.vocab import Vocab
from pretune.errors import UsageError
from pretune.tasks.around import Around

VECTORS = "word_vectors"  # in `Batch.given`: (N, T, D)
FILE = "vectors.bin"  # of a model folder, in word2vec's binary format


@dataclass(frozen=True, eq=False)
class Vectors:
    """Words and their vectors."""

    words: dict[str, int]  # word -> its row, from 1
    table: Tensor  # (W + 1, D); row 0 is zero and stands for every other word

    @classmethod
    def read(cls, file: Path, most: int | None = None) -> Vectors:
        """A GloVe or word2vec file, or its `most` first words."""
        stat = file.stat() if file.is_file() else None
        return _read(file, most, stat and (stat.st_mtime_ns, stat.st_size))

    @property
    def width(self) -> int:
        return self.table.shape[1]

    def row(self, word: str) -> int:
        """As the text has it, else in lower case, else 0."""
        return self.words.get(word) or self.words.get(word.lower(), 0)

    def save(self, folder: Path) -> None:
        write_vectors(folder / FILE, list(self.words), self.table[1:].numpy())


@lru_cache(maxsize=1)
def _read(file: Path, most: int | None, stamp: object) -> Vectors:
    names, table = read_vectors(file, max_words=most)
    kept = [i for i, name in enumerate(names) if name == "".join(name.split())]  # no token has a space
    rows = torch.zeros(len(kept) + 1, table.shape[1])  # (W + 1, D)
    rows[1:] = torch.from_numpy(table[kept])
    return Vectors({names[i]: row for row, i in enumerate(kept, start=1)}, rows)


@dataclass(frozen=True)
class BesideVectors(Around):
    """`task`, whose batches also have a vector of each token's word.

    The word is the text that the token covers; what covers none, such as a mark of beginning, has zeros.
    """

    vectors: Vectors

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        if not isinstance(getattr(codec, "vocab", ""), (Vocab, type(None))):
            raise UsageError(
                "recipe.vectors are looked up by whole words, and this encoder reads other pieces of text "
                f"({codec.describe()}); leave recipe.vectors out"
            )
        return self.task.rows(codec, samples)

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        found = [list(self._rows_of(sample, row)) for sample, row in _pairs(samples, rows)]
        ids = torch.zeros(len(found), max(map(len, found)), dtype=torch.long)  # (N, T)
        for n, own in enumerate(found):
            ids[n, : len(own)] = torch.tensor(own)
        return {**self.task.given(samples, rows), VECTORS: self.vectors.table[ids]}  # (N, T, D)

    def share(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> float:
        """Of the tokens that cover text, how many have a vector."""
        known = tokens = 0
        for sample, row in _pairs(samples, rows):
            known += sum(place > 0 for place in self._rows_of(sample, row))
            tokens += sum(span.end > span.start for span in row.chars)
        return known / max(1, tokens)

    def _rows_of(self, sample: Sample, row: Row) -> Iterator[int]:
        """The row in the table of each token's word."""
        for part, span in zip(row.part, row.chars, strict=True):
            yield self.vectors.row(sample.parts[part].text[span.start : span.end]) if part >= 0 else 0


def _pairs(samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> Iterator[tuple[Sample, Row]]:
    for sample, of_sample in zip(samples, rows, strict=True):
        for row in of_sample:
            yield sample, row
