"""One training step of ELMo's language model, ours beside a plain torch implementation, interleaved.

    python benchmarks/elmo_train.py                          # small shape, 100,000 words, 16 streams of 20
    python benchmarks/elmo_train.py --streams 64 --pairs 5

The plain one is what a reader of the paper would write: convolutions over every token of the batch, a loop
over time steps with an eager cell, one direction after the other, sampled softmax by torch's operations, and
torch's Adagrad. Both have the same weights and draw the same words, so their losses must be equal; dropout is
off for that. Forward, backward, clipping and Adagrad, at one thread. Prints CPU seconds and the ratio of each
pair; the figure to quote is the median ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.data.corpus import Corpus, documents
from pretune.data.demo import demo
from pretune.data.vocab import Vocab
from pretune.layers.sampled_softmax import log_expected, log_uniform
from pretune.methods import METHODS
from pretune.methods.elmo import ELMo, ElmoCodec, ElmoCodecConfig, ELMoConfig
from pretune.tasks.both_ways import BothWays
from pretune.tensors.batch import Batch
from pretune.tensors.two_ways import TwoWaySource
from pretune.training.devices import detached
from pretune.training.model import Model
from pretune.training.optimizers import Adagrad

WINDOW = 20
Step = Callable[[int, Batch], float]


class PlainCell(nn.Module):
    """A projected, clipped LSTM, a step at a time."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        for name, x in ours.named_parameters():
            self.register_parameter(name, nn.Parameter(x.detach().clone()))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = state
        outputs = []
        for t in range(x.shape[1]):
            gates = F.linear(x[:, t], self.weight_ih, self.bias) + F.linear(h, self.weight_hh)
            i, f, g, o = gates.chunk(4, 1)
            c = ((f + 1).sigmoid() * c + i.sigmoid() * g.tanh()).clamp(-3, 3)
            h = F.linear(o.sigmoid() * c.tanh(), self.weight_proj).clamp(-3, 3)
            outputs.append(h)
        return torch.stack(outputs, 1), (h, c)


class Plain(nn.Module):
    """The same network, with nothing done to save work."""

    def __init__(self, ours: ELMo) -> None:
        super().__init__()
        assert ours.characters is not None and ours.softmax is not None
        cnn = ours.characters
        self.embedding = nn.Embedding.from_pretrained(cnn.embedding.weight.detach().clone(), freeze=False)
        self.convolutions = nn.ModuleList()
        for theirs in cnn.convolutions:
            own = nn.Conv1d(theirs.in_channels, theirs.out_channels, theirs.kernel_size)
            own.load_state_dict(theirs.state_dict())
            self.convolutions.append(own)
        self.highways = nn.ModuleList(
            nn.ModuleDict({name: _copied(getattr(h, name)) for name in ("transform", "carry")})
            for h in cnn.highways
        )
        self.projection = _copied(cnn.projection)
        self.cells = nn.ModuleList(
            nn.ModuleList(PlainCell(side) for side in (layer.forwards, layer.backwards))
            for layer in ours.rnns
        )
        self.weight = nn.Parameter(ours.softmax.weight.detach().clone())
        self.bias = nn.Parameter(ours.softmax.bias.detach().clone())

    def tokens(self, characters: Tensor) -> Tensor:  # (N, T, C) -> (N, T, D)
        x = self.embedding(characters.flatten(0, 1)).transpose(1, 2)  # (N · T, E, C)
        x = torch.cat([convolution(x).amax(2) for convolution in self.convolutions], 1).relu()
        for highway in self.highways:
            gate = highway["carry"](x).sigmoid()
            x = gate * highway["transform"](x).relu() + (1 - gate) * x
        return self.projection(x).view(*characters.shape[:2], -1)

    def forward(self, batch: Batch, carry: list, candidates: int) -> tuple[Tensor, list]:
        half = len(batch.ids) // 2
        total, after = torch.zeros(()), []
        drawn = [log_uniform(len(self.weight), candidates) for _ in range(2)]
        for way in range(2):
            rows = slice(way * half, (way + 1) * half)
            x, states = self.tokens(batch.words[batch.ids[rows]]), []
            for depth, cells in enumerate(self.cells):
                y, state = cells[way](x, carry[way][depth])
                x = y + x if depth else y
                states.append(tuple(part.detach() for part in state))
            after.append(states)
            total = total + self.sampled(x.flatten(0, 1), batch.gold["next"][rows].flatten(), drawn[way])
        return total, after

    def sampled(self, h: Tensor, y: Tensor, drawn) -> Tensor:
        V, ids = len(self.weight), drawn.ids
        true = (h * self.weight[y]).sum(1) + self.bias[y] - log_expected(y, V, drawn.tries)
        others = h @ self.weight[ids].t() + self.bias[ids] - log_expected(ids, V, drawn.tries)
        others = others.masked_fill(ids == y[:, None], float("-inf"))
        logits = torch.cat((true[:, None], others), 1)
        return F.cross_entropy(logits, torch.zeros(len(y), dtype=torch.long), reduction="sum")


