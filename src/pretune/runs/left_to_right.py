"""Models that read from left to right, asked about ids: how likely is each one, given all before it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from pretune.data.rows import NOTHING, Row
from pretune.errors import UsageError, UserError
from pretune.methods.gpt.encoder import GPT
from pretune.methods.gpt.tokens import GPTCodec
from pretune.methods.ulmfit import UlmfitCodec
from pretune.runs.text_scores import Nats
from pretune.tasks.next_token import NextTokenHead
from pretune.tensors.batch import collate
from pretune.tensors.lengths import answer_batches
from pretune.tensors.streams import NO_TARGET
from pretune.tensors.windows import overlapping, window_batch
from pretune.training.model import Model


class LeftToRight(Protocol):
    """A text is ids, `opening` before them."""

    @property
    def opening(self) -> list[int]:
        """What stands before every text."""
        ...

    @property
    def reach(self) -> int | None:
        """How many ids at most are read to predict one; None: any number."""
        ...

    @property
    def unknown_id(self) -> int: ...

    def ids(self, text: str) -> list[int]:
        """Of a text, or of a part of one, without the opening."""
        ...

    def nats(self, texts: Sequence[Sequence[int]], batch_size: int = 64) -> list[Nats]:
        """Log-probability of each id of each text given those before it; NaN for the first of all."""
        ...

    def following(self, texts: Sequence[Sequence[int]], batch_size: int = 64) -> Tensor:
        """Log-probabilities of what comes after each text: (N, V)."""
        ...


def left_to_right(model: Model, codec: object) -> LeftToRight:
    """A pretrained GPT or forward ULMFiT in that role."""
    if isinstance(codec, GPTCodec):
        return GPTText(model, codec)
    if isinstance(codec, UlmfitCodec):
        if codec.config.direction == "backward":
            raise UserError("this ULMFiT reads from right to left; give a forward one")
        return UlmfitText(model, codec)
    raise UserError("only a model that reads from left to right can be asked so: give a gpt or a ulmfit")


@dataclass
class GPTText:
    """In windows where a text is longer than the context, each `stride` ids (half a context) behind the one
    before: each id but the first has the rest of a context before it, or all that there is."""

    model: Model
    codec: GPTCodec
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.stride is not None and not 1 <= self.stride <= self._encoder.config.context:
            most = self._encoder.config.context
            raise UsageError(f"stride is {self.stride}; windows are {most} pieces long, so give 1 to {most}")

    @property
    def opening(self) -> list[int]:
        return []

    @property
    def reach(self) -> int | None:
        return self._encoder.config.context

    @property
    def unknown_id(self) -> int:
        return self.codec.unknown_id

    def ids(self, text: str) -> list[int]:
        return self.codec.ids([text])[0]

    def words(self, ids: Sequence[int]) -> list[str]:
        return [self.codec.vocab.words[number] for number in ids]

    def nats(self, texts: Sequence[Sequence[int]], batch_size: int = 64) -> list[Nats]:
        whole = np.concatenate([np.asarray(ids, np.int64) for ids in texts]) if texts else np.zeros(0)
        starts = np.cumsum([0, *map(len, texts)])
        context = self._encoder.config.context
        overlap = context // 2 if self.stride is None else context - self.stride
        windows = [
            (start + begin, end - begin, scored - begin)
            for start, ids in zip(starts[:-1].tolist(), texts, strict=True)
            for begin, end, scored in overlapping(len(ids) - 1, context, overlap)
        ]
        found = np.full(len(whole), np.nan)
        head, device = self._head, self._encoder.tokens.weight.device
        for some in answer_batches([length for _, length, _ in windows], batch_size):
            begins, lengths, skipped = np.array([windows[i] for i in some]).T
            batch = window_batch(whole, begins, lengths, skipped, self.codec.pad_id).to(device)
            following = batch.gold["next"]  # (N, T)
            asked = following != NO_TARGET
            with reading(self.model):
                hidden = self.model.encoder(batch).layers[-1][asked]  # (targets, D)
                said = head.log_probabilities(hidden, following[asked])
            rows, places = asked.cpu().numpy().nonzero()
            found[begins[rows] + places + 1] = said.cpu().numpy()
        return np.split(found, starts[1:-1]) if texts else []

    def following(self, texts: Sequence[Sequence[int]], batch_size: int = 64) -> Tensor:
        """Of a text longer than the context its end alone is read."""
        context = self._encoder.config.context
        return _following(self.model, self.codec.pad_id, [ids[-context:] for ids in texts], batch_size)

    @property
    def _encoder(self) -> GPT:
        return cast(GPT, self.model.encoder)

    @property
    def _head(self) -> NextTokenHead:
        return cast(NextTokenHead, self.model.head)


@dataclass
class UlmfitText:
    """From the mark of the beginning on, whatever the length."""

    model: Model
    codec: UlmfitCodec

    @property
    def opening(self) -> list[int]:
        return self.codec.ids([""])[0]

    @property
    def reach(self) -> int | None:
        return None

    @property
    def unknown_id(self) -> int:
        return self.codec.unknown_id

    def ids(self, text: str) -> list[int]:
        return self.codec.ids([text])[0][len(self.opening) :]

    def nats(self, texts: Sequence[Sequence[int]], batch_size: int = 64) -> list[Nats]:
        found: dict[int, Nats] = {}
        device = next(self.model.parameters()).device
        for some in answer_batches([len(ids) for ids in texts], batch_size):
            batch = collate([[_row(texts[i])] for i in some], self.codec.pad_id).to(device)
            with reading(self.model):
                said = self.model(batch).scores["log_probabilities"].double().cpu().numpy()  # (N, T - 1)
            for row, i in zip(said, some, strict=True):
                found[i] = np.concatenate(([np.nan], row[: len(texts[i]) - 1]))
        return [found[i] for i in range(len(texts))]

    def following(self, texts: Sequence[Sequence[int]], batch_size: int = 64) -> Tensor:
        return _following(self.model, self.codec.pad_id, texts, batch_size)


def _following(model: Model, pad_id: int, texts: Sequence[Sequence[int]], batch_size: int) -> Tensor:
    head = cast(NextTokenHead, model.head)
    device = next(model.parameters()).device
    found: dict[int, Tensor] = {}
    for some in answer_batches([len(ids) for ids in texts], batch_size):
        batch = collate([[_row(texts[i])] for i in some], pad_id).to(device)
        with reading(model):
            top = model.encoder(batch).layers[-1]  # (N, T, D)
            last = top[torch.arange(len(some), device=device), batch.lengths - 1]  # (N, D)
            found |= zip(some, head.logits(last).float().log_softmax(-1).cpu(), strict=True)
    return torch.stack([found[i] for i in range(len(texts))])


def _row(ids: Sequence[int]) -> Row:
    return Row(list(ids), [0] * len(ids), [0] * len(ids), [NOTHING] * len(ids))


@contextmanager
def reading(model: Model) -> Iterator[None]:
    """No dropout, no gradient; afterwards the encoder is ready for tasks again."""
    gpt = isinstance(model.encoder, GPT)  # which else looks for a mark of tasks; long texts suit an AWD-LSTM
    model.eval()
    model.encoder.purpose("language_model" if gpt else "task")
    try:
        with torch.no_grad():
            yield
    finally:
        model.encoder.purpose("task")
