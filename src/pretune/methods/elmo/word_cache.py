"""Vectors of words seen before: ELMo's token layer depends on a word alone, so it is worked out once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock

import torch
from torch import Tensor

from pretune.layers.packing import stamped

MEMORY: int = 256 << 20  # bytes that are kept at most
ENTRY = 300  # bytes that a word takes beside its vector, about


class WordCache:
    """Characters -> vector, for words in the order in which they came; when full, the older half goes.

    A vector is what the network gave for the same characters and the same weights, to rounding, which may
    depend on the words that were worked out together. It empties itself when the weights have changed.
    With a memory of 0 nothing is kept.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self.memory = memory
        self.hits = self.misses = 0
        self._places: dict[bytes, int] = {}
        self._table = torch.empty(0, 0)
        self._stamp: tuple[int, ...] = ()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[WordCache], tuple[int]]:
        """An encoder that is copied or sent to another process begins with an empty one."""
        return WordCache, (self.memory,)

    def clear(self) -> None:
        with self._lock:
            self._places.clear()

    def __len__(self) -> int:
        return len(self._places)

    def vectors(
        self, words: Tensor, weights: Iterable[Tensor], compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """words (W, C) -> (W, D); `compute` is asked of those that are new, (W', C) -> (W', D)."""
        if not self.memory:
            return compute(words)
        with self._lock:
            stamp = tuple(part for weight in weights for part in stamped(weight))
            if stamp != self._stamp:
                self._places.clear()
                self._stamp = stamp
            return self._found(words, compute)

    def _found(self, words: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        keys = _keys(words)
        places = [self._places.get(key, -1) for key in keys]
        new = [w for w, place in enumerate(places) if place < 0]
        self.hits += len(keys) - len(new)
        self.misses += len(new)
        if not new:
            return self._table.index_select(0, torch.tensor(places, dtype=torch.long))
        fresh = compute(words if len(new) == len(keys) else words[new])  # (W', D)
        if len(new) == len(keys):
            found = fresh
        else:
            found = fresh.new_empty(len(keys), fresh.shape[1])  # (W, D)
            old = [w for w, place in enumerate(places) if place >= 0]
            found[old] = self._table[[places[w] for w in old]]
            found[new] = fresh
        with torch.inference_mode(False):  # or the table could not be written to outside of that mode
            self._keep([keys[w] for w in new], fresh.clone())
        return found

    def _keep(self, keys: list[bytes], vectors: Tensor) -> None:
        different = {key: w for w, key in enumerate(keys)}  # marks, and words alike up to where they are cut
        if len(different) < len(keys):
            keys, vectors = list(different), vectors[list(different.values())]
        capacity = max(1, self.memory // (4 * vectors.shape[1] + ENTRY))
        keys, vectors = keys[:capacity], vectors[:capacity]
        if len(self._places) + len(keys) > capacity:
            kept = list(self._places.items())[len(self._places) // 2 :]
            kept = kept[: max(0, capacity - len(keys))]
            self._table[: len(kept)] = self._table[[place for _, place in kept]]
            self._places = {key: place for place, (key, _) in enumerate(kept)}
        start, end = len(self._places), len(self._places) + len(keys)
        if end > len(self._table) or self._table.shape[1:] != vectors.shape[1:]:
            larger = vectors.new_empty(min(capacity, max(1024, 2 * end)), vectors.shape[1])
            if start:
                larger[:start] = self._table[:start]
            self._table = larger
        self._table[start:end] = vectors
        self._places.update(zip(keys, range(start, end), strict=True))


def _keys(words: Tensor) -> list[bytes]:
    """A word's characters as bytes, words (W, C)."""
    table = words.to(torch.int16).contiguous().numpy()
    found: list[bytes] = table.view(f"V{2 * table.shape[1]}").ravel().tolist()
    return found
