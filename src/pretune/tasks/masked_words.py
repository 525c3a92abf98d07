"""Masked words and next sentences: the pretraining task of BERT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError
from pretune.layers.softmax import softmax_loss
from pretune.tasks.base import Answer, Head, Scores, Task
from pretune.tasks.next_token import perplexity, scores_of
from pretune.tensors.batch import Batch
from pretune.tensors.streams import NO_TARGET, Streams

LOGITS_HELD = 24_000_000  # at once, in evaluation


class Masking(Protocol):
    """What the head needs of its encoder: the layers that only pretraining has."""

    @property
    def words(self) -> nn.Embedding: ...  # (V, D)

    @property
    def mlm_bias(self) -> Tensor | None: ...  # (V,)

    @property
    def nsp(self) -> nn.Module | None: ...  # (N, D) -> (N, 2)

    def mlm_hidden(self, hidden: Tensor) -> Tensor: ...  # (K, D) -> (K, D)


class MaskingCodec(Codec, Protocol):
    mask_id: int


@dataclass(frozen=True)
class MaskedWords(Task):
    """Which words stand behind [MASK], and whether the second segment follows the first: section 3.1 of
    Devlin et al. (2018).

    Pretraining makes batches of its own (`methods/bert/reading.py`). Of a sample each token is masked alone,
    in a row of its own: the sum of what is said of them is the text's pseudo-log-likelihood (Salazar et al.
    2020), and its perplexity compares models of one vocabulary.
    """

    next_sentences: bool = False
    """Whether batches say, in `gold["elsewhere"]`, if the second segment follows the first."""

    higher_is_better = False

    @property
    def metric(self) -> str:
        return "perplexity"

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        """The sample itself, then a row for each token of its texts, in which that token is masked."""
        mask = cast(MaskingCodec, codec).mask_id
        found = []
        for (row,) in codec.encode([sample.parts for sample in samples]):
            hidden = [replace(row, ids=[*row.ids[:t], mask, *row.ids[t + 1 :]]) for t in _tokens(row)]
            found.append([row, *hidden])
        return found

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`places` (N, 1), -1 in the rows without a mask, and `labels` (N, 1)."""
        places: list[int] = []
        labels: list[int] = []
        for whole, *_ in rows:
            places += [-1, *_tokens(whole)]
            labels += [NO_TARGET, *(whole.ids[t] for t in _tokens(whole))]
        return {"places": torch.tensor(places)[:, None], "labels": torch.tensor(labels)[:, None]}

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        return {"labels": self.given(samples, rows)["labels"]}

    def head(self, encoder: Encoder) -> MaskedWordsHead:
        return MaskedWordsHead(encoder, self.next_sentences)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        """Pseudo-log-likelihood, in nats, of each sample's tokens, and how many they are."""
        said = torch.split(scores["log_probabilities"].double(), [len(of_sample) - 1 for of_sample in rows])
        return [
            Answer(scores={"log_probability": float(x.sum()), **scores_of(-float(x.sum()), len(x))})
            for x in said
        ]

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        nats = -sum(answer.scores["log_probability"] for answer in answers)
        return scores_of(nats, int(sum(answer.scores["tokens"] for answer in answers)))


def _tokens(row: Row) -> list[int]:
    """Where a row has text."""
    return [t for t, part in enumerate(row.part) if part >= 0]


