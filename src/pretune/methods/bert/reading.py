"""Where BERT's pretraining reads: sentences and instances, in files mapped into memory, and batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pretune.data.corpus import token_file
from pretune.data.sentences import sentences
from pretune.data.token_file import TokenFile
from pretune.errors import UserError
from pretune.keys import key
from pretune.methods.bert.instances import Instance, Making, Marks, generated, shuffled
from pretune.methods.bert.tokens import BERTCodec
from pretune.methods.bert.wordpiece import INSIDE
from pretune.tensors.batch import Batch
from pretune.tensors.streams import NO_TARGET
from pretune.training.progress import passed

Corpus = Callable[[], Iterable[str]]
Split = Literal["sentences", "lines"]
Places = NDArray[np.int64]

LONGEST: Final = 128  # tokens; what has no end mark for longer is cut there, or most of it would be lost
AT_ONCE: Final = 1000  # instances written
SCANNED: Final = 1 << 24  # tokens looked at at a time


@dataclass(frozen=True)
class Document:
    """Its sentences, read when they are asked for."""

    ids: NDArray[Any]
    ends: Places  # (sentences + 1,) behind each, the mark that ends it included; the first is the beginning

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, n: int) -> list[int]:
        found: list[int] = self.ids[self.ends[n] : self.ends[n + 1] - 1].tolist()
        return found


@dataclass(frozen=True)
class SentenceFile:
    """Documents that are sentences, each of which ends with [SEP] in the token file."""

    tokens: TokenFile
    ends: Places  # (sentences + 1,)
    first: Places  # (documents + 1,) where each begins among `ends`; none is empty

    @classmethod
    def of(cls, corpus: Corpus, codec: BERTCodec, split: Split, cache: Path) -> SentenceFile:
        def encode(texts: list[str]) -> list[list[int]]:
            return [_marked(codec.ids(_cut(text, split)), split, codec.sep_id) for text in texts]

        tokens = token_file(corpus, encode, f"{codec.fingerprint()} {split}", cache)
        parts = (slice(at, at + SCANNED) for at in range(0, len(tokens.ids), SCANNED))
        found = [np.flatnonzero(tokens.ids[part] == codec.sep_id) + part.start + 1 for part in parts]
        ends = np.concatenate([np.zeros(1, np.int64), *found])
        return cls(tokens, ends, np.unique(np.searchsorted(ends, tokens.starts)))

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def sentences(self) -> int:
        return len(self.ends) - 1

    def beside(self, *what: object) -> Path:
        """Where a file that is made of these documents lies: it has a name of its own for other ones."""
        folder = Path(str(self.tokens.ids.filename)).parent
        name = blake2b(repr((folder.name, what)).encode(), digest_size=16).hexdigest()
        return folder.with_name(f"instances-{name}")

    def __getitem__(self, d: int) -> Document:
        return Document(self.tokens.ids, self.ends[self.first[d] : self.first[d + 1] + 1])


def _cut(text: str, split: Split) -> list[str]:
    return [*sentences(text)] if split == "sentences" else text.split("\n")


def _marked(found: Iterable[list[int]], split: Split, separator: int) -> list[int]:
    """Sentences end to end, each before a separator, without those that have no tokens."""
    ids: list[int] = []
    for sentence in filter(None, found):
        longest = LONGEST if split == "sentences" else len(sentence)
        for at in range(0, len(sentence), longest):
            ids += [*sentence[at : at + longest], separator]
    return ids


def marks_of(codec: BERTCodec) -> Marks:
    inside = [word.startswith(INSIDE) for word in codec.vocab.words]
    return Marks(codec.cls_id, codec.sep_id, codec.mask_id, inside)


@dataclass(frozen=True)
class InstanceFile:
    """Instances on disk, mapped into memory, and the order in which they are learned from."""

    records: np.memmap[Any, Any]  # (n,)
    order: Places  # (n,)

    def __len__(self) -> int:
        return len(self.order)

    def batch(self, wanted: NDArray[Any], pad_id: int, pairs: bool) -> Batch:
        """Those at some places of the order.

        `given["places"]` (N, P): where words are predicted, -1 where there are fewer; `gold["labels"]`
        (N, P): which; `gold["elsewhere"]` (N,): 1 where the second segment does not follow the first.
        """
        records = self.records[self.order[wanted]]
        size, asked = int(records["size"].max()), int(records["asked"].max())  # T, P
        place = np.arange(size)
        inside = place < records["size"][:, None]  # (N, T)
        known = np.arange(asked) < records["asked"][:, None]  # (N, P)

        def column(name: str, width: int, real: NDArray[Any], empty: int) -> torch.Tensor:
            values = records[name][:, :width].astype(np.int64)
            return torch.from_numpy(np.where(real, values, empty))

        second = inside & (place >= records["first"][:, None]) & pairs
        gold = {"labels": column("labels", asked, known, NO_TARGET)}
        if pairs:
            gold["elsewhere"] = torch.from_numpy(records["elsewhere"].astype(np.int64))
        return Batch(
            column("ids", size, inside, pad_id),
            torch.from_numpy(inside),
            torch.from_numpy(second.astype(np.int64)),
            torch.arange(len(records)),
            given={"places": column("places", asked, known, -1)},
            gold=gold,
        )


def instance_file(
    documents: SentenceFile, making: Making, marks: Marks, seed: int, path: Path, quiet: bool = True
) -> InstanceFile:
    """Those of one pass over the documents, a function of `seed`; written unless they are there."""
    record = _record(making, marks.size)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        made = passed(generated(documents, making, marks, Random(seed)), "making rows to learn from", quiet)
        try:
            with draft.open("wb") as out:
                while some := list(islice(made, AT_ONCE)):
                    _written(some, record).tofile(out)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    records = np.memmap(path, record, mode="r")
    return InstanceFile(records, np.asarray(shuffled(len(records), Random(key(seed, "order")))))


def _record(making: Making, vocabulary: int) -> np.dtype[Any]:
    """An instance as so many bytes."""
    token = np.uint16 if vocabulary <= 1 << 16 else np.int32
    counts = [(name, np.int32) for name in ("size", "first", "asked", "elsewhere")]
    L, P = making.length, making.predictions
    return np.dtype([*counts, ("ids", token, (L,)), ("places", np.int32, (P,)), ("labels", token, (P,))])


def _written(some: Sequence[Instance], record: np.dtype[Any]) -> NDArray[Any]:
    out = np.zeros(len(some), record)
    for row, made in zip(out, some, strict=True):
        size, asked = len(made.ids), len(made.places)
        row["size"], row["first"], row["asked"], row["elsewhere"] = size, made.first, asked, made.elsewhere
        row["ids"][:size] = made.ids
        row["places"][:asked], row["labels"][:asked] = made.places, made.labels
    return out


@dataclass(frozen=True)
class Leg:
    """An epoch: so many steps on instances made so, of a pass over the text."""

    making: Making
    number: int  # of the pass: another one is cut and masked anew
    steps: int


@dataclass
class InstanceSource:
    """Batches of masked instances; every epoch is a leg of its own, after the last the first comes again. All
    follows from the seed.

    W processes share batches of W · `rows` instances. Passes differ by a few instances; a leg that needs more
    than its pass has begins it again.
    """

    documents: SentenceFile
    marks: Marks
    pad_id: int
    legs: list[Leg]
    rows: int  # instances of a batch, of each process
    seed: int
    rank: int = 0
    world: int = 1
    carries: bool = False
    quiet: bool = True  # whether nothing is said of instances being made
    _open: dict[Path, InstanceFile] = field(init=False, default_factory=dict, repr=False)

    @property
    def task(self) -> object:
        """What a resumed run must agree on."""
        return [*self.legs]

    def steps(self, epoch: int) -> int:
        return self._leg(epoch).steps

    def batch(self, epoch: int, step: int) -> Batch:
        leg = self._leg(epoch)
        found = self.instances(leg)
        needed = {self._path(leg) for leg in self.legs[epoch % len(self.legs) :]}
        for path in self._open.keys() - needed:
            del self._open[path]
            path.unlink(missing_ok=True)
        first = (step * self.world + self.rank) * self.rows
        wanted = np.arange(first, first + self.rows) % len(found)
        return found.batch(wanted, self.pad_id, leg.making.pairs)

    def _leg(self, epoch: int) -> Leg:
        return self.legs[epoch % len(self.legs)]

    def instances(self, leg: Leg) -> InstanceFile:
        """Of the leg's pass."""
        path = self._path(leg)
        if path not in self._open:
            seed = key(self.seed, "instances", leg.making, leg.number)
            self._open[path] = instance_file(self.documents, leg.making, self.marks, seed, path, self.quiet)
        return self._open[path]

    def _path(self, leg: Leg) -> Path:
        return self.documents.beside(leg.making, self.seed, leg.number)


@dataclass
class AllInstances:
    """Every instance once: for evaluation."""

    found: InstanceFile
    pad_id: int
    pairs: bool
    rows: int
    carries: bool = False

    def __post_init__(self) -> None:
        if not len(self.found):
            raise UserError("the held-out text has no sentence to mask words in; hold out more")

    def steps(self, epoch: int) -> int:
        return -(-len(self.found) // self.rows)

    def batch(self, epoch: int, step: int) -> Batch:
        first = step * self.rows
        wanted = np.arange(first, min(first + self.rows, len(self.found)))
        return self.found.batch(wanted, self.pad_id, self.pairs)


def legs_of(steps: int, of_pass: int, making: Making, dupe_factor: int | None) -> list[Leg]:
    """So many steps as legs of like length, each of another pass that has `of_pass` of them; with
    `dupe_factor` passes come again after so many.
    """
    number = -(-steps // of_pass)
    cuts = [steps * n // number for n in range(number + 1)] if number else [0]
    legs = enumerate(pairwise(cuts))
    return [Leg(making, n % dupe_factor if dupe_factor else n, end - start) for n, (start, end) in legs]
