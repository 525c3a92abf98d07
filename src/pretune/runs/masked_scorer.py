"""BERT as a scorer: each piece of a text masked alone, given all the others (Salazar et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.data.rows import NOTHING, Row
from pretune.errors import UsageError
from pretune.methods.bert.tokens import NO_WORD, SPECIALS, BERTCodec
from pretune.runs.readings import Sentence, part_of
from pretune.runs.scorers import check_position, likeliest
from pretune.runs.text_scores import Substitute, TextScore
from pretune.tasks.base import Scores
from pretune.tasks.masked_words import MaskedWordsHead
from pretune.tensors.batch import collate
from pretune.tensors.lengths import answer_batches
from pretune.training.model import Model

MARKS = 2  # [CLS] and [SEP], which a row has beside its text


@dataclass
class MaskedScorer:
    """Its words are pieces; `around` has the pseudo-log-likelihood of each.

    Every piece costs the reading of its text. Of a text longer than the encoder's context as much is read on
    both sides of a piece as fits.
    """

    model: Model
    codec: BERTCodec
    context: int  # positions that the encoder knows

    def words(self, text: Sentence) -> list[str]:
        return [self.codec.vocab.words[number] for number in self._ids(text)]

    def score(self, texts: Sequence[Sentence], batch_size: int) -> list[TextScore]:
        read = [self._ids(text) for text in texts]
        asked = [(n, place) for n, ids in enumerate(read) for place in range(len(ids))]
        found = [np.zeros(len(ids)) for ids in read]
        lengths = [min(self.context, len(read[n]) + MARKS) for n, _ in asked]
        for some in answer_batches(lengths, batch_size):
            said = self._asked([(read[n], place) for n, place in (asked[i] for i in some)])
            for i, nats in zip(some, said["log_probabilities"].tolist(), strict=True):
                found[asked[i][0]][asked[i][1]] = nats
        return [
            TextScore(
                tuple(self.codec.vocab.words[number] for number in ids),
                tuple(number != self.codec.unknown_id for number in ids),
                forward=None,
                backward=None,
                around=around,
            )
            for ids, around in zip(read, found, strict=True)
        ]

    def carried(self, texts: Sequence[Sentence], streams: int) -> Iterable[TextScore]:
        raise UsageError("BERT carries nothing from text to text; leave state carry out")

    def substitutes(self, text: Sentence, position: int, top: int) -> list[Substitute]:
        ids = self._ids(text)
        check_position(position, self.words(text))
        weight, bias = self._head.decoder
        hidden = self._asked([(ids, position)])["hidden"]  # (1, D)
        with torch.no_grad():
            said = F.linear(hidden, weight, bias)[0].float().log_softmax(0).cpu()  # (V,)
        words = self.codec.vocab.words
        marks = [i for i, word in enumerate(words) if word in SPECIALS or NO_WORD.fullmatch(word)]
        return likeliest(said, [None, None], marks, words, top)

    def _asked(self, asked: Sequence[tuple[list[int], int]]) -> Scores:
        """What the head says of one piece of each text, which the encoder does not see."""
        rows, places, labels = [], [], []
        room = self.context - MARKS
        for ids, place in asked:
            first = max(0, min(place - room // 2, len(ids) - room))
            inside = [*ids[first : first + room]]
            inside[place - first] = self.codec.mask_id
            rows.append([_row([self.codec.cls_id, *inside, self.codec.sep_id])])
            places.append(place - first + 1)
            labels.append(ids[place])
        given = {"places": _column(places), "labels": _column(labels)}
        batch = collate(rows, self.codec.pad_id, given).to(next(self.model.parameters()).device)
        with torch.no_grad():
            return self.model.eval()(batch).scores  # type: ignore[no-any-return]

    @property
    def _head(self) -> MaskedWordsHead:
        return cast(MaskedWordsHead, self.model.head)

    def _ids(self, text: Sentence) -> list[int]:
        return self.codec.ids([text if isinstance(text, str) else part_of(text).text])[0]


def _row(ids: list[int]) -> Row:
    return Row(ids, [0] * len(ids), [0] * len(ids), [NOTHING] * len(ids))


def _column(numbers: list[int]) -> Tensor:  # (N, 1)
    return torch.tensor(numbers)[:, None]
