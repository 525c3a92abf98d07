"""The built-in data set: which library does this passage of documentation come from?

Every installation of pretune carries real text: the documentation strings of five scientific libraries that it
depends on. They are read from the installed source, never imported, and cut into passages of prose in which
names are masked. Nothing is downloaded, and the same versions give the same data on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pretune.data.prose import openings, passages
from pretune.data.samples import Sample, sample
from pretune.errors import UserError

LIBRARIES = {  # label -> package, distribution
    "matplotlib": ("matplotlib", "matplotlib"),
    "numpy": ("numpy", "numpy"),
    "scikit-learn": ("sklearn", "scikit-learn"),
    "scipy": ("scipy", "scipy"),
    "torch": ("torch", "torch"),
}
MOST = 25
SHORTEST=16
TRAIN, TEST = 500, 200  # passages of each library

# Tests, other people's code, generated files, and what is not installed on every Python.
SKIPPED = frozenset(
    "tests test testing _testing externals extern _vendor _inductor _dynamo include lib bin share _lib distutils "
    "__config__.py version.py _version.py _appdirs.py conftest.py mpl-data __pycache__ distributed ao fx onnx export".split()
)

# Comments and strings of Python source, as the lexer reads them: ten times quicker than a syntax tree.
LEXEMES = re.compile(
    r'''\#[^\n]*
    | (?P<text>"""(?:[^\\"]+|\\.|"(?!""))*"""|\'\'\'(?:[^\\']+|\\.|'(?!''))*\'\'\')
    | "(?:[^"\\\n]+|\\.)*" | '(?:[^'\\\n]+|\\.)*\'''',
    re.DOTALL | re.VERBOSE,
)


class Passage(NamedTuple):
    text: str
    label: str
    module: str  # scipy/stats/_entropy.py
    line: int  # where its documentation string begins
    keys: tuple[str, ...]  # what its sentences would share with near copies


@dataclass(frozen=True)
class Demo:
    """Labelled passages for training and test, and the other passages as text to adapt on."""

    train: list[Sample]
    test: list[Sample]
    unlabelled: list[str]
    labels: tuple[str, ...]
    notes: list[str]


def demo(train: int = TRAIN, test: int = TEST) -> Demo:
    """`train` and `test` passages of each library, from different modules; all else that is not test is unlabelled.

    Which module goes where, and which of its passages are drawn, is decided by hashes of their names and texts.
    """
    found = [passage for label in LIBRARIES for passage in _of_library(label)]
    kept = _distinct(found)
    chosen: dict[str, list[Sample]] = {"train": [], "test": []}
    unlabelled: list[str] = []
    for label in LIBRARIES:
        mine = sorted((p for p in kept if p.label == label), key=lambda p: _order(p.module))
        tested = {p.module for p in _drawn(mine, test, label)}
        chosen["test"] += map(_sample, _drawn([p for p in mine if p.module in tested], test, label))
        rest = [p for p in mine if p.module not in tested]
        drawn = set(_drawn(sorted(rest, key=_order), train, label))
        chosen["train"] += map(_sample, drawn)
        unlabelled += [p.text for p in rest if p not in drawn]
    for side in chosen.values():
        side.sort(key=lambda s: _order(s.key, s.texts))
    return Demo(chosen["train"], chosen["test"], unlabelled, tuple(LIBRARIES), [])


def _drawn(pool: list[Passage], count: int, label: str) -> list[Passage]:
    """The first of the pool that are long enough, at most MOST of a module: no long module speaks for its library."""
    taken: dict[str, int] = {}
    drawn: list[Passage] = []
    for passage in pool:
        if len(drawn) < count and taken.get(passage.module, 0) < MOST and len(passage.text.split()) >= SHORTEST:
            taken[passage.module] = taken.get(passage.module, 0) + 1
            drawn.append(passage)
    if len(drawn) < count:
        raise UserError(f"the installed {label} has only {len(drawn)} of the {count} passages that the demo wants")
    return drawn


def _sample(p):
    return sample(p.text, key=f"{p.module}:{p.line}", gold=p.label)


def _distinct(found):
    owners: dict[str, set[str]] = {}
    for p in found:
        for key in p.keys:
            owners.setdefault(key, set()).add(p.label)
    seen: set[str] = set()
    kept = []
    for p in found:
        if all(len(owners[key]) == 1 and key not in seen for key in p.keys):
            kept.append(p)
        seen.update(p.keys)
    return kept


def _order(*parts: object) -> bytes:
    return blake2b(repr(parts).encode(), digest_size=8).digest()


def _of_library(label: str) -> Iterator[Passage]:
    package, distribution = LIBRARIES[label]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the demo reads the documentation of {label}, which is not installed: pip install {distribution}")
    root = Path(spec.origin).parent
    for path in _sources(root, package):
        source = path.read_text(encoding="utf-8")
        module = f"{package}/{path.relative_to(root).as_posix()}"
        line, at = 1, 0
        for match in LEXEMES.finditer(source):
            text = match["text"]
            if text and len(text) > 60:
                line, at = line + source.count("\n", at, match.start()), match.start()
                for passage in passages(text[3:-3]):
                    yield Passage(passage, label, module, line, openings(passage))


def _sources(folder: Path, package) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in SKIPPED or (package == "torch" and path.is_dir() and path.name.startswith("_")):
            continue
        if path.is_dir():
            yield from _sources(path, package)
        elif path.suffix == ".py":
            yield path
