"""GPT as a language model: the next token of text as it stands, without the marks of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from pretune.data.rows import NOTHING, Codec, Row
from pretune.data.samples import Sample
from pretune.encoder import Encoder
from pretune.methods.gpt.tokens import SPECIALS
from pretune.tasks.next_token import NextToken, NextTokenHead

MARKS: Final = len(SPECIALS)  # `_start_`, `_delimiter_`, `_classify_`: the last rows of the token matrix


@dataclass(frozen=True)
class PlainText(NextToken):
    """What GPT's pretraining predicts: each token of a text but the first, among tokens that stand for text.

    The rows of marks are none of its words, as they were not there yet when the release was pretrained. So
    pretraining leaves them as they are drawn, and nothing that is written or scored is a mark.
    """

    dropout: float = 0.0

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        plain: Any = codec
        read = plain.ids([sample.parts[0].text for sample in samples])
        return [[Row(ids, [0] * len(ids), [0] * len(ids), [NOTHING] * len(ids))] for ids in read]

    def head(self, encoder: Encoder) -> PlainTextHead:
        return PlainTextHead(encoder, self.dropout, self.candidates)


class PlainTextHead(NextTokenHead):
    """The decoder without the rows of marks."""

    def decoder(self) -> tuple[Tensor, Tensor]:
        weight, bias = super().decoder()
        return weight[:-MARKS], bias[:-MARKS]  # (V - 3, D), (V - 3,)
