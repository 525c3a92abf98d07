"""Measure: seconds and peak memory of a block; and what stood around it: versions, command."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterable
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from threading import Event, Thread
from time import perf_counter
from types import TracebackType

import psutil

from pretune.data.samples import Sample


class Measure:
    """`with Measure() as cost: ...`, then `cost.seconds` and `cost.peak_memory_bytes`.

    Memory is the largest resident set of this process, looked at every 20 ms by a thread.
    """

    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def __enter__(self) -> Measure:
        self._over = Event()
        self._process = psutil.Process()
        self._thread = Thread(target=self._watch, daemon=True)
        self._began = perf_counter()
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = perf_counter() - self._began
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self._look()

    def _look(self) -> None:
        self.peak_memory_bytes = max(self.peak_memory_bytes, self._process.memory_info().rss)


PACKAGES = (
    "pretune", "torch", "numpy", "scikit-learn", "accelerate", "safetensors", "gensim", "tokenizers",
    "transformers", "ftfy", "spacy",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of everything that numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """The command line of this process, as a shell would take it."""
    first = "pretune" if sys.argv[0].endswith(("pretune", "__main__.py")) else sys.argv[0]
    return shlex.join([first, *sys.argv[1:]])


def fingerprint(samples: Iterable[Sample]) -> str:
    """16 hex digits that depend on every text and gold, their words and marks, in order."""
    total = blake2b(digest_size=8)
    for sample in samples:
        total.update(repr((sample.texts, sample.gold)).encode("utf-8", "surrogatepass"))
        if sample.marks or any(part.words for part in sample.parts):
            total.update(repr((sample.marks, [part.words for part in sample.parts])).encode())
    return total.hexdigest()
