"""The built-in data set: which library does this passage of documentation come from?

Every installation of pretune carries real text: the documentation strings of five scientific libraries
that it depends on. They are read from the installed source, which is never imported, and cut into passages
of prose in which names are masked (see `pretune.data.prose`). Nothing is downloaded, and the same versions
of the libraries give the same data on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pretune.data.prose import edges, packed, prose
from pretune.data.samples import Sample, sample
from pretune.errors import UserError

LIBRARIES = {  # label, also the name of the distribution -> package
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "torch": "torch",
}
TRAIN, TEST = 400, 150  # labelled passages of each library
SHORTEST = 24  # words of a labelled passage; unlabelled ones may be shorter

# Tests, other people's code, generated files, what not every Python installs, and torch's machine room,
# whose words nobody would mistake for another library's.
SKIPPED = frozenset(
    (
        "__config__.py",
        "__pycache__",
        "_appdirs.py",
        "_lib",
        "_testing",
        "_vendor",
        "_version.py",
        "conftest.py",
        "distutils",
        "extern",
        "externals",
        "mpl-data",
        "test",
        "testing",
        "tests",
        "version.py",
    )
)
SKIPPED_OF_TORCH = frozenset(("ao", "bin", "distributed", "export", "fx", "include", "lib", "onnx", "share"))

# The comments and strings of Python source: one pass, ten times quicker than building syntax trees.
LEXEME = re.compile(
    r'''\#[^\n]*
    | (?P<text>"""(?:[^\\"]+|\\.|"(?!""))*"""|\'\'\'(?:[^\\']+|\\.|'(?!''))*\'\'\')
    | "(?:[^"\\\n]+|\\.)*" | '(?:[^'\\\n]+|\\.)*\'''',
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Demo:
    """Labelled passages for training and test, and unlabelled ones to adapt on."""

    train: list[Sample]  # key "sklearn/svm/_base.py:169", gold "scikit-learn"
    test: list[Sample]
    unlabelled: list[str]
    labels: tuple[str, ...]
    notes: list[str]  # printed to the user


class Document(NamedTuple):
    """The sentences of a documentation string."""

    label: str
    module: str  # scipy/stats/_entropy.py
    line: int
    sentences: list[str]


class Passage(NamedTuple):
    text: str
    label: str
    module: str
    line: int


def demo() -> Demo:
    """400 training and 150 test passages of each library, and the rest as unlabelled text.

    No module is on both sides, and no module of the test is in the unlabelled text. Which modules are tested
    and which passages are drawn depends on hashes of their names and texts alone. Raises UserError if a
    library is not installed.
    """
    passages = list(_distinct([document for label in LIBRARIES for document in _documents(label)]))
    train: list[Passage] = []
    test: list[Passage] = []
    unlabelled: list[str] = []
    for label in LIBRARIES:
        mine = sorted((p for p in passages if p.label == label), key=lambda p: _hash(p.module))
        test += _draw(mine, TEST, most=TEST // 10)
        tested = {p.module for p in test}
        rest = [p for p in mine if p.module not in tested]
        drawn = _draw(sorted(rest, key=_hash), TRAIN, most=TRAIN)
        train += drawn
        taken = set(drawn)
        unlabelled += [p.text for p in rest if p not in taken]
    words = sum(len(text.split()) for text in unlabelled)
    notes = [
        "documentation of " + ", ".join(f"{label} {version(label)}" for label in LIBRARIES),
        f"{len(train)} training and {len(test)} test passages from different modules, "
        f"{words:,} words of unlabelled text",
    ]
    return Demo(_samples(train), _samples(test), unlabelled, tuple(LIBRARIES), notes)


def _documents(label: str) -> Iterator[Document]:
    """Every long string in triple quotes: some documentation stands in calls such as `add_newdoc`."""
    package = LIBRARIES[label]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"the demo reads the documentation of {label}, which is not installed: pip install {label}"
        )
    root = Path(spec.origin).parent
    for path in _sources(
        root, SKIPPED | SKIPPED_OF_TORCH if package == "torch" else SKIPPED, package == "torch"
    ):
        source = path.read_text(encoding="utf-8")
        line, at = 1, 0
        for match in LEXEME.finditer(source):
            text = match["text"]
            if text and len(text) > 60:
                line, at = line + source.count("\n", at, match.start()), match.start()
                yield Document(
                    label, f"{package}/{path.relative_to(root).as_posix()}", line, prose(text[3:-3])
                )


def _sources(folder: Path, skipped: frozenset[str], public: bool) -> Iterator[Path]:
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name in skipped:
            continue
        if path.suffix == ".py":
            yield path
        elif path.is_dir() and not (public and path.name.startswith("_")):
            yield from _sources(path, skipped, public)


def _distinct(documents: list[Document]) -> Iterator[Passage]:
    """Passages of the sentences that no other library has, each once; near copies count as copies."""
    ends = [[edges(sentence) for sentence in document.sentences] for document in documents]
    owner: dict[str, str] = {}  # edge -> label, or "" where two libraries have it
    for document, pairs in zip(documents, ends, strict=True):
        for edge in chain.from_iterable(pairs):
            if owner.setdefault(edge, document.label) != document.label:
                owner[edge] = ""
    seen: set[str] = set()
    for (label, module, line, sentences), pairs in zip(documents, ends, strict=True):
        kept = []
        for sentence, pair in zip(sentences, pairs, strict=True):
            if seen.isdisjoint(pair) and all(owner[edge] for edge in pair):
                kept.append(sentence)
            seen.update(pair)
        for text in packed(kept):
            yield Passage(text, label, module, line)


def _draw(passages: Iterable[Passage], count: int, most: int) -> list[Passage]:
    """The first `count` that are long enough, at most `most` of one module."""
    taken: dict[str, int] = {}
    drawn: list[Passage] = []
    for passage in passages:
        of_module = taken.get(passage.module, 0)
        if len(drawn) < count and of_module < most and len(passage.text.split()) >= SHORTEST:
            taken[passage.module] = of_module + 1
            drawn.append(passage)
    if len(drawn) < count:
        found = f"{len(drawn)} of {count} passages"
        raise UserError(
            f"the demo found only {found} in the installed libraries; install those of constraints.txt"
        )
    return drawn


def _samples(passages: list[Passage]) -> list[Sample]:
    return [sample(p.text, key=f"{p.module}:{p.line}", gold=p.label) for p in sorted(passages, key=_hash)]


def _hash(what: str | Passage) -> bytes:
    """An order that has nothing to do with what is ordered."""
    return blake2b(repr(tuple(what)).encode(), digest_size=8).digest()
