"""Raw text of any size as documents that can be read again and again, and the part held out of it.

corpus, held_out = hold_out(documents([Path("novels")]))
for document in corpus(): ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from pretune.data.document_files import TABLES, TEXTS, Split, read_file
from pretune.data.files import check_encoding, check_exists, shown, suffix
from pretune.data.token_file import Encode, TokenFile, kept_tokens
from pretune.errors import UsageError, UserError

Documents = Callable[[], Iterable[str]]

FEW = 10  # documents: with fewer, the end of each is held out


@dataclass(frozen=True)
class Corpus:
    """Documents without blank ones and outer white space: a new stream at every call."""

    read: Callable[[], Iterator[str]]
    content: Callable[[], str]  # a hash of all that is read
    about: str

    @classmethod
    def of(cls, texts: Sequence[str]) -> Corpus:
        return cls.around(lambda: texts)

    @classmethod
    def around(cls, source: Documents) -> Corpus:
        """Any callable that streams documents; a corpus stays what it is."""
        if isinstance(source, cls):
            return source

        def read() -> Iterator[str]:
            return filter(None, map(str.strip, source()))

        return cls(read, lambda: _hash_texts(read()), "documents at hand")

    def __call__(self) -> Iterator[str]:
        return self.read()

    def fingerprint(self) -> str:
        """A hash of the content, wherever it lies; takes one pass over the bytes, or over the documents."""
        return self.content()

    def describe(self) -> str:
        """One line for the user: what is read, and what a document is."""
        return self.about


@dataclass(frozen=True)
class _File:
    path: Path
    ending: str  # of _ENDINGS
    split: Split


def documents(
    paths: Sequence[Path], *, encoding: str = "utf-8", split: Split | None = None, text: str | None = None
) -> Corpus:
    """The documents of files and folders, in the order given; folders are walked in sorted order.

    .txt: with `split` "file" a file is a document, with "blank" a paragraph between blank lines is, with
    "line" a line is; without it, "file" for those found in folders and "blank" for those that are named.
    .jsonl, .csv, .tsv: a row is a document, its text under `text` (default "text", or a csv's only column).
    All of them also packed, .gz or .xz. Raises UserError for what cannot be read, at the latest while it is
    read: files without a single document too.
    """
    encoding = check_encoding(encoding)
    files = [file for path in paths for file in _files(path, split)]
    if text is not None and all(file.ending in TEXTS for file in files):
        raise UsageError(f"--text {shown(text)} names a column, but the corpus has only .txt files")
    if split is not None and all(file.ending in TABLES for file in files):
        raise UsageError(
            f"--documents {split} is for .txt files; in {files[0].path.name} a row is a document"
        )
    names = ", ".join(map(str, paths))

    def read() -> Iterator[str]:
        empty = True
        for file in files:
            for document in read_file(file.path, file.ending, encoding, file.split, text):
                if document := document.strip():
                    empty = False
                    yield document
        if empty:
            raise UserError(f"no documents in {names}: nothing but blank text")

    def content() -> str:
        total = blake2b(repr((encoding, text)).encode(), digest_size=16)
        for file in files:
            total.update(repr((file.ending, file.split)).encode() + _hash_bytes(file.path))
        return total.hexdigest()

    return Corpus(read, content, f"{names}: {_described(files)}")


def hold_out(corpus: Documents, every: int = 100) -> tuple[Corpus, Corpus]:
    """(the rest, the documents numbered `every`, 2 · `every`, ...).

    With fewer documents than `every`, each tenth one is held out. With fewer than ten, as in a folder of a
    few novels, it is the last tenth of each document, cut at a line's end if one is near, else at a space.
    """
    if every < 2:
        raise UsageError(f"one document in {every} cannot be held out; give 2 or more")
    whole = Corpus.around(corpus)
    count = sum(1 for _ in islice(whole(), every))
    if count < min(FEW, every):
        rest, held = (
            derived(whole, _heads, "but for the end of each"),
            derived(whole, _tails, "the end of each"),
        )
        if next(held(), None) is None or next(rest(), None) is None:
            raise UserError(f"too little text to hold some out: {whole.about}")
        return rest, held
    step = every if count == every else FEW

    def kept(stream: Iterable[str]) -> Iterator[str]:
        return (document for number, document in enumerate(stream, 1) if number % step)

    def held_out(stream: Iterable[str]) -> Iterator[str]:
        return (document for number, document in enumerate(stream, 1) if not number % step)

    return (
        derived(whole, kept, f"but for one document in {step}"),
        derived(whole, held_out, f"one document in {step}"),
    )


def token_file(
    corpus: Documents,
    encode: Encode,
    fingerprint: str,
    cache: Path,
    progress: Callable[[int], None] | None = None,
) -> TokenFile:
    """The ids of a corpus, mapped into memory; `encode` is called only if `cache` does not hold them yet.

    They are found again by the content of the corpus and by `fingerprint`, which stands for the codec.
    `progress` is told the number of documents done. Memory stays flat: a thousand documents, or a million
    characters, are held at a time. Processes may write at the same time.
    """
    whole = Corpus.around(corpus)
    key = _hash_texts([fingerprint, whole.fingerprint()])
    return kept_tokens(whole, encode, cache / f"tokens-{key}", progress)


def derived(whole: Corpus, choose: Callable[[Iterable[str]], Iterator[str]], what: str) -> Corpus:
    """Another stream made of a corpus; `what` names it, and with it what is made of it."""
    return Corpus(
        lambda: choose(whole()),
        lambda: _hash_texts([whole.fingerprint(), what]),
        f"{whole.about}; {what}",
    )


def _heads(stream: Iterable[str]) -> Iterator[str]:
    return filter(None, (document[: _tail(document)].strip() for document in stream))


def _tails(stream: Iterable[str]) -> Iterator[str]:
    return filter(None, (document[_tail(document) :].strip() for document in stream))


def _tail(document: str) -> int:
    """Where the last tenth begins: at the next line or word that starts within its first half."""
    cut = len(document) - len(document) // 10
    near = (len(document) - cut) // 2
    for mark in ("\n", " "):
        found = document.find(mark, cut, cut + near)
        if found >= 0:
            return found + 1
    return cut


def _files(path: Path, split: Split | None) -> list[_File]:
    check_exists(path)
    endings = (*TEXTS, *TABLES)
    possible = f"{', '.join(endings)}, also .gz or .xz"
    if not path.is_dir():
        if suffix(path) not in endings:
            raise UserError(f"{path}: a corpus file ends in {possible}; rename or convert it")
        return [_File(path, suffix(path), split or "blank")]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = (Path(folder, name) for name in sorted(names) if not name.startswith("."))
        found += [_File(file, suffix(file), split or "file") for file in inside if suffix(file) in endings]
    if not found:
        raise UserError(f"no corpus files in the folder {path}: they end in {possible}")
    return found


def _described(files: Sequence[_File]) -> str:
    units = {"file": "a file", "blank": "a paragraph", "line": "a line"}
    kinds = sorted({units[file.split] if file.ending in TEXTS else "a row" for file in files})
    return f"{len(files)} file{'s' * (len(files) > 1)}, {' or '.join(kinds)} is a document"


def _hash_bytes(path: Path) -> bytes:
    total = blake2b(digest_size=16)
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return total.digest()


def _hash_texts(texts: Iterable[str]) -> str:
    total = blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()
