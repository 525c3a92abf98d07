"""BCN and ESIM written from their equations, a token at a time in float64, and what their tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import tiny
from pretune.data.samples import Sample, sample
from pretune.runs.predictor import Predictor
from pretune.runs.trained import TrainedModel
from pretune.tensors.batch import Batch
from pretune.training.loop import Fitting

Array = NDArray[np.float64]
QUIET = Fitting(device="cpu", quiet=True)


def array(x: torch.Tensor) -> Array:
    return x.detach().double().numpy()


def linear(layer: nn.Linear, x: Array) -> Array:
    return array(layer.weight) @ x + array(layer.bias)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def one_way(x: Sequence[Array], lstm: nn.LSTM, end: str) -> list[Array]:
    """Gates i, f, g, o; c = f c + i g; h = o tanh(c)."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w, u, b, d = (array(getattr(lstm, f"{name}_l0{end}")) for name in names)
    h = c = np.zeros(lstm.hidden_size)
    found = []
    for step in x:
        i, f, g, o = np.split(w @ step + u @ h + b + d, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        found.append(h)
    return found


def bilstm(x: Sequence[Array], lstm: nn.LSTM) -> list[Array]:
    backward = one_way(x[::-1], lstm, "_reverse")[::-1]
    return [np.concatenate(pair) for pair in zip(one_way(x, lstm, ""), backward, strict=True)]


def drawn_by(scores: Sequence[float], values: Sequence[Array]) -> Array:
    """The values, each by its share of the softmax."""
    shares = np.exp(np.array(scores) - max(scores))
    return sum((s * v for s, v in zip(shares / shares.sum(), values, strict=True)), np.zeros(1))


def aligned(x: Sequence[Array], y: Sequence[Array]) -> list[Array]:
    return [drawn_by([float(a @ b) for b in y], y) for a in x]


def rows_of(
    lengths: Sequence[int], width: int, sides: Sequence[int] = (), more: int = 0
) -> tuple[torch.Tensor, Batch]:
    """Random vectors (N, T, D) in float64, zero at padding, of which there is `more`; with `sides` two rows
    are a sample."""
    torch.manual_seed(1)
    mask = torch.arange(max(lengths) + more) < torch.tensor(lengths)[:, None]  # (N, T)
    real = torch.randn(len(lengths), max(lengths), width, dtype=torch.float64)
    top = torch.zeros(len(lengths), max(lengths) + more, width, dtype=torch.float64)
    top[:, : max(lengths)] = real
    owner = torch.arange(len(lengths)) // (2 if sides else 1)
    given = {"side": torch.tensor(sides)} if sides else {}
    return top * mask[..., None], Batch(mask.long(), mask, mask.long(), owner, given)


def texts_of(top: torch.Tensor, batch: Batch) -> list[list[Array]]:
    return [list(array(x[own])) for x, own in zip(top, batch.mask, strict=True)]


def write_vectors(folder: Path) -> Path:
    """Three numbers for each word but the last."""
    file = folder / "glove.txt"
    lines = [f"{word} {i % 5}.5 -{i % 3} 0.25" for i, word in enumerate(tiny.WORDS[:-1])]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def alike(count: int, seed: int = 0) -> list[Sample]:
    """Pairs of texts that say good both, bad both, or not the same."""
    chance, found = Random(seed), []
    for i in range(count):
        words = chance.choices(["good", "bad"], k=2)
        rest = (" ".join(chance.choices(tiny.WORDS[2:7], k=chance.randint(0, 3))) for _ in words)
        texts = [f"{word} {more}".strip() for word, more in zip(words, rest, strict=True)]
        found.append(sample(*texts, key=str(i), gold="yes" if words[0] == words[1] else "no"))
    return found


def scores_of(model: TrainedModel, samples: Sequence[Sample], size: int = 64) -> list[dict[str, float]]:
    return [answer.scores for answer in model.answers(samples, size)]


def check_alike(model: TrainedModel, some: Sequence[Sample]) -> None:
    """Scores of samples alone, in batches, in another order: the same, and not all of them equal."""
    model.model.eval()
    alone = [scores_of(model, [one])[0] for one in some]
    together = scores_of(model, some[::-1], 4)[::-1]
    for found, said in zip(together, alone, strict=True):
        assert found == pytest.approx(said, abs=1e-5)
    assert len({round(x["yes"], 6) for x in alone}) > 1


def check_folder(model: TrainedModel, some: Sequence[Sample], folder: Path) -> None:
    """What is saved answers as it did."""
    model.save(folder, {})
    found = [answer.scores for answer in Predictor.load(folder, "cpu").answer(some)]
    for one, other in zip(found, scores_of(model, some), strict=True):
        assert one == pytest.approx(other, abs=1e-6)
