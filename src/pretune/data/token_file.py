"""Documents as ids on disk, mapped into memory, so that a corpus of any size can be trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from pretune.errors import UserError

CHUNK_DOCUMENTS, CHUNK_CHARACTERS = 1000, 1 << 20  # encoded at a time: whichever comes first
NARROW: np.dtype[Any] = np.dtype("<u2")
WIDE: np.dtype[Any] = np.dtype("<i4")

Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True)
class TokenFile:
    """The ids of all documents, one after another. Document d is ids[starts[d] : starts[d + 1]]."""

    ids: np.memmap[Any, np.dtype[Any]]  # (tokens,) uint16, or int32 where an id needs it
    starts: np.ndarray[Any, np.dtype[np.int64]]  # (documents + 1,)

    def __len__(self) -> int:
        """How many documents."""
        return len(self.starts) - 1


def kept_tokens(
    documents: Callable[[], Iterable[str]],
    encode: Encode,
    folder: Path,
    progress: Callable[[int], None] | None = None,
) -> TokenFile:
    """The token file in `folder`, which is written first if it is not there: see `corpus.token_file`.

    It is written beside, then renamed: a folder of that name is whole. If another process was quicker, its
    folder stays.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            _write(documents(), encode, draft, progress)
            try:
                draft.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return _opened(folder)


def _opened(folder: Path) -> TokenFile:
    try:
        starts = np.load(folder / "starts.npy", allow_pickle=False)
        wide = (folder / "ids.int32").exists()
        ids = np.memmap(folder / ("ids.int32" if wide else "ids.uint16"), WIDE if wide else NARROW, mode="r")
        whole = len(ids) == starts[-1]
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise UserError(f"the token file {folder} is damaged; delete this folder, it is made again")
    return TokenFile(ids, starts)


def _write(
    documents: Iterable[str], encode: Encode, folder: Path, progress: Callable[[int], None] | None
) -> None:
    """`ids.uint16` or `ids.int32`, and `starts.npy`."""
    path, kind = folder / "ids.uint16", NARROW
    lengths = [np.zeros(1, np.int64)]
    done = 0
    for chunk in chunks(documents):
        found = encode(chunk)
        if len(found) != len(chunk):
            raise ValueError(f"{len(chunk)} documents were encoded as {len(found)}")
        lengths.append(np.fromiter(map(len, found), np.int64, len(found)))
        ids = np.fromiter(chain.from_iterable(found), np.int64, int(lengths[-1].sum()))
        if kind == NARROW and ids.size and ids.max() > np.iinfo(NARROW).max:
            path, kind = _widened(path), WIDE
        with path.open("ab") as stream:
            ids.astype(kind).tofile(stream)
        done += len(chunk)
        if progress is not None:
            progress(done)
    starts = np.concatenate(lengths).cumsum()
    if not starts[-1]:
        raise UserError("the corpus holds no tokens: it has no documents, or nothing but blank ones")
    np.save(folder / "starts.npy", starts)


def _widened(narrow: Path) -> Path:
    """The ids so far as int32, in the place of the narrow file."""
    wide = narrow.with_name("ids.int32")
    with wide.open("wb") as out:
        if narrow.exists():
            with narrow.open("rb") as stream:
                while block := stream.read(1 << 20):
                    np.frombuffer(block, NARROW).astype(WIDE).tofile(out)
            narrow.unlink()
    return wide


def chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    characters = 0
    for document in documents:
        chunk.append(document)
        characters += len(document)
        if len(chunk) == CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
