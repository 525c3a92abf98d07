"""Pairs whose texts are read each alone: their rows, and how their summaries are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.errors import UserError
from pretune.tensors.batch import Batch


def rows_of_pairs(codec: Codec, samples: Sequence[Sample], why: str) -> list[list[Row]]:
    """The rows of the first text, then those of the second: each as if it were a sample.

    `why` says what asked for two texts, such as "task.pair is siamese".
    """
    for sample in samples:
        if len(sample.parts) != 2:
            raise UserError(
                f"sample {sample.key!r} has {len(sample.parts)} text{'s' * (len(sample.parts) != 1)}; "
                f"{why}, which compares two"
            )
    read = codec.encode([(part,) for sample in samples for part in sample.parts])
    return [
        [_of_part(row, number) for number in (0, 1) for row in read[2 * b + number]]
        for b in range(len(samples))
    ]


def _of_part(row: Row, number: int) -> Row:
    """A row of a text that was encoded alone, as one of the sample's."""
    return replace(row, part=[number if part >= 0 else part for part in row.part])


def sides(rows: Sequence[Sequence[Row]]) -> Tensor:
    """Which of its sample's texts each row is of, (N,): 0 or 1.

    A row without any text, as of a blank one, is of the first text where it comes first.
    """
    found = []
    for of_sample in rows:
        for place, row in enumerate(of_sample):
            found.append(next((part for part in row.part if part >= 0), min(place, 1)))
    return torch.tensor(found)


def rows_by_side(batch: Batch) -> Tensor:
    """The row of each sample's first text, then of its second, (2, B)."""
    place = 2 * batch.owner + batch.given["side"]  # (N,)
    rows = place.argsort(stable=True)  # (N,)
    if not torch.equal(place[rows], torch.arange(2 * batch.samples, device=place.device)):
        raise UserError("this head compares two texts of one row each; the codec has read some in more")
    return rows.view(-1, 2).t()


def compared(summary: Tensor, batch: Batch) -> Tensor:
    """[u; v; |u - v|; u * v] of each sample's two texts, a mean where one has several rows.

    (N, S) -> (B, 4S). Section 3.1 of Conneau et al. (2017).
    """
    samples = batch.samples  # B
    place = 2 * batch.owner + batch.given["side"]  # (N,)
    totals = summary.new_zeros(2 * samples, summary.shape[1]).index_add(0, place, summary)  # (2B, S)
    counts = torch.bincount(place, minlength=2 * samples)  # (2B,)
    u, v = (totals / counts[:, None]).view(samples, 2, -1).unbind(1)  # (B, S) each
    return torch.cat((u, v, (u - v).abs(), u * v), dim=-1)
