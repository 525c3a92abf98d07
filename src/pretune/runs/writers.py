"""Writers: what generation has to know of a method: how a prompt is read, how tokens become text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor

from pretune.layers.packing import packed
from pretune.methods.ulmfit import AWDLSTM, UlmfitCodec
from pretune.methods.ulmfit.rules import END, FIELD, PAD, START
from pretune.runs.search import Reader
from pretune.runs.trained import evaluating
from pretune.tasks.next_token import NextTokenHead, adaptive_of
from pretune.training.model import Model

FAKE: Final = "xxfake"  # fills fastai's vocabularies up to a multiple of eight
PROMPT_TOKENS: Final = 1024  # of a prompt that are read at a time


class Writer(Reader, Protocol):
    """A language model that writes."""

    @property
    def leftwards(self) -> bool:
        """Whether it writes what stands before the prompt."""
        ...

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids that end a document."""
        ...

    @property
    def closing(self) -> tuple[int, ...]:
        """Ids that stand before the one that ends a document and belong to it."""
        ...

    @property
    def silent(self) -> tuple[int, ...]:
        """Ids that stand for no text at all."""
        ...

    @property
    def unknown(self) -> int | None:
        """The id of all words outside the vocabulary."""
        ...

    def id_of(self, word: str) -> int | None:
        """Of a word or mark of the vocabulary."""
        ...

    def prompt(self, text: str) -> list[int]:
        """Ids in the order they are read, the mark of the beginning first."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """Those of a prompt that the vocabulary lacks."""
        ...

    def words(self, ids: Sequence[int]) -> tuple[str, ...]: ...

    def text(self, ids: Sequence[int]) -> str:
        """Readable text of ids in the order they are read."""
        ...


@dataclass
class UlmfitWriter:
    """An AWD-LSTM: forward from the mark of the beginning, or backward from the same mark as the end.

    `model` is an encoder under a `NextTokenHead`. A backward model has learned that the marks which open a
    text stand between texts too, so what it reads after them is a text from its last word on.
    """

    model: Model
    codec: UlmfitCodec
    leftwards: bool = field(init=False)
    opening: list[int] = field(init=False)  # marks before every text, from left to right
    _across: Tensor | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.leftwards = self.codec.config.direction == "backward"
        self.opening = self.codec.ids([""])[0]

    @property
    def ends(self) -> tuple[int, ...]:
        marked = self.leftwards and bool(set(self.opening) & set(self._known(FIELD)))
        return self._known(START, END, *((FIELD,) if marked else ()))  # from the right, xxfld 1 comes first

    @property
    def closing(self) -> tuple[int, ...]:
        marks = self.opening[::-1] if self.leftwards else self.opening
        return tuple(takewhile(lambda mark: mark not in self.ends, marks))

    @property
    def silent(self) -> tuple[int, ...]:
        fakes = [word for word in self.codec.vocab.words if word.startswith(FAKE)]
        return tuple(mark for mark in self._known(PAD, FIELD, *fakes) if mark not in self.ends)

    @property
    def unknown(self) -> int | None:
        return self.codec.unknown_id

    def id_of(self, word: str) -> int | None:
        return self.codec.vocab.ids.get(word)

    def prompt(self, text: str) -> list[int]:
        ids = self.codec.ids([text])[0]
        if not self.leftwards:
            return ids
        return [*self.opening[::-1], *ids[: len(self.opening) - 1 : -1]]

    def unknown_words(self, text: str) -> list[str]:
        return [word for word in self.codec.tokens(text) if word not in self.codec.vocab.ids]

    def words(self, ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.codec.vocab.words[number] for number in ids)

    def text(self, ids: Sequence[int]) -> str:
        return self.codec.decode(ids[::-1] if self.leftwards else ids)

    def read(self, ids: Tensor, carry: Any) -> tuple[Tensor, Any]:
        encoder = cast(AWDLSTM, self.model.encoder)
        device = encoder.embedding_weight.device
        with evaluating(self.model), torch.no_grad():
            for some in torch.split(ids.to(device), PROMPT_TOKENS, dim=1):
                top, carry = encoder.read_on(some, carry)
            return self._logits(top[:, -1]).float().log_softmax(-1).cpu(), carry  # (N, V)

    def pick(self, carry: Any, rows: Tensor) -> Any:
        """Rows are the last dimension but one of every tensor of the state."""
        if isinstance(carry, Tensor):
            return carry.index_select(-2, rows.to(carry.device))
        return tuple(self.pick(part, rows) for part in carry)

    def _logits(self, top: Tensor) -> Tensor:  # (N, D) -> (N, V)
        """By a decoder laid out across, once for all that is written: few rows cost the reading of it.

        The weights must stay as they are while this writer writes.
        """
        head = cast(NextTokenHead, self.model.head)
        if top.device.type != "cpu" or adaptive_of(self.model.encoder) is not None:
            return head.logits(top)
        weight, bias = head.decoder()
        if self._across is None:
            self._across = packed(weight, "across", lambda w: w.t().contiguous())  # (D, V)
        return torch.addmm(bias, top, self._across)

    def _known(self, *words: str) -> tuple[int, ...]:
        return tuple(self.codec.vocab.ids[word] for word in words if word in self.codec.vocab.ids)
