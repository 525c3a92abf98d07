"""What the state that a sentence is read from does to its vectors: zero, warm and carry side by side.

python examples/state.py MODEL sentences.txt
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pretune import Embedder
from pretune.data.sentence_files import SentenceFile
from pretune.errors import UserError


def distance(some: list[Any], others: list[Any], words: slice = slice(None)) -> list[float]:
    """1 - cosine of the same word's vectors, the mean over words, of each layer."""
    a, b = (np.concatenate([x[:, words] for x in vectors], 1) for vectors in (some, others))  # (L, T, D)
    cosine = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
    return [float(x) for x in 1 - cosine.mean(1)]


def main(folder: str, file: str) -> None:
    texts = list(islice((text for text in SentenceFile.find(Path(file)) if text), 400))
    if len(texts) < 80:
        sys.exit(f"error: {file} has {len(texts)} sentences; 80 or more are needed")
    zero, carry = Embedder.load(folder), Embedder.load(folder, "carry")
    builtin = Embedder.load(folder, "warm")
    own = Embedder.load(
        folder, "warm", warm_text=" ".join(" ".join(text) for text in map(_words, texts[:50]))
    )
    texts = texts[50:]
    carried = carry.embed(texts, batch_size=1)
    turned = carry.embed(texts[::-1], batch_size=1)[::-1]
    rows = {
        "carry, the order of sentences turned round": (carried, turned),
        "carry, in batches of 32 rather than 1": (carried, carry.embed(texts, batch_size=32)),
        "zero, the order turned round": (zero.embed(texts), zero.embed(texts[::-1])[::-1]),
        "zero against carry": (zero.embed(texts), carried),
        "warm (built-in text) against carry": (builtin.embed(texts), carried),
        "warm (50 sentences of the file) against carry": (own.embed(texts), carried),
    }
    print(f"{'1 - cosine, layers 0, 1, ...':46}  all words            first words")
    for name, (some, others) in rows.items():
        everywhere, first = distance(some, others), distance(some, others, slice(1))
        print(f"{name:46}", *(f"{x:.4f}" for x in everywhere), "", *(f"{x:.4f}" for x in first))


def _words(text: str | list[str]) -> list[str]:
    return text.split() if isinstance(text, str) else text


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
