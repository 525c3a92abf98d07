"""The quasi-recurrent layer against its equations, step by step in float64, and as AWD-LSTM's cell."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pretune.layers.qrnn import FEW, WeightDropQRNN, scan
from pretune.layers.steps import Steps
from pretune.methods.ulmfit.encoder import AWDLSTM, AWDLSTMConfig, Dropouts
from pretune.runs.folders import read_config
from pretune.runs.trained import join, load_model
from pretune.tasks.classification import Classification
from pretune.tasks.next_token import NextToken, stream_scores
from pretune.tensors.batch import Batch
from pretune.tensors.streams import StreamSource
from pretune.training.loop import Interrupted, fit
from pretune.training.model import Model
from pretune.training.sources import SampleSource
from tiny import labelled, recipe, start
from tiny_training import everything, quietly, weights_of

SMALL = AWDLSTMConfig(12, 20, 3, cell="qrnn", bptt=10, max_len=40)


def by_the_equations(
    layer: WeightDropQRNN, x: Tensor, c: Tensor, last: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """h (N, T, H), c (N, H) and the last input (N, I), a time step at a time."""
    outputs = []
    for t in range(x.shape[1]):
        given = torch.cat((x[:, t], last), dim=1) if layer.window == 2 else x[:, t]
        z, f, o = (given @ layer.weight.T + layer.bias).chunk(3, dim=1)
        c = f.sigmoid() * z.tanh() + (1 - f.sigmoid()) * c
        outputs.append(o.sigmoid() * c)
        last = x[:, t]
    return torch.stack(outputs, dim=1), c, last


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (2, 7), (3, 31), (3, 32), (1, 70), (2, 101), (256, 40)])
def test_it_is_its_equations_and_so_are_its_gradients_and_its_state(
    window: int, rows: int, length: int
) -> None:
    torch.manual_seed(0)
    exact = WeightDropQRNN(6, 9, window).double()
    single = WeightDropQRNN(6, 9, window)
    single.load_state_dict(exact.state_dict())
    assert FEW < 256 * 9  # both ways through time are taken
    x, c = torch.randn(rows, length, 6).double(), torch.randn(rows, 9).double()
    last = torch.randn(rows, 6 * (window - 1)).double()
    wanted = torch.randn(rows, length, 9).double()
    found = []
    for layer, dtype in ((exact, torch.float64), (single, torch.float32)):
        given = [part.detach().to(dtype).clone().requires_grad_() for part in (x, c, last)]
        if dtype == torch.float64:
            h, end, seen = by_the_equations(layer, *given)
        else:
            h, (ends, seens) = layer(given[0], (given[1][None], given[2][None]))
            end, seen = ends[0], seens[0]
        (
            (h * wanted.to(dtype)).sum() / rows + end.square().mean() + (seen.sum() if window == 2 else 0)
        ).backward()
        grads = [part.grad for part in (*given, *layer.parameters()) if part.numel()]
        found.append([h, end, *([seen] if window == 2 else []), *grads])
    for ours, expected in zip(found[1], found[0], strict=True):
        assert ours is not None and expected is not None
        torch.testing.assert_close(ours.double(), expected, atol=3e-6, rtol=2e-6)


@pytest.mark.parametrize("window", [1, 2])
def test_packed_rows_are_what_each_row_is_alone(window: int) -> None:
    torch.manual_seed(0)
    layer = WeightDropQRNN(5, 8, window)
    lengths = [40, 33, 33, 12, 1]
    rows = [torch.randn(1, length, 5, requires_grad=True) for length in lengths]
    state = torch.randn(1, 5, 8), torch.randn(1, 5, 5 * (window - 1))
    steps = Steps.of(torch.arange(40)[:, None] < torch.tensor(lengths))
    x = nn.utils.rnn.pad_sequence([row[0] for row in rows])[steps.step, steps.row]  # (M, I)
    y, after = layer.packed(x, steps, state, layer.weights())
    y.square().sum().backward()
    grads = [row.grad for row in rows]
    weight = layer.weight.grad
    layer.weight.grad = None
    for n, row in enumerate(rows):
        row.grad = None
        own = tuple(part[:, n : n + 1] for part in state)
        expected, end = layer(row, own)
        torch.testing.assert_close(y[steps.row == n], expected[0], atol=1e-6, rtol=0)
        for ours, alone in zip(after, end, strict=True):
            torch.testing.assert_close(ours[:, n : n + 1], alone, atol=1e-6, rtol=0)
        expected.square().sum().backward()
        torch.testing.assert_close(grads[n], row.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weight, layer.weight.grad, atol=1e-5, rtol=1e-5)


def test_nothing_is_lost_however_little_is_kept_for_however_long() -> None:
    for kept, rows in product((0.0, 1e-30, 1.0), (1, FEW)):
        keep = torch.full((300, rows, 1), kept)
        add = torch.ones(300, rows, 1)
        cells = scan(keep, add, torch.zeros(rows, 1))
        expected = torch.arange(1.0, 301) if kept == 1 else torch.ones(300)
        assert torch.equal(cells[:, 0, 0], expected)


def test_weight_drop_takes_entries_of_the_whole_weight() -> None:
    torch.manual_seed(0)
    layer = WeightDropQRNN(6, 8, 2).train()
    layer.p = 0.5
    x, state = torch.randn(3, 7, 6), layer.start(3)
    assert not torch.allclose(layer(x, state)[0], layer(x, state)[0], atol=1e-4)
    layer(x, state)[0].sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad == 0).float().mean() == pytest.approx(0.5, abs=0.1)
    layer.eval()
    assert torch.equal(layer(x, state)[0], layer(x, state)[0])
    assert torch.equal(layer.weights()[0], layer.weight)


# As the cell of AWD-LSTM ---------------------------------------------------------------------------


def encoder(**changes: int) -> AWDLSTM:
    torch.manual_seed(0)
    made = AWDLSTM(AWDLSTMConfig(**{**vars(SMALL), **changes}), 50)
    with torch.no_grad():
        made.embedding.weight.mul_(10)
    return made.eval()


def batch_of(rows: list[Tensor]) -> Batch:
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return Batch(ids, mask, torch.zeros_like(ids), torch.arange(len(rows)))


def texts(*lengths: int) -> list[Tensor]:
    chance = torch.Generator().manual_seed(1)
    return [torch.randint(2, 50, (length,), generator=chance) for length in lengths]


def test_multifits_shape_has_windows_of_two_tokens_only_below() -> None:
    with torch.device("meta"):
        made = AWDLSTM(AWDLSTMConfig(400, 1550, 4, cell="qrnn"), 15_000)
    shapes = [tuple(block.qrnn.weight.shape) for block in made.rnns]
    assert shapes == [(4650, 800), (4650, 1550), (4650, 1550), (1200, 1550)]


def test_a_text_does_not_feel_its_neighbours_nor_where_it_is_cut() -> None:
    made, lengths = encoder(), [1, 9, 10, 11, 40, 41, 59, 77, 100]
    rows = texts(*lengths)
    together = made(batch_of(rows))
    whole = encoder(bptt=1000)(batch_of(rows))
    for n, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        alone = made(batch_of([row]))
        torch.testing.assert_close(together.summary[n], alone.summary[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(whole.summary[n], alone.summary[0], atol=1e-5, rtol=0)
        for layer, expected in zip(together.layers, alone.layers, strict=True):
            torch.testing.assert_close(layer[n, :length], expected[0], atol=1e-5, rtol=0)


def test_windows_of_a_stream_carry_cells_and_the_input_before() -> None:
    made = encoder()
    made.purpose("language_model")
    rows = texts(33, 33)
    whole = made(batch_of(rows))
    carry, parts = None, []
    for window in torch.stack(rows).split(7, dim=1):
        found = made(batch_of(list(window)), carry)
        carry = found.carry
        parts.append(found.layers[-1])
    torch.testing.assert_close(torch.cat(parts, 1), whole.layers[-1], atol=1e-6, rtol=0)


def test_gradient_goes_back_to_the_chunk_and_not_by_the_input_before_it() -> None:
    made = AWDLSTM(SMALL, 200).eval()
    found = made(batch_of([torch.arange(2, 32)]))
    found.layers[-1][0, 20].sum().backward()  # the first token of the third chunk
    assert made.embedding.weight.grad is not None
    assert (made.embedding.weight.grad.abs().sum(1) > 0).nonzero()[:, 0].tolist() == [22]


def test_dropouts_reach_it_and_training_is_finite() -> None:
    made = AWDLSTM(AWDLSTMConfig(12, 20, 2, cell="qrnn", bptt=10, task=Dropouts(0.1, 0.1, 0.4, 0.1, 0.1)), 50)
    assert [block.cell.p for block in made.rnns] == [0.4, 0.4]
    made.train()(batch_of(texts(35, 8))).summary.square().sum().backward()
    for weight in made.parameters():
        assert weight.grad is None or weight.grad.isfinite().all()


@dataclass
class Pressed(StreamSource):
    """Ctrl-C while the fourth batch is being made."""

    pressed: bool = False

    def batch(self, epoch: int, step: int) -> Batch:
        if step == 3 and self.pressed:
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(epoch, step)


def language_model(folder: Path | None, pressed: bool = False, resume: bool = False) -> dict[str, Tensor]:
    """Trained on text where each token tells the next."""
    torch.manual_seed(0)
    made = AWDLSTM(AWDLSTMConfig(8, 12, 2, cell="qrnn"), 20)
    made.purpose("language_model", 0.5)
    model = Model(made, NextToken(0.1).head(made), alpha=2.0, beta=1.0)
    ids = np.cumsum(np.tile([3, 1, 2, 1], 200)) % 20
    settings: Any = {"streams": 4, "window": 10, "seed": 1}
    source = Pressed(ids, np.array([0, len(ids)]), **settings, pressed=pressed)
    options: dict[str, Any] = {"folder": folder, "resume": resume} if folder else {}
    fit(model, everything(model, 14, 0.05), source, quietly(**options))
    whole = StreamSource(ids, np.array([0, len(ids)]), **settings, whole=True)
    model.eval()
    assert stream_scores(model, model.head, whole)["perplexity"] < 4
    return weights_of(model)


def test_a_language_model_learns_and_a_stopped_one_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    expected = language_model(None)
    with pytest.raises(Interrupted):
        language_model(tmp_path, pressed=True)
    resumed = language_model(tmp_path, resume=True)
    assert all(torch.equal(x, resumed[name]) for name, x in expected.items())


def test_a_classifier_learns_is_saved_and_answers_alike(tmp_path: Path) -> None:
    samples = labelled(40)
    made = start("ulmfit", cell="qrnn", embedding=16, hidden=24)
    trained = join(made, Classification.of(samples, head_kind="two_layer"), recipe("full"), 0)
    source = SampleSource(trained.task, made.codec, samples, 8, 0)
    fit(trained.model, everything(trained.model, 12, 0.01), source, quietly())
    answers = trained.answers(samples)
    assert sum(answer.label == sample.gold for answer, sample in zip(answers, samples, strict=True)) >= 36
    trained.save(tmp_path / "model", {})
    loaded = load_model(tmp_path / "model", read_config(tmp_path / "model"))
    assert [answer.scores for answer in loaded.answers(samples)] == [answer.scores for answer in answers]