class MaskedWordsHead(Head):
    """The encoder's own layers for masked words and next sentences; the head has no weights.

    Top vectors are gathered where words are predicted, and only those are decoded: 20 of 128, not all.
    """

    def __init__(self, encoder: Encoder, next_sentences: bool) -> None:
        super().__init__()
        if getattr(encoder, "mlm_bias", None) is None:
            raise UsageError(
                f"this {type(encoder).__name__} has nothing to predict masked words with; take BERT with "
                "encoder.pretraining_heads=true"
            )
        self.next_sentences = next_sentences
        self._tied = (encoder,)  # in a tuple, so that the weights stay the encoder's alone

    @property
    def decoder(self) -> tuple[Tensor, Tensor]:
        """(V, D), (V,)."""
        encoder = cast(Masking, self._tied[0])
        assert encoder.mlm_bias is not None
        return encoder.words.weight, encoder.mlm_bias

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        """`hidden` (K, D) at the places that are asked for, row by row; `elsewhere` (N, 2).

        Where nobody gave gold but labels are known, also their `log_probabilities` (K,).
        """
        encoder = cast(Masking, self._tied[0])
        places = batch.given["places"]  # (N, P)
        row, at = (places >= 0).nonzero(as_tuple=True)  # (K,) each
        scores = {"hidden": encoder.mlm_hidden(encoded.layers[-1][row, places[row, at]])}
        if self.next_sentences:
            assert encoder.nsp is not None
            scores["elsewhere"] = encoder.nsp(encoded.summary)
        if not batch.gold and "labels" in batch.given:
            scores["log_probabilities"] = self.judged(scores, _asked(batch.given["labels"]))[0]
        return scores

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        return self.loss_and_parts(scores, batch)[0]

    def loss_and_parts(self, scores: Scores, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Divided by the targets, the masked words: their mean loss + the mean loss of the pairs, as the
        release has it.
        """
        words = softmax_loss(scores["hidden"], *self.decoder, _asked(batch.gold["labels"]))
        if not self.next_sentences:
            return words, {}
        pairs = F.cross_entropy(scores["elsewhere"].float(), batch.gold["elsewhere"])
        pairs = pairs * self.targets(batch)
        return words + pairs, {"masked_words": words, "next_sentences": pairs}

    def targets(self, batch: Batch) -> int:
        return int((batch.gold["labels"] != NO_TARGET).sum())

    def judged(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of each label its log-probability, and whether it is the likeliest word: (K,), (K,)."""
        weight, bias = self.decoder
        said, right = [weight.new_zeros(0)], [labels.new_zeros(0, dtype=torch.bool)]
        step = max(32, LOGITS_HELD // len(weight))
        with torch.no_grad():
            for start in range(0, len(labels), step):
                hidden, some = scores["hidden"][start : start + step], labels[start : start + step]
                logits = F.linear(hidden.to(weight.dtype), weight, bias).float()  # (k, V)
                said.append(logits.log_softmax(1).gather(1, some[:, None])[:, 0])
                right.append(logits.argmax(1) == some)
        return torch.cat(said), torch.cat(right)


def _asked(labels: Tensor) -> Tensor:
    """(N, P) -> (K,)."""
    return labels[labels != NO_TARGET]


def masked_scores(model: nn.Module, head: MaskedWordsHead, source: Streams) -> dict[str, float]:
    """Perplexity and loss of all masked words of a source, how many are guessed, and the same of pairs.

    `model(batch)` returns what has `scores`: a Model.
    """
    device = next(model.parameters()).device
    nats, tokens, guessed, pairs, pair_nats, told = 0.0, 0, 0, 0, 0.0, 0
    with torch.no_grad():
        for step in range(source.steps(0)):
            batch = source.batch(0, step).to(device)
            scores = model(batch).scores
            said, right = head.judged(scores, _asked(batch.gold["labels"]))
            nats, tokens, guessed = (
                nats - float(said.double().sum()),
                tokens + len(said),
                guessed + int(right.sum()),
            )
            if head.next_sentences:
                gold = batch.gold["elsewhere"]
                pair_nats += float(F.cross_entropy(scores["elsewhere"].float(), gold, reduction="sum"))
                told += int((scores["elsewhere"].argmax(1) == gold).sum())
                pairs += len(gold)
    found = {"perplexity": perplexity(nats, tokens), "loss": nats / max(1, tokens)}
    found["accuracy"] = guessed / max(1, tokens)
    if head.next_sentences:
        found |= {"next_loss": pair_nats / max(1, pairs), "next_accuracy": told / max(1, pairs)}
    return {**found, "tokens": float(tokens)}
