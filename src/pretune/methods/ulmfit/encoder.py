"""AWD-LSTM: the network of ULMFiT (Merity et al. 2017; Howard & Ruder 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pretune.encoder import Encoded, Encoder, Purpose
from pretune.errors import UsageError, choose
from pretune.layers.adaptive_softmax import AdaptiveSoftmax
from pretune.layers.dropout import locked_dropout, packed_locked_dropout, word_dropout
from pretune.layers.lstm import State, WeightDropLSTM, Weights, fills_up
from pretune.layers.pooling import concat_pool
from pretune.layers.qrnn import WeightDropQRNN
from pretune.layers.steps import Steps
from pretune.methods.ulmfit.reading import Call, Carry, Reading, pick_rows
from pretune.tensors.batch import Batch

Cell = Literal["lstm", "qrnn"]
Directions = Literal["one", "both"]
UNCUT = 2048  # tokens through which a gradient goes without working out anything again


@dataclass(frozen=True)
class Dropouts:
    """The five dropouts of AWD-LSTM, in the order the data meets them."""

    embedding: float = 0.02  # whole word types
    input: float = 0.25  # embedded text, one mask for all time steps
    weight: float = 0.2  # entries of the recurrent matrices
    hidden: float = 0.15  # between layers, one mask for all time steps
    output: float = 0.1  # after the last layer, before the decoder

    def __post_init__(self) -> None:
        for name, rate in vars(self).items():
            if not 0 <= rate < 1:
                raise UsageError(
                    f"dropout {name!r}, its drop_mult applied, is {rate:g}; it must be in [0, 1)"
                )

    def times(self, factor: float) -> Dropouts:
        """All five multiplied: fastai's `drop_mult`."""
        return Dropouts(
            self.embedding * factor,
            self.input * factor,
            self.weight * factor,
            self.hidden * factor,
            self.output * factor,
        )


@dataclass(frozen=True)
class AWDLSTMConfig:
    """Defaults are the network of the paper with fastai's hidden width."""

    embedding: int = 400  # width of word vectors and of the last layer
    hidden: int = 1152  # width of the other layers; 1150 in the paper's own weights
    layers: int = 3
    cell: Cell = "lstm"  # "qrnn" as MultiFiT has it: the first layer sees two tokens at a time
    bptt: int = 70  # tokens between cuts of the gradient in long texts
    gradient_chunks: int = 1  # chunks of `bptt` tokens that the gradient goes back through in long texts
    max_len: int = 1400  # tokens at the end of a long text that are pooled and get gradient
    language_model: Dropouts = Dropouts()  # the release's `finetune_lm.py`
    task: Dropouts = field(default_factory=lambda: Dropouts(0.05, 0.4, 0.5, 0.3, 0.4))  # its `train_clas.py`
    language_model_drop_mult: float = 1.0  # factor on all of `language_model`
    task_drop_mult: float = 1.0  # factor on all of `task`; fastai 2 halves them
    cutoffs: tuple[int, ...] = ()  # of an adaptive softmax: words of the head, then where clusters begin
    cutoff_div: float = 4.0  # how much narrower each cluster's vectors are; 1: all are the embedding's
    directions: Directions = "one"  # "both", for tasks alone: a forward and a backward network side by side

    def __post_init__(self) -> None:
        for name in ("embedding", "hidden", "layers", "bptt", "gradient_chunks", "max_len"):
            if getattr(self, name) < 1:
                raise UsageError(f"encoder.{name} is {getattr(self, name)}; it must be at least 1")
        if self.cell not in ("lstm", "qrnn"):
            raise choose("encoder.cell", self.cell, ("lstm", "qrnn"))
        if self.directions not in ("one", "both"):
            raise choose("encoder.directions", self.directions, ("one", "both"))
        if any(low >= high for low, high in pairwise((0, *self.cutoffs))):
            raise UsageError(f"encoder.cutoffs is {list(self.cutoffs)}; give rising numbers of words")
        if self.cutoff_div < 1:
            raise UsageError(f"encoder.cutoff_div is {self.cutoff_div}; it must be at least 1")

    def widths(self) -> tuple[int, ...]:
        """Of the embedding and of each layer; the last equals the embedding, which is tied to it."""
        return (self.embedding, *[self.hidden] * (self.layers - 1), self.embedding)


class EmbeddingBlock(nn.Module):
    """Word vectors with their two dropouts, and the bias of the decoder that is tied to them.

    The bias stands here because the tie does, and so does what an adaptive softmax has of its own: a saved
    encoder is then the whole language model.
    """

    def __init__(self, words: int, width: int, cutoffs: tuple[int, ...] = (), div: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(words, width).uniform_(-0.1, 0.1))  # (V, D)
        self.decoder_bias = nn.Parameter(torch.zeros(words))  # (V,)
        self.adaptive = AdaptiveSoftmax(words, width, cutoffs, div) if cutoffs else None
        self.word_p = self.input_p = 0.0

    def forward(self, ids: Tensor) -> Tensor:  # (N, T) -> (N, T, D)
        x = F.embedding(ids, self.weight)
        x = word_dropout(x, ids, len(self.weight), self.word_p, self.training)
        return locked_dropout(x, self.input_p, self.training)

    def packed(self, ids: Tensor, steps: Steps) -> Tensor:  # (M,) -> (M, D)
        x = word_dropout(F.embedding(ids, self.weight), ids, len(self.weight), self.word_p, self.training)
        return packed_locked_dropout(x, steps, self.input_p, self.training)


