"""Both ways: the next word from the left and from the right, ELMo's pretraining task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.data.rows import NOTHING, Codec, Row
from pretune.data.samples import Sample
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError
from pretune.layers.sampled_softmax import log_expected, log_uniform, log_uniform_loss
from pretune.layers.softmax import log_probabilities, softmax_loss
from pretune.tasks.base import Answer, Head, Scores, Task
from pretune.tasks.next_token import perplexity
from pretune.tensors.batch import Batch
from pretune.tensors.streams import NO_TARGET


class Predicting(Protocol):
    """What the head needs of its encoder: a softmax that both directions share."""

    ways: int  # 2, or 1 for a model that reads from the left alone

    @property
    def softmax_weight(self) -> Tensor: ...  # (V, D)

    @property
    def softmax_bias(self) -> Tensor: ...  # (V,)


class SentenceCodec(Codec, Protocol):
    """What `BothWays.rows` needs of a codec: the marks around a sentence."""

    marks: tuple[tuple[str, int], tuple[str, int]]  # spelling and id of <S> and of </S>


@dataclass(frozen=True)
class BothWays(Task):
    """sum_k log p(t_k | t_1..t_k-1) + log p(t_k | t_k+1..t_N), section 3.1 of Peters et al. (2018).

    A sample is two rows: `<S> w1 .. wn`, and `</S> wn .. w1` with 1 in its segments; each predicts what
    follows in its own order. Pretraining makes such rows of streams (`tensors/two_ways.py`).
    """

    candidates: int | None = 8192
    """Words drawn by Zipf's law, anew for each way and step of training, to compare the targets with; None,
    or more than there are: all words. Evaluation compares all."""
    dropout: float = 0.1
    """On the top layer before the softmax, anew at each time step."""

    higher_is_better = False

    @property
    def metric(self) -> str:
        return "perplexity"

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        (start, start_id), (end, end_id) = cast(SentenceCodec, codec).marks
        found = []
        for (row,) in codec.encode([sample.parts for sample in samples]):
            back = row.reversed()
            forward = _after(start, start_id, row, 0)
            found.append([forward, _after(end, end_id, back, 1)])
        return found

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`next` (N, T): each row's own ids shifted by one, its closing mark at the end."""
        flat = [(row, of_sample[1 - way].ids[0]) for of_sample in rows for way, row in enumerate(of_sample)]
        following = torch.full((len(flat), max(len(row) for row, _ in flat)), NO_TARGET)  # (N, T)
        for n, (row, closing) in enumerate(flat):
            following[n, : len(row)] = torch.tensor([*row.ids[1:], closing])
        return {"next": following}

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        return self.given(samples, rows)

    def head(self, encoder: Encoder) -> BothWaysHead:
        return BothWaysHead(encoder, self)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        """Log-probabilities, in nats, of each sample's words and closing mark, each way."""
        said = iter(scores["log_probabilities"].double())
        answers = []
        for of_sample in rows:
            nats = [float(next(said)[: len(row)].sum()) for row in of_sample]
            tokens = sum(map(len, of_sample))
            answers.append(
                Answer(
                    scores={
                        "log_probability": sum(nats),
                        "forward": nats[0],
                        "backward": nats[-1],
                        "tokens": float(tokens),
                        "perplexity": perplexity(-sum(nats), tokens),
                    }
                )
            )
        return answers

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        """Perplexity over both ways: exp of the mean of both losses, as the release's `run_test.py`."""
        nats = -sum(answer.scores["log_probability"] for answer in answers)
        tokens = sum(answer.scores["tokens"] for answer in answers)
        return {
            "perplexity": perplexity(nats, int(tokens)),
            "loss": nats / max(1.0, tokens),
            "tokens": tokens,
        }


class BothWaysHead(Head):
    """The softmax of the encoder's own; the head has no weights, so the encoder *is* the language model."""

    def __init__(self, encoder: Encoder, task: BothWays) -> None:
        super().__init__()
        if getattr(encoder, "softmax_weight", None) is None:
            raise UsageError(
                f"{type(encoder).__name__} has no softmax to predict words with; an ELMo has one where it "
                "was pretrained here, or imported with --softmax and --vocab"
            )
        self.task = task
        self._encoder = (encoder,)  # in a tuple, so that the weights stay the encoder's alone

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        """`hidden` (N, T, D); without gold also `log_probabilities` (N, T) of what `given` says is next."""
        hidden = F.dropout(encoded.layers[-1], self.task.dropout, self.training)
        if batch.gold:
            return {"hidden": hidden}
        encoder, following = self._predicting(), batch.given["next"]
        asked = following != NO_TARGET
        said = hidden.new_zeros(following.shape)
        said[asked] = log_probabilities(
            hidden[asked], encoder.softmax_weight, encoder.softmax_bias, following[asked]
        )
        return {"hidden": hidden, "log_probabilities": said}

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        encoder, following = self._predicting(), batch.gold["next"]
        weight, bias, wanted = encoder.softmax_weight, encoder.softmax_bias, self.task.candidates
        hidden, targets = [], []
        for way in range(encoder.ways):
            asked = (batch.segments[:, :1] == way) & (following != NO_TARGET)  # (N, T)
            hidden.append(scores["hidden"][asked].float())  # (M, D)
            targets.append(following[asked])  # (M,)
        if not self.training or wanted is None or wanted >= len(weight):
            return softmax_loss(torch.cat(hidden), weight, bias, torch.cat(targets))
        return self._sampled(hidden, targets, weight, bias, wanted)

    def _sampled(
        self, hidden: list[Tensor], targets: list[Tensor], weight: Tensor, bias: Tensor, wanted: int
    ) -> Tensor:
        drawn = [log_uniform(len(weight), wanted) for _ in targets]
        ids, corrections = [], []
        for own, candidates in zip(targets, drawn, strict=True):
            ids += [own, candidates.ids.to(own.device)]
            corrections += [log_expected(x, len(weight), candidates.tries) for x in ids[-2:]]
        at = torch.cat(ids)
        sizes = [len(x) for x in ids]
        weights = torch.split(F.embedding(at, weight), sizes)
        biases = torch.split(bias[at] - torch.cat(corrections), sizes)
        total = weight.new_zeros(())
        for way, h in enumerate(hidden):
            k = 2 * way
            total = total + log_uniform_loss(
                h, weights[k], biases[k], weights[k + 1], biases[k + 1], ids[k], ids[k + 1]
            )
        return total

    def targets(self, batch: Batch) -> int:
        return int((batch.gold["next"] != NO_TARGET).sum())

    def seen(self, scores: Scores, encoded: Encoded) -> Tensor:
        return scores["hidden"]

    def _predicting(self) -> Predicting:
        return cast(Predicting, self._encoder[0])


def _after(spelling: str, number: int, row: Row, way: int) -> Row:
    """A row behind its opening mark, with its way in the segments."""
    return Row(
        [number, *row.ids],
        [way] * (len(row) + 1),
        [-1, *row.part],
        [NOTHING, *row.chars],
        None if row.spelled is None else [spelling, *row.spelled],
    )
