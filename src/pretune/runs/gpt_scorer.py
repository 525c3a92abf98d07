"""GPT as a scorer: each token of a text given those before it, whatever the length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pretune.errors import UsageError
from pretune.methods.gpt.tokens import GPTCodec
from pretune.runs.left_to_right import GPTText
from pretune.runs.readings import Sentence, part_of
from pretune.runs.scorers import check_position, likeliest, together
from pretune.runs.text_scores import Substitute, TextScore
from pretune.training.model import Model


@dataclass
class GPTScorer:
    """Its words are pieces of them, `</w>` at the last of each; nothing predicts the first of a text."""

    model: Model
    codec: GPTCodec
    stride: int | None = None  # of windows, where a text is longer than the context; None: half of it
    reader: GPTText = field(init=False)

    def __post_init__(self) -> None:
        self.reader = GPTText(self.model, self.codec, self.stride)

    def words(self, text: Sentence) -> list[str]:
        return self.reader.words(self._ids(text))

    def score(self, texts: Sequence[Sentence], batch_size: int) -> list[TextScore]:
        read = [self._ids(text) for text in texts]
        return [
            TextScore(
                tuple(self.reader.words(ids)),
                tuple(number != self.codec.unknown_id for number in ids),
                forward,
                None,
            )
            for ids, forward in zip(read, self.reader.nats(read, batch_size), strict=True)
        ]

    def carried(self, texts: Sequence[Sentence], streams: int) -> Iterable[TextScore]:
        raise UsageError("GPT carries nothing from text to text; leave state carry out, or join the texts")

    def substitutes(self, text: Sentence, position: int, top: int) -> list[Substitute]:
        ids = self._ids(text)
        check_position(position, self.reader.words(ids))
        left = self.reader.following([ids[:position]])[0] if position else None  # (V,)
        total = together([left])
        return likeliest(total, [left, None], [self.codec.unknown_id], self.codec.vocab.words, top)

    def _ids(self, text: Sentence) -> list[int]:
        return self.reader.ids(text if isinstance(text, str) else part_of(text).text)
