"""Characters beside an encoder: a small CNN, learned with the task, reads how each token is spelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretune.data.rows import Row
from pretune.data.samples import Sample
from pretune.data.spelling import spelled
from pretune.layers.char_cnn import CharCNN
from pretune.tasks.around import Around
from pretune.tensors.batch import Batch

WORDS, PLACES = "spelled_words", "spelled_places"  # in `Batch.given`: (W, C), and which each token is, (N, T)


@dataclass(frozen=True)
class BesideCharacters(Around):
    """`task`, whose batches also say how the text that each token covers is spelled; marks cover nothing."""

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        pairs = [(sample, row) for sample, some in zip(samples, rows, strict=True) for row in some]
        known = {"": 0}
        places = torch.zeros(len(pairs), max(len(row) for _, row in pairs), dtype=torch.long)  # (N, T)
        for n, (sample, row) in enumerate(pairs):
            for t, (part, span) in enumerate(zip(row.part, row.chars, strict=True)):
                word = sample.parts[part].text[span.start : span.end] if part >= 0 else ""
                places[n, t] = known.setdefault(word, len(known))
        words = torch.from_numpy(spelled(list(known))).long()  # (W, C)
        return {**self.task.given(samples, rows), WORDS: words, PLACES: places}


class TokenCharacters(nn.Module):
    """Windows of three characters of 16 dimensions, the largest value of each filter: (N, T, filters).

    The character encoder of the taggers in ELMo's paper (section 5; AllenNLP's configuration).
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.cnn = CharCNN(((3, filters),), filters, highways=0)

    def forward(self, batch: Batch) -> Tensor:
        vectors: Tensor = self.cnn(batch.given[WORDS])  # (W, filters)
        return vectors[batch.given[PLACES]]
