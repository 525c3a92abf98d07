"""ELMo: the biLM of Peters et al. (2018) on one page."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.encoder import Encoded, Encoder, Purpose
from pretune.errors import UsageError, choose
from pretune.layers.char_cnn import Activation, CharCNN
from pretune.layers.linear import linear
from pretune.layers.packing import Precision
from pretune.layers.pooling import max_pool, mean_pool
from pretune.layers.recurrence import Clips, recur
from pretune.layers.threads import alone, each, scratch
from pretune.methods.elmo.tokens import BEGIN_SENTENCE, END_SENTENCE, Inputs, mark
from pretune.methods.elmo.word_cache import WordCache
from pretune.tensors.batch import Batch
from pretune.tensors.packing import Packing

Directions = Literal["both", "forward"]
State = tuple[Tensor, Tensor]  # h (N, D), c (N, H)
Carry = tuple[tuple[State, ...], ...]  # of each layer, of each direction: forward, backward


@dataclass(frozen=True)
class ELMoConfig:
    """Defaults are the original model, `2x4096_512_2048cnn_2xhighway`."""

    dim: int = 4096
    """H, cells of an LSTM."""
    projection_dim: int = 512
    """D, what they are projected to; equal to `dim` for no projection."""
    layers: int = 2
    """LSTMs upon each other, in each direction."""
    cell_clip: float | None = 3.0
    """Bound of the cell state."""
    proj_clip: float | None = 3.0
    """Bound of the projected output, which is also the recurrent state."""
    skip_connections: bool = True
    """From the second layer on, a layer's input is added to its output."""
    filters: tuple[tuple[int, int], ...] = (
        (1, 32),
        (2, 32),
        (3, 64),
        (4, 128),
        (5, 256),
        (6, 512),
        (7, 1024),
    )
    """Convolutions over characters: (characters wide, how many)."""
    activation: Activation = "relu"
    """After the convolutions: relu or tanh. Highways have relu always."""
    highways: int = 2
    """Highway layers between convolutions and projection."""
    char_dim: int = 16
    """Width of a character's vector."""
    max_characters: int = 50
    """Of a word, its two marks included."""
    inputs: Inputs = "characters"
    """What a word is read as: its characters, or an id of the vocabulary."""
    directions: Directions = "both"
    """forward alone is a plain language model."""
    softmax: bool = False
    """Whether the encoder can predict words, as it must to be pretrained."""
    tied: bool = False
    """With `inputs` of words: one matrix for reading and predicting (`share_embedding_softmax`)."""
    dropout: float = 0.1
    """On the input of every LSTM while training, anew at each time step."""

    def __post_init__(self) -> None:
        for name in ("dim", "projection_dim", "layers", "char_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"encoder.{name} is {getattr(self, name)}; it must be at least 1")
        for name, possible in (("inputs", get_args(Inputs)), ("directions", get_args(Directions))):
            if getattr(self, name) not in possible:
                raise choose(f"encoder.{name}", getattr(self, name), possible)
        if not 0 <= self.dropout < 1:
            raise UsageError(f"encoder.dropout is {self.dropout}; it must be from 0 to below 1")
        if self.tied and self.inputs == "characters":
            raise UsageError("encoder.tied needs encoder.inputs=words: characters have no matrix of words")
        widest = max((size for size, _ in self.filters), default=0)
        if self.inputs == "characters" and not 0 < widest <= self.max_characters:
            raise UsageError(
                f"encoder.filters are up to {widest} characters wide; 1 to {self.max_characters} fit"
            )

    @property
    def ways(self) -> int:
        return 2 if self.directions == "both" else 1


class LSTM(nn.Module):
    """The weights of one direction of a layer; gates in the order i, f, g, o.

    The bias lacks the 1 of the forget gate, which is added when it is used, as in TensorFlow's cell.
    """

    def __init__(self, width_in: int, config: ELMoConfig) -> None:
        super().__init__()
        H, D = config.dim, config.projection_dim
        self.weight_ih = nn.Parameter(torch.empty(4 * H, width_in))
        self.weight_hh = nn.Parameter(torch.empty(4 * H, D))
        self.bias = nn.Parameter(torch.zeros(4 * H))
        self.weight_proj = nn.Parameter(torch.empty(D, H)) if D != H else None
        self.clips = Clips(config.cell_clip, config.proj_clip)
        limit = (6 / (width_in + D + 4 * H)) ** 0.5  # Glorot, of input and recurrent matrix as one
        nn.init.uniform_(self.weight_ih, -limit, limit)
        nn.init.uniform_(self.weight_hh, -limit, limit)
        if self.weight_proj is not None:
            nn.init.xavier_uniform_(self.weight_proj)

    def forward(
        self,
        x: Tensor,
        index: Tensor | None,
        counts: Sequence[int],
        state: State,
        precision: Precision = "float32",
    ) -> tuple[Tensor, State]:
        """x (U, I), of which `index` (M,) are the packed tokens -> y (M, D), the state: see `recur`."""
        bias = self.bias.clone()
        bias[len(bias) // 4 : len(bias) // 2] += 1.0  # the forget gate's
        out = scratch(len(x), len(bias)) if alone([x]) and x.dtype == torch.float32 else None
        products = linear(x, self.weight_ih, bias, precision, out)  # (U, 4H)
        weights = self.weight_hh, self.weight_proj
        y, h, c = recur(products, index, counts, state, *weights, self.clips, precision)
        return y, (h, c)


class Layer(nn.Module):
    """Both directions of a layer: they never see one another."""

    def __init__(self, config: ELMoConfig) -> None:
        super().__init__()
        self.forwards = LSTM(config.projection_dim, config)
        self.backwards = LSTM(config.projection_dim, config) if config.ways == 2 else None

    def direction(self, way: int) -> LSTM:
        found = self.backwards if way else self.forwards
        assert found is not None
        return found


class Softmax(nn.Module):
    """What predicts words; without a matrix of its own where it is tied to the words read."""

    def __init__(self, words: int, config: ELMoConfig) -> None:
        super().__init__()
        self.weight = None if config.tied else nn.Parameter(torch.empty(words, config.projection_dim))
        self.bias = nn.Parameter(torch.zeros(words))
        if self.weight is not None:
            nn.init.normal_(self.weight, 0, config.projection_dim**-0.5)


class ELMo(Encoder):
    """Characters -> a vector a word -> two stacks of LSTMs, one from the left and one from the right.

    `Encoded.layers` are n_layers + 1 tensors (N, T, 2D): the word's own vector twice, then of each LSTM the
    forward and the backward output side by side. `<S>` and `</S>` are put around each row and taken off
    again. `carry` is the state before the batch, row by row, and is returned as the state after it; without
    one every row begins at zero, so that no text depends on another.

    `precision` of the LSTMs' weights may be lowered to read faster: float16 or int8, which cannot be trained.

    For the purpose "language_model" a row is read in the one direction that its segments say, as it stands:
    layers are then (N, T, D).
    """

    def __init__(self, config: ELMoConfig, words: int) -> None:
        super().__init__()
        self.config, self.ways = config, config.ways
        D = config.projection_dim
        self.characters = self.words = None
        if config.inputs == "characters":
            self.characters = CharCNN(
                config.filters,
                D,
                262,
                config.char_dim,
                config.activation,
                config.highways,
                config.max_characters,
            )
            for name, sign in (("start", BEGIN_SENTENCE), ("end", END_SENTENCE)):
                row = torch.from_numpy(mark(sign, config.max_characters)).long()
                self.register_buffer(name, row, persistent=False)
        else:
            self.words = nn.Embedding(words, D)
            nn.init.uniform_(self.words.weight, -1, 1)
        self.rnns = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.softmax = Softmax(words, config) if config.softmax else None
        self.width = self.ways * D
        self.summary_width = 2 * self.width
        self.active: Purpose = "task"
        self.precision: Precision = "float32"
        self.cache = WordCache()

    def layer_widths(self) -> tuple[int, ...]:
        return (self.width,) * (self.config.layers + 1)

    def groups(self) -> list[nn.Module]:
        bottom = self.characters if self.characters is not None else self.words
        assert bottom is not None
        return [bottom, *self.rnns, *([self.softmax] if self.softmax is not None else [])]

    def for_task(self) -> ELMo:
        """Without the softmax, which may be larger than all the rest, and without kept words.

        What is kept depends, in its last digits, on what was read before: a resumed training would not end
        with the same bits.
        """
        softmax, self.softmax = self.softmax, None
        try:
            copy = deepcopy(self)
        finally:
            self.softmax = softmax
        copy.config = replace(self.config, softmax=False, tied=False)
        copy.cache = WordCache(0)
        return copy

    def purpose(self, purpose: Purpose) -> None:
        self.active = purpose

    @property
    def softmax_weight(self) -> Tensor | None:  # (V, D)
        if self.softmax is None:
            return None
        return self.words.weight if self.words is not None and self.config.tied else self.softmax.weight

    @property
    def softmax_bias(self) -> Tensor | None:  # (V,)
        return None if self.softmax is None else self.softmax.bias

    def forward(self, batch: Batch, carry: Carry | None = None) -> Encoded:
        with torch.autocast(batch.mask.device.type, enabled=False):  # recurrences need all their digits
            return self._lines(batch, carry) if self.active == "language_model" else self._rows(batch, carry)

    def _rows(self, batch: Batch, carry: Carry | None) -> Encoded:
        """Whole rows, both ways, between marks that are added here."""
        ids, table = self._table(batch, marked=True)  # (N, T+2), (U, D)
        lengths, width = batch.lengths + 2, ids.shape[1]
        states = self._states(carry, len(ids), table)
        packings = [Packing.of(lengths, width, backward=way == 1) for way in range(self.ways)]
        packed = [packing.pack(ids) for packing in packings]
        read = self._each_way(table, packed, packings, states)
        words = [packing.inside(lengths) for packing in packings]
        rows, T = batch.mask.shape
        tokens = [table.index_select(0, index) for index in packed]  # (M, D) each
        outputs = [tokens, *zip(*(own for own, _ in read), strict=True)]  # of each layer, of each way
        layers = [side_by_side(ys, words, rows * T).view(rows, T, -1) for ys in outputs]  # (N, T, 2D)
        mean = sum(layers[1:], layers[0]) / len(layers)  # (N, T, 2D) the untrained scalar mix
        average = mean.sum(1) / batch.lengths.clamp(min=1)[:, None]  # (N, 2D); padding is zero
        summary = torch.cat((average, max_pool(mean, batch.mask)), dim=-1)  # (N, 4D)
        return Encoded(tuple(layers), batch.mask, summary, self._after(carry, [after for _, after in read]))

    def _lines(self, batch: Batch, carry: Carry | None) -> Encoded:
        """Rows as they stand, each in its own direction: windows of streams, or texts behind a mark."""
        ids, table = self._table(batch, marked=False)  # (N, T), (U, D)
        of_way = [(batch.segments[:, 0] == way).nonzero()[:, 0] for way in range(self.ways)]
        packings = [Packing.of(batch.lengths[rows], ids.shape[1]) for rows in of_way]
        packed = [packing.pack(ids[rows]) for packing, rows in zip(packings, of_way, strict=True)]
        states = self._states(carry, max(map(len, of_way)), table)
        if "restart" in batch.given:
            states = _restarted(states, [batch.given["restart"][rows] for rows in of_way])
        read = self._each_way(table, packed, packings, states)
        places = torch.cat(of_way).argsort()
        layers = [F.embedding(ids, table) * batch.mask.unsqueeze(-1)]  # (N, T, D)
        for outputs in zip(*(outputs for outputs, _ in read), strict=True):
            sides = torch.cat([p.unpack(y) for p, y in zip(packings, outputs, strict=True)])
            layers.append(sides.index_select(0, places))  # (N, T, D)
        top = layers[-1]
        summary = torch.cat((mean_pool(top, batch.mask), max_pool(top, batch.mask)), dim=-1)  # (N, 2D)
        return Encoded(tuple(layers), batch.mask, summary, self._after(carry, [after for _, after in read]))

    def _table(self, batch: Batch, marked: bool) -> tuple[Tensor, Tensor]:
        """Which vector each token has, (N, T) or with marks (N, T+2), and the vectors (U, D)."""
        if self.characters is None:
            ids = _between(batch, 0, 1) if marked else batch.ids  # <S> and </S> begin every vocabulary
            if batch.words is not None:
                raise UsageError("this encoder reads ids, its codec spells words; set codec.inputs=words")
            assert self.words is not None
            different, places = torch.unique(ids, return_inverse=True)
            return places, self.words(different)
        if batch.words is None:
            raise UsageError(
                "this encoder reads characters, its codec gives ids; set codec.inputs=characters"
            )
        if not marked:
            return batch.ids, self.word_vectors(batch.words)
        W = len(batch.words)
        signs = torch.stack((self.get_buffer("start"), self.get_buffer("end")))  # (2, C)
        return _between(batch, W, W + 1), self.word_vectors(torch.cat((batch.words, signs)))

    def word_vectors(self, words: Tensor) -> Tensor:
        """The layer below the LSTMs, context left aside: characters (W, C) -> (W, D)."""
        assert self.characters is not None
        weights = list(self.characters.parameters())
        learning = torch.is_grad_enabled() and any(x.requires_grad for x in weights)
        if learning or words.device.type != "cpu":
            self.cache.clear()
            found: Tensor = self.characters(words)
            return found
        with torch.no_grad():
            return self.cache.vectors(words, weights, self.characters)

    def _each_way(
        self, table: Tensor, packed: list[Tensor], packings: list[Packing], states: Carry
    ) -> list[tuple[list[Tensor], list[State]]]:
        """Of each direction: the packed output of each layer, and the states after it."""

        def read(way: int) -> tuple[list[Tensor], list[State]]:
            return self._stack(way, table, packed[way], packings[way], [state[way] for state in states])

        if alone([table]):
            return each(read, self.ways)
        return [read(way) for way in range(self.ways)]

    def _stack(
        self, way: int, table: Tensor, index: Tensor, packing: Packing, states: list[State]
    ) -> tuple[list[Tensor], list[State]]:
        """One direction: table (U, D), index (M,) -> n_layers × (M, D), and the states in rows' order."""
        outputs, after = [], []
        order, back = packing.order, packing.order.argsort()
        x = table
        at: Tensor | None = index
        for depth, layer in enumerate(self.rnns):
            assert isinstance(layer, Layer)
            if self.training and self.config.dropout:
                x = F.dropout(x if at is None else x.index_select(0, at), self.config.dropout)  # (M, D)
                at = None
            h, c = states[depth]
            y, (h, c) = layer.direction(way)(x, at, packing.counts, (h[order], c[order]), self.precision)
            if self.config.skip_connections and depth:
                y = y + x
            outputs.append(y)
            after.append((h[back], c[back]))
            x, at = y, None
        return outputs, after

    def _states(self, carry: Carry | None, rows: int, like: Tensor) -> Carry:
        """`carry` for so many rows: rows it does not know begin at zero."""
        H, D = self.config.dim, self.config.projection_dim
        if carry is None:
            zeros = like.new_zeros(rows, D), like.new_zeros(rows, H)
            return ((zeros,) * self.ways,) * self.config.layers
        return tuple(tuple((_rows(h, rows), _rows(c, rows)) for h, c in layer) for layer in carry)

    def _after(self, before: Carry | None, read: list[list[State]]) -> Carry:
        """By layer and direction; rows that the batch did not have keep their state, as in the release."""
        after: Carry = tuple(zip(*read, strict=True))
        if before is None or len(before[0][0][0]) <= len(after[0][0][0]):
            return after
        return tuple(
            tuple(
                (torch.cat((h, old_h[len(h) :])), torch.cat((c, old_c[len(c) :])))
                for (old_h, old_c), (h, c) in zip(old, new, strict=True)
            )
            for old, new in zip(before, after, strict=True)
        )


def side_by_side(ys: Sequence[Tensor], words: Sequence[tuple[Tensor, Tensor]], places: int) -> Tensor:
    """Packed outputs of each direction, (M, D), where their words stand: (places, 2D), zero elsewhere."""
    D = ys[0].shape[1]
    if torch.is_grad_enabled():
        zeros = ys[0].new_zeros(places, D)
        sides = [
            zeros.index_copy(0, to, y.index_select(0, of)) for y, (of, to) in zip(ys, words, strict=True)
        ]
        return torch.cat(sides, dim=-1)
    whole = ys[0].new_zeros(places, len(ys) * D)  # one block of fresh memory: touching it is what takes time
    for way, (y, (of, to)) in enumerate(zip(ys, words, strict=True)):
        whole[:, way * D : (way + 1) * D].index_copy_(0, to, y.index_select(0, of))
    return whole


def _between(batch: Batch, start: int, end: int) -> Tensor:
    """Each row's ids between two marks: (N, T) -> (N, T+2)."""
    ids = F.pad(batch.ids, (1, 1), value=start)
    return ids.scatter(1, batch.lengths[:, None] + 1, end)


def _restarted(states: Carry, where: list[Tensor]) -> Carry:
    """Zeros for the rows of each direction where it says so, (N,) each."""
    return tuple(
        tuple((h * ~zero[:, None], c * ~zero[:, None]) for (h, c), zero in zip(layer, where, strict=True))
        for layer in states
    )


def _rows(x: Tensor, rows: int) -> Tensor:
    """The first rows of a state, zeros where it has fewer."""
    return x[:rows] if len(x) >= rows else F.pad(x, (0, 0, 0, rows - len(x)))
