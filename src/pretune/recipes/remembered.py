"""Frozen layers remembered: each sample is read once, however many epochs follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.recipes.frozen import LAYERS, SUMMARY, FrozenFeatures
from pretune.tasks.around import Around
from pretune.tasks.base import Task
from pretune.tensors.lengths import answer_batches, padded_tokens
from pretune.training.sources import task_batch

BATCH, TOKENS = 64, 1 << 14  # samples and tokens of one reading
Key = tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]
Asked = tuple[Sequence[Sample], Sequence[list[Row]]]


def key(row: Row) -> Key:
    """All of a row that an encoder reads."""
    return tuple(row.ids), tuple(row.segments), tuple(row.spelled or ())


@dataclass(frozen=True, eq=False)
class Layers:
    """What the frozen encoder said of each distinct row."""

    places: dict[Key, tuple[int, int]]  # row -> where its tokens begin, which summary is its own
    tokens: Tensor  # (L, tokens, D)
    summaries: Tensor  # (rows, S)


@dataclass(frozen=True)
class Remembered(Around):
    """`task`, whose batches come with the frozen encoder's layers wherever all their rows are known."""

    layers: Layers

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        given = self.task.given(samples, rows)
        flat = [row for of_sample in rows for row in of_sample]
        found = [self.layers.places.get(key(row)) for row in flat]
        if None in found:
            return given
        places = [place for place in found if place is not None]
        depth, _, width = self.layers.tokens.shape  # L, D
        layers = self.layers.tokens.new_zeros(len(flat), depth, max(map(len, flat)), width)  # (N, L, T, D)
        for n, (row, (begin, _)) in enumerate(zip(flat, places, strict=True)):
            layers[n, :, : len(row)] = self.layers.tokens[:, begin : begin + len(row)]
        summary = self.layers.summaries[[number for _, number in places]]  # (N, S)
        return given | {LAYERS: layers, SUMMARY: summary}


def megabytes(encoder: FrozenFeatures, asked: Sequence[Asked]) -> float:
    """What remembering these samples takes, in float32."""
    lengths = {key(row): len(row) for _, rows in asked for of_sample in rows for row in of_sample}
    numbers = sum(lengths.values()) * len(encoder.mixed) * encoder.encoder.width
    return 4 * (numbers + len(lengths) * encoder.encoder.summary_width) / 2**20


@torch.no_grad()
def remembering(encoder: FrozenFeatures, task: Task, codec: Codec, asked: Sequence[Asked]) -> Task:
    """`task` with the layers of these samples at hand, on the CPU.

    They are read in batches of their own, an order that no epoch, step or seed has a part in, so that a
    resumed run finds the same numbers to the bit. Against reading each batch as it comes they differ by
    rounding alone, since a row's output never depends on its batch.
    """
    pairs = [pair for samples_and_rows in asked for pair in zip(*samples_and_rows, strict=True)]
    pieces = [(sample, piece) for sample, of_sample in pairs for piece in task.pieces(of_sample)]
    samples, rows = [sample for sample, _ in pieces], [piece for _, piece in pieces]
    lengths = {key(row): len(row) for of_sample in rows for row in of_sample}
    depth, inner = len(encoder.mixed), encoder.encoder
    kept = Layers(
        {},
        torch.zeros(depth, sum(lengths.values()), inner.width),
        torch.zeros(len(lengths), inner.summary_width),
    )
    device, end = next(encoder.parameters()).device, 0
    for wanted in answer_batches([padded_tokens(of_sample) for of_sample in rows], BATCH, TOKENS):
        wanted = [i for i in wanted if any(key(row) not in kept.places for row in rows[i])]
        if not wanted:
            continue
        some = [rows[i] for i in wanted]
        batch = task_batch(task, codec, [samples[i] for i in wanted], some, gold=False)
        said = encoder.read(batch.to(device))
        if not torch.equal(said.mask.cpu(), batch.mask):
            return task  # an encoder with other tokens than its batch: each batch has to be read
        flat = [row for of_sample in some for row in of_sample]
        layers = torch.stack(said.layers, 1).cpu()  # (N, L, T, D)
        for row, own, summary in zip(flat, layers, said.summary.cpu(), strict=True):
            if key(row) not in kept.places:
                number = len(kept.places)
                kept.places[key(row)] = end, number
                kept.tokens[:, end : end + len(row)] = own[:, : len(row)]
                kept.summaries[number] = summary
                end += len(row)
    return Remembered(task, kept)
