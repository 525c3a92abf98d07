"""Writers: what generation has to know of a method: how a prompt is read, how tokens become text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, ClassVar, Final, Protocol, cast

import torch
from torch import Tensor

from pretune.errors import UsageError
from pretune.layers.attention import kernels_without_gradient
from pretune.layers.fused_attention import FEW, linear
from pretune.layers.packing import packed
from pretune.methods.gpt.bpe import END as END_OF_WORD
from pretune.methods.gpt.encoder import GPT
from pretune.methods.gpt.tokens import SPECIALS, GPTCodec
from pretune.methods.ulmfit import AWDLSTM, UlmfitCodec
from pretune.methods.ulmfit.rules import END, FIELD, PAD, START
from pretune.runs.left_to_right import GPTText
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
    _decoder: Decoder = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.leftwards = self.codec.config.direction == "backward"
        self.opening = self.codec.ids([""])[0]
        self._decoder = Decoder(self.model)

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
            return self._decoder(top[:, -1]).float().log_softmax(-1).cpu(), carry  # (N, V)

    def pick(self, carry: Any, rows: Tensor) -> Any:
        return pick_rows(carry, rows)

    def _known(self, *words: str) -> tuple[int, ...]:
        return tuple(self.codec.vocab.ids[word] for word in words if word in self.codec.vocab.ids)


@dataclass
class GPTWriter:
    """A GPT: from left to right, after a prompt, for it has learned no mark that opens or ends a text.

    It knows `context` positions. A prompt that has more tokens is read from its end alone; a text that has
    filled them goes on from its later half, read again as if it were a beginning. So there are always at
    least half a context of tokens, or all, before the one that is written.
    """

    model: Model
    codec: GPTCodec
    leftwards: ClassVar[bool] = False
    ends: ClassVar[tuple[int, ...]] = ()
    closing: ClassVar[tuple[int, ...]] = ()
    silent: ClassVar[tuple[int, ...]] = ()  # marks of tasks are not among the tokens that the head compares
    _decoder: Decoder = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._decoder = Decoder(self.model)

    @property
    def unknown(self) -> int | None:
        return self.codec.unknown_id

    def id_of(self, word: str) -> int | None:
        """A piece as the vocabulary has it, or a whole word."""
        ids = self.codec.vocab.ids
        return None if word in SPECIALS else ids.get(word, ids.get(word + END_OF_WORD))

    def prompt(self, text: str) -> list[int]:
        ids = self.codec.ids([text])[0]
        if not ids:
            raise UsageError("a GPT has no mark for the beginning of a text; give a prompt with some words")
        return ids

    def unknown_words(self, text: str) -> list[str]:
        """The words, between spaces, that have a character outside the vocabulary."""
        unknown = self.codec.unknown_id
        words = list(dict.fromkeys(text.split()))
        return [word for word, ids in zip(words, self.codec.ids(words), strict=True) if unknown in ids]

    def words(self, ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(GPTText(self.model, self.codec).words(ids))

    def text(self, ids: Sequence[int]) -> str:
        return self.codec.decode(ids)

    def read(self, ids: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """The state is the ids that stand at the positions, (N, T), and the keys and values of them."""
        encoder = cast(GPT, self.model.encoder)
        context = encoder.config.context
        before, kept = carry or (ids[:, :0], None)
        there = torch.cat((before, ids), 1)  # (N, T)
        if there.shape[1] > context:
            ids = there = there[:, -(max(1, context // 2) if carry else context) :]
            kept = None
        with evaluating(self.model), torch.no_grad():
            top, kept = encoder.read_on(ids.to(encoder.tokens.weight.device), kept)
            return self._decoder(top[:, -1]).float().log_softmax(-1).cpu(), (there, kept)  # (N, V)

    def pick(self, carry: Any, rows: Tensor) -> Any:
        return pick_rows(carry, rows)


class Decoder:
    """A tied decoder laid out across, once for all that is written: few rows cost the reading of it.

    The weights must stay as they are while a writer writes.
    """

    def __init__(self, model: Model) -> None:
        self._head = cast(NextTokenHead, model.head)
        self._adaptive = adaptive_of(model.encoder) is not None
        self._across: Tensor | None = None  # (D, V)

    def __call__(self, top: Tensor) -> Tensor:  # (N, D) -> (N, V)
        if top.device.type != "cpu" or self._adaptive:
            return self._head.logits(top)
        weight, bias = self._head.decoder()
        kernels = kernels_without_gradient(top, weight, bias)
        if kernels is not None and FEW[0] <= len(top) <= FEW[1]:
            return linear(kernels, top, weight, bias)
        if self._across is None:
            self._across = packed(weight, "across", lambda w: w.t().contiguous())
        return torch.addmm(bias, top, self._across)


def pick_rows(carry: Any, rows: Tensor) -> Any:
    """Some rows of a state, which are the last dimension but one of all its tensors."""
    if isinstance(carry, Tensor):
        return carry.index_select(-2, rows.to(carry.device))
    return tuple(pick_rows(part, rows) for part in carry)