class LayerBlock(nn.Module):
    """One recurrent layer, `lstm` or `qrnn`, and the dropout of its output on the way up."""

    def __init__(self, width_in: int, width: int, cell: Cell, window: int) -> None:
        super().__init__()
        if cell == "lstm":
            self.lstm = WeightDropLSTM(width_in, width)
        else:
            self.qrnn = WeightDropQRNN(width_in, width, window)
        self.output_p = 0.0

    @property
    def cell(self) -> WeightDropLSTM | WeightDropQRNN:
        return self.qrnn if hasattr(self, "qrnn") else self.lstm

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """(N, T, I) -> the output (N, T, H), what goes up (N, T, H), the state."""
        h, state = self.cell(x, state)
        return h, locked_dropout(h, self.output_p, self.training), state

    def packed(self, x: Tensor, steps: Steps, state: State, weights: Weights) -> tuple[Tensor, Tensor, State]:
        """The same for packed rows, with the weights of the batch: (M, I) -> (M, H), (M, H), the state."""
        h, state = self.cell.packed(x, steps, state, weights)
        return h, packed_locked_dropout(h, steps, self.output_p, self.training), state


class AWDLSTM(Encoder):
    """Embedding and separate LSTMs; documents are read in chunks, streams window by window.

    `active` is the purpose in force and says both which dropouts apply and how text is read:

    - "language_model": one call a window, no cut of the gradient inside it; `carry` is the state
      before it, and the state after it is returned, for the caller to detach;
    - "task": whole documents of any length, BPT3C (section 3.3): chunks of `bptt` tokens, state
      carried and detached between them, the last `max_len` tokens of *each* document pooled and
      trained, the text before only read.

    Without dropout both give the same numbers.
    """

    def __init__(self, config: AWDLSTMConfig, words: int) -> None:
        super().__init__()
        if config.directions == "both":
            raise UsageError("encoder.directions is both, which only a model that learns a task can be")
        self.config = config
        widths = config.widths()
        self.embedding = EmbeddingBlock(words, config.embedding, config.cutoffs, config.cutoff_div)
        self.rnns = nn.ModuleList(
            LayerBlock(i, o, config.cell, window=1 if layer else 2)
            for layer, (i, o) in enumerate(pairwise(widths))
        )
        self.width = config.embedding
        self.summary_width = 3 * config.embedding
        self.active: Purpose = "task"
        self.purpose("task")

    def layer_widths(self) -> tuple[int, ...]:
        return self.config.widths()

    def fresh(self) -> AWDLSTM:
        return AWDLSTM(self.config, len(self.embedding.weight))

    def groups(self) -> list[nn.Module]:
        return [self.embedding, *self.rnns]

    def purpose(self, purpose: Purpose, drop_mult: float | None = None) -> None:
        """Dropouts and way of reading for `purpose`; `drop_mult` in place of the config's."""
        config, self.active = self.config, purpose
        if purpose == "language_model":
            mult = config.language_model_drop_mult if drop_mult is None else drop_mult
            rates = config.language_model.times(mult)
        else:
            rates = config.task.times(config.task_drop_mult if drop_mult is None else drop_mult)
        self.embedding.word_p, self.embedding.input_p = rates.embedding, rates.input
        for block in self._layers():
            block.cell.p = rates.weight
            block.output_p = rates.hidden
        self._layers()[-1].output_p = 0.0  # the output dropout belongs to the head
        self.output_p = rates.output

    @property
    def embedding_weight(self) -> Tensor:
        """(V, D), also the weight of the tied decoder: word dropout never touches it."""
        return self.embedding.weight

    @property
    def decoder_bias(self) -> Tensor:
        """(V,), of the tied decoder."""
        return self.embedding.decoder_bias

    @property
    def adaptive(self) -> AdaptiveSoftmax | None:
        """The softmax over that decoder, where it is not the plain one."""
        return self.embedding.adaptive

    def forward(self, batch: Batch, carry: Carry | None = None) -> Encoded:
        if self.active == "task":
            return self._documents(batch, carry, self.config.max_len)
        carry = carry or self._start(len(batch.ids))
        if "restart" in batch.given:
            carry = _restarted(carry, batch.given["restart"])
        if not torch.is_grad_enabled() and not bool(batch.mask.all()):
            return self._documents(batch, carry, None)
        layers, after = self._read(batch.ids, carry)
        blanked = _blank(layers, batch.mask)
        return Encoded(blanked, batch.mask, concat_pool(blanked[-1], batch.mask), after)

    def read_on(self, ids: Tensor, carry: Carry | None) -> tuple[Tensor, Carry]:
        """Rows without padding (N, T) after a state: the top layer (N, T, D) and the state after them."""
        layers, after = self._read(ids, carry or self._start(len(ids)))
        return layers[-1], after

    def vectors(self, batch: Batch) -> Tensor:
        found: Tensor = self.embedding(batch.ids)  # (N, T, D)
        return found

    def read_vectors(self, vectors: Tensor, batch: Batch) -> Encoded:
        """As "task" reads, from these vectors (N, T, D), the gradient uncut to the very beginning."""
        carry, chunks = self._start(len(vectors)), []
        parts = torch.split(vectors, UNCUT, dim=1)
        for part in parts:
            if len(parts) == 1:
                layers, carry = self._upwards(part, carry)
            else:  # what lies inside the layers is worked out again for the gradient, rather than kept
                layers, carry = checkpoint(
                    self._upwards, part, carry, use_reentrant=False, preserve_rng_state=False
                )
            chunks.append(layers)
        whole = _blank([torch.cat(h, dim=1) for h in zip(*chunks, strict=True)], batch.mask)
        place = torch.arange(vectors.shape[1], device=vectors.device)
        pooled = batch.mask & (place >= (batch.lengths - self.config.max_len)[:, None])  # (N, T)
        return Encoded(whole, batch.mask, concat_pool(whole[-1], batch.mask, pooled))

    def _layers(self) -> list[LayerBlock]:
        return [block for block in self.rnns if isinstance(block, LayerBlock)]

    def _start(self, rows: int) -> Carry:
        return tuple(block.cell.start(rows) for block in self._layers())

    def _read(self, ids: Tensor, carry: Carry) -> tuple[list[Tensor], Carry]:
        """One call: (N, T) -> L + 1 × (N, T, D_l) and the state after it."""
        return self._upwards(self.embedding(ids), carry)

    def _upwards(self, x: Tensor, carry: Carry) -> tuple[list[Tensor], Carry]:
        """The same from word vectors (N, T, D)."""
        layers, after = [x], []
        for block, state in zip(self._layers(), carry, strict=True):
            h, x, state = block(x, state)  # (N, T, D_l)
            layers.append(h)
            after.append(state)
        return layers, tuple(after)

    def _documents(self, batch: Batch, carry: Carry | None, max_len: int | None) -> Encoded:
        """Long rows in chunks; all gets a gradient but what lies before the last `max_len` tokens."""
        order = batch.lengths.argsort(descending=True, stable=True)
        reading = Reading(batch.ids[order], order)
        lengths = batch.lengths[order].cpu()  # (N,)
        kept = lengths if max_len is None else lengths.clamp(max=max_len)
        weights = [block.cell.weights() for block in self._layers()]  # one mask a batch
        state = pick_rows(carry or self._start(len(lengths)), order)
        with torch.no_grad():
            for call in reading.calls(lengths - kept, self.config.bptt):
                state = self._call(reading, call, state, weights, cut=True)
        fill = self.config.cell == "lstm" and max_len is not None
        for number, call in enumerate(reading.calls(kept, self.config.bptt, lengths - kept)):
            call = call.filled() if fill and fills_up(call.reads, weights[0][0]) else call
            state = self._call(reading, call, state, weights, cut=number % self.config.gradient_chunks == 0)
        layers, mask = reading.layers(), batch.mask
        place = torch.arange(mask.shape[1], device=mask.device)
        pooled = mask if max_len is None else mask & (place >= (batch.lengths - max_len)[:, None])  # (N, T)
        after = pick_rows(state, order.argsort()) if max_len is None or bool(mask.all()) else None
        return Encoded(layers, mask, concat_pool(layers[-1], mask, pooled), after)

    def _call(
        self, reading: Reading, call: Call, carry: Carry, weights: Sequence[Weights], cut: bool
    ) -> Carry:
        """Reads some steps of the rows that have any; the state of all rows after them."""
        steps = call.steps.to(reading.ids.device)
        ids, places = reading.find(call, steps)  # (M,) both
        x = self.embedding.packed(ids, steps)  # (M, D)
        layers, after = [x], []
        for block, own, before in zip(self._layers(), weights, carry, strict=True):
            live = [part[:, : steps.rows].detach() if cut else part[:, : steps.rows] for part in before]
            h, x, state = block.packed(x, steps, (live[0], live[1]), own)  # (M, D_l)
            layers.append(h)
            gone = [part[:, steps.rows :] for part in before]
            after.append((torch.cat((state[0], gone[0]), dim=1), torch.cat((state[1], gone[1]), dim=1)))
        reading.keep(layers, places)
        return tuple(after)


def _blank(layers: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, ...]:
    """Zeros at padding."""
    if bool(mask.all()):
        return tuple(layers)
    return tuple(h * mask.unsqueeze(-1) for h in layers)


def _restarted(carry: Carry, where: Tensor) -> Carry:
    """Zeros in some rows (N,), as before any text."""
    keep = ~where[None, :, None]  # (1, N, 1)
    return tuple((h * keep, c * keep) for h, c in carry)