def _copied(linear: nn.Linear) -> nn.Linear:
    own = nn.Linear(linear.in_features, linear.out_features)
    own.load_state_dict(linear.state_dict())
    return own


def ours(encoder: ELMo, candidates: int) -> Step:
    model = Model(encoder, BothWays(candidates, dropout=0.0).head(encoder)).train()
    optimizer = Adagrad(1 / WINDOW**2).build([{"params": list(model.parameters()), "lr": 0.2}])
    held = {"carry": None}

    def step(seed: int, batch: Batch) -> float:
        torch.manual_seed(seed)
        output = model(batch, held["carry"])
        loss = output.loss / model.head.targets(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        held["carry"] = detached(output.carry)
        return float(loss.detach())

    return step


def plain(encoder: ELMo, candidates: int) -> Step:
    model, config = Plain(encoder), encoder.config
    optimizer = torch.optim.Adagrad(model.parameters(), 0.2, initial_accumulator_value=1.0, eps=0.0)
    held: dict[str, list] = {}

    def step(seed: int, batch: Batch) -> float:
        torch.manual_seed(seed)
        half = len(batch.ids) // 2
        zeros = torch.zeros(half, config.projection_dim), torch.zeros(half, config.dim)
        carry = held.get("carry") or [[zeros] * config.layers] * 2
        total, held["carry"] = model(batch, carry, candidates)
        loss = total / batch.gold["next"].numel()
        (loss * WINDOW).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def source(codec: ElmoCodec, texts: Corpus, streams: int) -> TwoWaySource:
    """Streams of the texts, each word by its place in the vocabulary."""
    assert codec.vocab is not None and codec.spell is not None
    ids, starts = [], [0]
    for text in texts():
        for sentence in codec.sentences(text):
            ids += [codec.id_of(word) for word in codec.words(sentence)]
            starts.append(len(ids))
    words, spell = codec.vocab.words, codec.spell
    return TwoWaySource(
        np.asarray(ids),
        np.asarray(starts),
        len(words),
        (0, 1, 2),
        lambda some: spell([words[i] for i in some]),
        streams=streams,
        window=WINDOW,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="small", choices=sorted(METHODS["elmo"].sizes))
    parser.add_argument("--words", type=int, default=100_000, help="of the vocabulary")
    parser.add_argument("--candidates", type=int, default=8192)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--text", type=Path, help="a text file; without it the docstrings of the demo")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    texts = documents([options.text]) if options.text else Corpus.of(demo().unlabelled)
    codec = ElmoCodec.learn(texts, ElmoCodecConfig(min_count=1))
    assert codec.vocab is not None
    known = codec.vocab.words[: options.words]
    fill = [f"word{number}" for number in range(options.words - len(known))]
    codec = ElmoCodec(codec.config, Vocab([*known, *fill]))
    config: ELMoConfig = METHODS["elmo"].sizes[options.size]
    encoder = ELMo(ELMoConfig(**{**vars(config), "dropout": 0.0}), options.words)
    encoder.purpose("language_model")
    streams = source(codec, texts, options.streams)
    steps = {"plain": plain(encoder, options.candidates), "pretune": ours(encoder, options.candidates)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for pair in range(options.pairs + 1):  # the first warms up
        batch = streams.batch(0, pair % streams.steps(0))
        for name in sorted(steps, reverse=pair % 2 == 1):
            began = time.process_time()
            losses[name].append(steps[name](pair, batch))
            seconds[name].append(time.process_time() - began)
    apart = max(abs(a - b) for a, b in zip(losses["plain"], losses["pretune"], strict=True))
    tokens = options.streams * WINDOW
    for name, spent in seconds.items():
        usual = median(spent[1:])
        print(f"{name:8} {usual:.3f} CPU s a step, {tokens / usual:,.0f} tokens/s each way")
    print(
        f"losses differ by at most {apart:.1e} in {options.pairs + 1} steps; last {losses['plain'][-1]:.4f}"
    )
    ratios = [a / b for a, b in zip(seconds["plain"][1:], seconds["pretune"][1:], strict=True)]
    print(f"plain / pretune: {median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
