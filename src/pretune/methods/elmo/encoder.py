"""ELMo: the biLM of Peters et al. (2018) on one page."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.data.spelling import BEGIN_SENTENCE, END_SENTENCE, mark
from pretune.encoder import Encoded, Encoder, Purpose
from pretune.errors import UsageError
from pretune.layers.char_cnn import CharCNN
from pretune.layers.packing import Precision
from pretune.layers.pooling import max_pool, mean_pool
from pretune.layers.threads import alone, each
from pretune.methods.elmo.config import ELMoConfig
from pretune.methods.elmo.layer import Layer, State
from pretune.methods.elmo.word_cache import WordCache
from pretune.tensors.batch import Batch
from pretune.tensors.packing import Packing

Carry = tuple[tuple[State, ...], ...]  # of each layer, of each direction: forward, backward


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

    def fresh(self) -> ELMo:
        known = self.words.weight if self.words is not None else ()
        return ELMo(self.config, len(known if self.softmax is None else self.softmax.bias))

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
            if self.active == "language_model":
                return self._lines(batch, carry)
            return self._rows(batch, *self._table(batch, marked=True), carry)

    def vectors(self, batch: Batch) -> Tensor:
        ids, table = self._table(batch, marked=False)
        return F.embedding(ids, table)  # (N, T, D)

    def read_vectors(self, vectors: Tensor, batch: Batch) -> Encoded:
        rows, T, D = vectors.shape
        places = torch.arange(rows * T, device=vectors.device).view(rows, T)
        ids = _between(replace(batch, ids=places), rows * T, rows * T + 1)  # (N, T+2)
        with torch.autocast(vectors.device.type, enabled=False):
            return self._rows(batch, ids, torch.cat((vectors.reshape(-1, D), self._marks())), None)

    def _marks(self) -> Tensor:
        """The vectors of <S> and </S>: (2, D)."""
        if self.words is not None:
            return self.words.weight[:2]
        return self.word_vectors(torch.stack((self.get_buffer("start"), self.get_buffer("end"))))

    def _rows(self, batch: Batch, ids: Tensor, table: Tensor, carry: Carry | None) -> Encoded:
        """Whole rows, both ways, between marks that are added here: ids (N, T+2) into a table (U, D)."""
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

        level = self.ways == 2 and packings[0].counts == packings[1].counts
        if level and self.precision == "float32" and in_lockstep(table):
            return self._stacks(table, packed, packings, states)
        if alone([table]):
            return each(read, self.ways)
        return [read(way) for way in range(self.ways)]

    def _stacks(
        self, table: Tensor, packed: list[Tensor], packings: list[Packing], states: Carry
    ) -> list[tuple[list[Tensor], list[State]]]:
        """`_stack` of both directions at once: half as many launches a step."""
        orders = [packing.order for packing in packings]
        backs = [order.argsort() for order in orders]
        read: list[tuple[list[Tensor], list[State]]] = [([], []) for _ in packings]
        xs, at = [table] * self.ways, list[Tensor | None](packed)
        for depth, layer in enumerate(self.rnns):
            assert isinstance(layer, Layer)
            if self.training and self.config.dropout:
                xs, at = [self._dropped(x, i) for x, i in zip(xs, at, strict=True)], [None] * self.ways
            before = [(h[order], c[order]) for (h, c), order in zip(states[depth], orders, strict=True)]
            for way, (y, (h, c)) in enumerate(layer.together(xs, at, packings[0].counts, before)):
                outputs, after = read[way]
                outputs.append(y + xs[way] if self.config.skip_connections and depth else y)
                after.append((h[backs[way]], c[backs[way]]))
            xs, at = [outputs[-1] for outputs, _ in read], [None] * self.ways
        return read

    def _dropped(self, x: Tensor, index: Tensor | None) -> Tensor:
        """(U, D), of which `index` (M,) are the tokens -> (M, D), entries dropped."""
        return F.dropout(x if index is None else x.index_select(0, index), self.config.dropout)

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
                x, at = self._dropped(x, at), None
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


def in_lockstep(table: Tensor) -> bool:
    """Whether both directions are read in one product a step: where launching it costs more than doing it."""
    return table.device.type != "cpu"


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
