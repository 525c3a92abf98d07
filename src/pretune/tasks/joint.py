"""Two tasks on one text: the labels, and the text itself, as in pretraining (GPT's auxiliary objective)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pretune.data.rows import Row
from pretune.data.samples import Sample
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError
from pretune.keys import generator
from pretune.layers.softmax import softmax_loss
from pretune.tasks.around import Around
from pretune.tasks.base import Head, Scores
from pretune.tasks.next_token import Tied, adaptive_of
from pretune.tensors.batch import Batch

LOGITS_HELD = 60_000_000  # at once, of an adaptive softmax: 240 MB in float32
TEXT, TOP = "covers_text", "top"  # in `Batch.given`: (N, T); in scores: (N, T, D)
MASKED, HIDDEN, REPLACED = 0.15, 0.8, 0.1  # of a row's tokens; of those, as [MASK] and as any word


@dataclass(frozen=True)
class Joint(Around):
    """L3 = L2 + weight * L1, eq. 5 of Radford et al. (2018): learn `task`, and go on predicting the text.

    Answers and scores are those of `task`. What is predicted is what the encoder was pretrained on: of those
    that read one way and tie their output to their embedding (AWD-LSTM, GPT) each next token, the marks at
    the end and between texts too; of BERT words that are masked in a second copy of each batch, which is read
    beside the first, so that a step costs about twice as much.
    """

    weight: float = 0.5
    """lambda, section 4.1."""

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """With which tokens cover text, and so may be masked."""
        flat = [row for of_sample in rows for row in of_sample]
        covers = torch.zeros(len(flat), max(map(len, flat)), dtype=torch.bool)  # (N, T)
        for n, row in enumerate(flat):
            covers[n, : len(row)] = torch.tensor(row.part) >= 0
        return {**self.task.given(samples, rows), TEXT: covers}

    def head(self, encoder: Encoder) -> JointHead:
        kind = MaskedWordsBeside if hasattr(encoder, "mlm_hidden") else NextTokensBeside
        return kind(self.task.head(encoder), encoder, self.weight)


class JointHead(Head):
    """The task's head beside the encoder's own output layer; no weights but the former's.

    The auxiliary loss is averaged over a row's tokens, then over a sample's rows, wrong choices among them,
    as the release does. It counts once for each of the sample's targets, so that dividing by all targets
    leaves L2 + weight * L1 whatever the batches.
    """

    objective: str

    def __init__(self, main: Head, encoder: Encoder, weight: float) -> None:
        super().__init__()
        self.main, self.weight = main, weight
        self._tied = (encoder,)  # in a tuple, so that the weights stay the encoder's alone

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        """The task's scores; where there is gold also `top` (N, T, D), from which tokens are predicted."""
        scores = self.main(encoded, batch)
        return {**scores, TOP: encoded.layers[-1]} if batch.gold else scores

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        return self.loss_and_parts(scores, batch)[0]

    def loss_and_parts(self, scores: Scores, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Beside the whole both losses as they are, before `weight`."""
        task, parts = self.main.loss_and_parts(scores, batch)
        auxiliary = self.auxiliary(scores, batch) * self.targets(batch) / batch.samples
        return task + self.weight * auxiliary, {"task": task, **parts, self.objective: auxiliary}

    @abstractmethod
    def auxiliary(self, scores: Scores, batch: Batch) -> Tensor:
        """A sum over samples; a sample is the mean of its rows, a row of its tokens, 0 without any."""

    def targets(self, batch: Batch) -> int:
        return self.main.targets(batch)

    def seen(self, scores: Scores, encoded: Encoded) -> Tensor:
        return self.main.seen(scores, encoded)


class NextTokensBeside(JointHead):
    """The next token at every token, by a decoder tied to the embedding."""

    objective = "next_tokens"

    def __init__(self, main: Head, encoder: Encoder, weight: float) -> None:
        super().__init__(main, encoder, weight)
        if getattr(encoder, "embedding_weight", None) is None:
            raise UsageError(
                "an auxiliary objective needs a language model that predicts the next token or masked words, "
                f"which {type(encoder).__name__} is not; set recipe.auxiliary=0"
            )

    def auxiliary(self, scores: Scores, batch: Batch) -> Tensor:
        encoder = cast(Tied, self._tied[0])
        asked = batch.mask[:, 1:]  # (N, T-1) where there is a next token
        hidden, following = scores[TOP][:, :-1][asked], batch.ids[:, 1:][asked]  # (M, D), (M,)
        by = shares(asked, batch)  # (M,)
        weight, bias = encoder.embedding_weight, encoder.decoder_bias
        adaptive = adaptive_of(encoder)
        if adaptive is None:
            return softmax_loss(hidden, weight, bias, following, by)
        total = hidden.new_zeros((), dtype=torch.float32)
        step = max(32, LOGITS_HELD // len(weight))
        for part in (slice(start, start + step) for start in range(0, len(hidden), step)):
            said = checkpoint(  # so that no logits are kept
                adaptive.log_probabilities, hidden[part], weight, bias, following[part], use_reentrant=False
            )
            total = total - (said * by[part]).sum()
        return total


class Masking(Protocol):
    """What the prediction of masked words needs of an encoder: BERT."""

    mask_id: int | None

    @property
    def causal(self) -> bool: ...

    @property
    def words(self) -> torch.nn.Embedding: ...

    @property
    def mlm_bias(self) -> Tensor | None: ...  # (V,)

    def mlm_hidden(self, hidden: Tensor) -> Tensor: ...  # (K, D) -> (K, D)


class MaskedWordsBeside(JointHead):
    """Masked words, in a second reading: what is classified stays whole (appendix A.1 of Devlin et al. 2019).

    In training the masks are others at every step, drawn as dropout is; elsewhere always the same.
    """

    objective = "masked_words"

    def __init__(self, main: Head, encoder: Encoder, weight: float) -> None:
        super().__init__(main, encoder, weight)
        bert = cast(Masking, encoder)
        if bert.mlm_bias is None or bert.mask_id is None:
            raise UsageError(
                "an auxiliary objective needs what predicts masked words, which this "
                f"{type(encoder).__name__} lacks; start from one pretrained here or imported with its heads, "
                "or set recipe.auxiliary=0"
            )
        if bert.causal:
            raise UsageError(
                "a BERT that reads from left to right (encoder.causal) predicts no masked words; set "
                "recipe.auxiliary=0, or take gpt"
            )

    def auxiliary(self, scores: Scores, batch: Batch) -> Tensor:
        encoder = cast(Masking, self._tied[0])
        assert encoder.mlm_bias is not None and encoder.mask_id is not None
        chance = None if self.training else generator("masked words")
        ids, asked = masked(batch, encoder.mask_id, encoder.words.num_embeddings, chance)
        copy = Batch(ids, batch.mask, batch.segments, batch.owner)
        top = self._tied[0](copy).layers[-1]  # (N, T, D)
        hidden = encoder.mlm_hidden(top[asked])  # (K, D)
        by = shares(asked, batch)
        return softmax_loss(hidden, encoder.words.weight, encoder.mlm_bias, batch.ids[asked], by)


def shares(asked: Tensor, batch: Batch) -> Tensor:
    """What each token asked for (N, T') counts: 1 / (those of its row · rows of its sample)."""
    rows_of_sample = torch.bincount(batch.owner, minlength=batch.samples)[batch.owner]  # (N,)
    share = 1 / (asked.sum(1).clamp(min=1) * rows_of_sample)  # (N,)
    return share[:, None].expand(asked.shape)[asked]  # (M,)


def masked(batch: Batch, mask_id: int, words: int, chance: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Ids with some hidden, and which those are, (N, T) both.

    15 % of a row's tokens and at least one, of those that cover text; of them 80 % become [MASK], 10 % any
    word at all, 10 % stay as they are. Draws on the CPU, so that devices agree; without `chance` from the
    global generator.
    """
    text = batch.given[TEXT].cpu()
    wanted = (batch.lengths.cpu() * MASKED).round().clamp(min=1).long()  # (N,)
    wanted = torch.minimum(wanted, text.sum(1))
    order = torch.rand(text.shape, generator=chance).masked_fill(~text, 2).argsort(1).argsort(1)
    asked = order < wanted[:, None]  # (N, T)
    how = torch.rand(text.shape, generator=chance)
    drawn = torch.randint(words, text.shape, generator=chance)
    device = batch.ids.device
    hide, replace = asked & (how < HIDDEN), asked & (how >= HIDDEN) & (how < HIDDEN + REPLACED)
    ids = batch.ids.masked_fill(hide.to(device), mask_id)
    return torch.where(replace.to(device), drawn.to(device), ids), asked.to(device)
