"""Next-token prediction: the pretraining task of ULMFiT, whose gold is the text itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError
from pretune.layers.adaptive_softmax import AdaptiveSoftmax
from pretune.layers.dropout import locked_dropout
from pretune.layers.softmax import log_probabilities, sampled_softmax_loss, softmax_loss
from pretune.tasks.base import Answer, Head, Scores, Task
from pretune.tensors.batch import Batch
from pretune.tensors.streams import NO_TARGET, Streams


class Tied(Protocol):
    """What a decoder tied to the embedding needs of its encoder."""

    @property
    def embedding_weight(self) -> Tensor: ...  # (V, D)

    @property
    def decoder_bias(self) -> Tensor: ...  # (V,)


def adaptive_of(encoder: object) -> AdaptiveSoftmax | None:
    """The adaptive softmax over a tied decoder, where the encoder has one."""
    found: AdaptiveSoftmax | None = getattr(encoder, "adaptive", None)
    return found


@dataclass(frozen=True)
class NextToken(Task):
    """Which token comes next, at every token of a text. Documents or streams; scored by perplexity.

    The decoder is the encoder's own embedding (Press & Wolf 2017), so that the encoder *is* the language
    model and the head has no weights.
    """

    dropout: float = 0.1
    """On the top layer before the decoder, one mask for all time steps."""
    candidates: int | None = None
    """Words that a training step compares with beside its targets; None: all. Evaluation compares all. An
    adaptive softmax has its own way of sparing work and compares as ever."""

    higher_is_better = False

    @property
    def metric(self) -> str:
        return "perplexity"

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        return codec.encode([sample.parts for sample in samples])

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`next` (N, T): each row shifted by one; nothing follows its last token."""
        flat = [row.ids for of_sample in rows for row in of_sample]
        following = torch.full((len(flat), max(map(len, flat))), NO_TARGET)  # (N, T)
        for n, ids in enumerate(flat):
            following[n, : len(ids) - 1] = torch.tensor(ids[1:])
        return {"next": following}

    def head(self, encoder: Encoder) -> NextTokenHead:
        return NextTokenHead(encoder, self.dropout, self.candidates)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        """Log-probability, in nats, of each sample's tokens after the first, and how many they are."""
        said = iter(scores["log_probabilities"])
        answers = []
        for of_sample in rows:
            total = sum(float(next(said)[: len(row) - 1].double().sum()) for row in of_sample)
            tokens = sum(len(row) - 1 for row in of_sample)
            answers.append(Answer(scores={"log_probability": total, **scores_of(-total, tokens)}))
        return answers

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        nats = -sum(answer.scores["log_probability"] for answer in answers)
        tokens = int(sum(answer.scores["tokens"] for answer in answers))
        return scores_of(nats, tokens)


class NextTokenHead(Head):
    """The top layer through a decoder that is the encoder's embedding and its `decoder_bias`."""

    def __init__(self, encoder: Encoder, dropout: float, candidates: int | None = None) -> None:
        super().__init__()
        if getattr(encoder, "embedding_weight", None) is None:
            raise UsageError(
                f"{type(encoder).__name__} has no embedding to tie a decoder to; "
                "next-token prediction needs one, as AWD-LSTM has"
            )
        self.dropout, self.candidates = dropout, candidates
        # In a tuple, so that the weights stay the encoder's alone: saved once, trained once. A deep copy
        # of a model copies encoder and head together and so keeps the tie.
        self._tied = (encoder,)

    def decoder(self) -> tuple[Tensor, Tensor]:
        encoder = cast(Tied, self._tied[0])
        return encoder.embedding_weight, encoder.decoder_bias

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        """`hidden` (N, T, D), from which a loss is cheaper than from logits.

        Where nobody gave gold, also `log_probabilities` (N, T-1) of the row's own tokens after the first.
        """
        hidden = locked_dropout(encoded.layers[-1], self.dropout, self.training)  # (N, T, D)
        if batch.gold:
            return {"hidden": hidden}
        following = batch.ids[:, 1:]
        said = self.log_probabilities(hidden[:, :-1].flatten(0, 1), following.flatten())
        return {"hidden": hidden, "log_probabilities": said.view(following.shape) * batch.mask[:, 1:]}

    def logits(self, hidden: Tensor) -> Tensor:
        """What a softmax makes probabilities of: (..., D) -> (..., V)."""
        weight, bias = self.decoder()
        adaptive = adaptive_of(self._tied[0])
        if adaptive is not None:
            return adaptive.all_log_probabilities(hidden, weight, bias)
        return nn.functional.linear(hidden, weight, bias)

    def log_probabilities(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Of each row's target, without a gradient: (M, D), (M,) -> (M,)."""
        adaptive = adaptive_of(self._tied[0])
        with torch.no_grad():
            if adaptive is not None:
                return adaptive.log_probabilities(hidden, *self.decoder(), targets)
            return log_probabilities(hidden, *self.decoder(), targets)

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        hidden, following = scores["hidden"].flatten(0, 1), batch.gold["next"].flatten()
        asked = following != NO_TARGET
        if not bool(asked.all()):
            hidden, following = hidden[asked], following[asked]  # (targets, D)
        adaptive = adaptive_of(self._tied[0])
        if adaptive is not None:
            loss: Tensor = adaptive(hidden, *self.decoder(), following)
            return loss
        if self.training and self.candidates is not None:
            return sampled_softmax_loss(hidden, *self.decoder(), following, self.candidates)
        return softmax_loss(hidden, *self.decoder(), following)

    def targets(self, batch: Batch) -> int:
        return int((batch.gold["next"] != NO_TARGET).sum())

    def seen(self, scores: Scores, encoded: Encoded) -> Tensor:
        return scores["hidden"]


def perplexity(nats: float, tokens: int) -> float:
    """exp of the mean loss; infinite where that overflows."""
    mean = nats / max(1, tokens)
    return exp(mean) if mean < 700 else float("inf")


def stream_scores(model: nn.Module, head: Head, source: Streams, epoch: int = 0) -> dict[str, float]:
    """Perplexity and loss of all targets of a source, each token weighing the same, state carried if asked.

    `model(batch, carry)` returns what has `reported` and `carry`: a Model. With `whole` sources the tokens
    scored do not depend on the number of streams, and with one stream nothing depends on the window.
    """
    device = next(model.parameters()).device
    nats, tokens, carry = 0.0, 0, None
    with torch.no_grad():
        for step in range(source.steps(epoch)):
            batch = source.batch(epoch, step)
            output = model(batch.to(device), carry)
            nats += float(output.reported)
            tokens += head.targets(batch)
            carry = output.carry if source.carries else None
    return scores_of(nats, tokens)


def scores_of(nats: float, tokens: int) -> dict[str, float]:
    """Perplexity and loss of some tokens that cost so much together."""
    return {"perplexity": perplexity(nats, tokens), "loss": nats / max(1, tokens), "tokens": float(tokens)}
