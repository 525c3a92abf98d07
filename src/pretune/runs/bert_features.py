"""Features of texts and pairs as JSON lines: what BERT's `extract_features.py` wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pretune.data.rows import Row
from pretune.data.samples import Part
from pretune.errors import UsageError
from pretune.runs.starts import Start
from pretune.tensors.batch import Batch, collate
from pretune.tensors.lengths import answer_batches

PAIR = re.compile(r"^(.*) \|\|\| (.*)$")
LAST_FOUR = (-1, -2, -3, -4)  # the script's default
WINDOW = 4096  # lines that are sorted by length together
DIGITS = 6


def features(
    start: Start, lines: Iterable[str], layers: Sequence[int] = LAST_FOUR, batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """Of each line, in order; `A ||| B` is a pair.

    {"linex_index": n, "features": [{"token": t, "layers": [{"index": -1, "values": [...]}, ...]}, ...]}, the
    script's spelling included. `layers` count the blocks, not the embeddings below them: 0 is the lowest, -1
    the highest. Tokens are all of the row, `[CLS]` and `[SEP]` too.
    """
    count = len(start.encoder.layer_widths()) - 1
    names: Any = getattr(start.codec, "vocab", None)
    if names is None or getattr(start.codec, "spell", None) is not None or count < 1:
        raise UsageError(
            f"{start.method.name} has no layers over the tokens of a vocabulary, as JSON lines say them; "
            "choose .h5, .parquet or .safetensors"
        )
    for index in layers:
        if not -count <= index < count:
            raise UsageError(f"layer {index} is none of this encoder, which has {count}: {-count} to -1")
    words: Sequence[str] = getattr(names, "words", names)
    device = next(start.encoder.parameters()).device
    numbered = enumerate(lines)
    while some := list(islice(numbered, WINDOW)):
        encoded = start.codec.encode([_parts(line) for _, line in some])
        rows = [of_line[0] for of_line in encoded]
        found: dict[int, dict[str, Any]] = {}
        for wanted in answer_batches([len(row) for row in rows], batch_size):
            batch = collate([[rows[i]] for i in wanted], start.codec.pad_id).to(device)
            for i, of_layers in zip(wanted, _read(start, batch), strict=True):
                found[i] = _said(some[i][0], rows[i], of_layers, layers, words)
        yield from (found[i] for i in range(len(some)))


def line_of(found: dict[str, Any]) -> str:
    """One line of the file."""
    return json.dumps(found, ensure_ascii=False) + "\n"


def _parts(line: str) -> tuple[Part, ...]:
    pair = PAIR.match(line.strip())
    return tuple(Part(text) for text in (pair.groups() if pair else (line.strip(),)))


def _read(start: Start, batch: Batch) -> list[list[Tensor]]:
    """The blocks' outputs of each row, without padding: N × L × (T', D)."""
    start.encoder.eval()
    start.encoder.purpose("task")
    with torch.no_grad():
        blocks = start.encoder(batch).layers[1:]
    lengths = batch.lengths.tolist()
    return [[h[n, :length].float().cpu() for h in blocks] for n, length in enumerate(lengths)]


def _said(
    number: int, row: Row, of_layers: Sequence[Tensor], layers: Sequence[int], words: Sequence[str]
) -> dict[str, Any]:
    values = [[[round(x, DIGITS) for x in h] for h in of_layers[index].tolist()] for index in layers]
    return {
        "linex_index": number,
        "features": [
            {
                "token": words[token],
                "layers": [{"index": index, "values": h[t]} for index, h in zip(layers, values, strict=True)],
            }
            for t, token in enumerate(row.ids)
        ],
    }
