"""The deep alternating highway LSTM: equal to its equations, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pretune.layers.highway_lstm import HighwayLayer, HighwayLSTM, steps_of, turned


def by_the_equations(lstm: HighwayLSTM, x: Tensor) -> Tensor:
    """One row, (T, I) -> (T, H): a step at a time, as section 2 of He et al. (2017) writes it."""
    for number, layer in enumerate(lstm.layers):
        assert isinstance(layer, HighwayLayer)
        order = range(len(x)) if number % 2 == 0 else range(len(x) - 1, -1, -1)
        h = c = torch.zeros(lstm.width, dtype=x.dtype)
        out: list[Tensor] = [h] * len(x)
        *of_gates, skip = layer.weight_ih.chunk(6)
        for t in order:
            sums = [
                w @ x[t] + u @ h + b
                for w, u, b in zip(of_gates, layer.weight_hh.chunk(5), layer.bias.chunk(5), strict=True)
            ]
            i, f, o, r = (z.sigmoid() for z in sums[:4])
            c = f * c + i * sums[4].tanh()
            h = r * (o * c.tanh()) + (1 - r) * (skip @ x[t])
            out[t] = h
        x = torch.stack(out)
    return x


def rows(*lengths: int, width: int = 3) -> Tensor:
    """Rows one after another."""
    return torch.randn(sum(lengths), width, generator=torch.Generator().manual_seed(1))


def read(lstm: HighwayLSTM, x: Tensor, lengths: list[int]) -> Tensor:
    steps, places = steps_of(torch.tensor(lengths))
    return torch.empty(len(x), lstm.width).index_copy(0, places, lstm(x[places], steps))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_outputs_and_gradients_are_those_of_the_equations(layers: int) -> None:
    torch.manual_seed(0)
    lstm, lengths = HighwayLSTM(3, 4, layers, dropout=0.0), [2, 5, 1, 5]
    x = rows(*lengths)
    results = []
    for own in (True, False):
        given = x.clone().requires_grad_()
        said = (
            read(lstm, given, lengths)
            if own
            else torch.cat([by_the_equations(lstm, part) for part in torch.split(given, lengths)])
        )
        wanted = [given, *lstm.parameters()]
        results.append([said, *torch.autograd.grad((said * rows(*lengths, width=4)).sum(), wanted)])
    assert len(results[0]) == 2 + 3 * layers
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-5)


def test_a_row_does_not_feel_its_neighbours() -> None:
    lstm, x = HighwayLSTM(3, 4, 2), rows(4, 7)
    lstm.eval()
    together = read(lstm, x, [4, 7])
    torch.testing.assert_close(together[:4], read(lstm, x[:4], [4]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together[4:], read(lstm, x[4:], [7]), atol=1e-6, rtol=1e-5)


def test_every_second_layer_reads_from_the_end() -> None:
    lengths = [3, 4]
    x = rows(*lengths)
    changed = x.clone()
    changed[0] += 1  # the first token of the first row
    for layers, felt in ((1, [True, True, True]), (2, [True, True, True])):
        lstm = HighwayLSTM(3, 4, layers).eval()
        moved = (read(lstm, x, lengths) != read(lstm, changed, lengths)).any(1)
        assert moved[:3].tolist() == felt and not moved[3:].any()
    changed = x.clone()
    changed[2] += 1  # the last one of it
    for layers, felt in ((1, [False, False, True]), (2, [True, True, True])):
        lstm = HighwayLSTM(3, 4, layers).eval()
        assert (read(lstm, x, lengths) != read(lstm, changed, lengths)).any(1)[:3].tolist() == felt


def test_turning_twice_changes_nothing() -> None:
    steps, places = steps_of(torch.tensor([3, 1, 2]))
    turn = turned(steps)
    assert turn[turn].tolist() == list(range(6))
    assert places.tolist() == [0, 4, 3, 1, 5, 2]  # first words by length, then second ones
    assert places[turn].tolist() == [2, 5, 3, 1, 4, 0]


def test_a_unit_is_dropped_at_all_steps_of_a_row_or_at_none() -> None:
    torch.manual_seed(0)
    lstm, lengths = HighwayLSTM(3, 50, 1, dropout=0.5), [6, 6]
    said = read(lstm, rows(*lengths), lengths).view(2, 6, 50)
    gone = said == 0
    assert gone.any() and not gone.all()
    assert torch.equal(gone.all(1), gone.any(1))
    assert not torch.equal(gone[0], gone[1])  # each row has its own
    lstm.eval()
    assert not (read(lstm, rows(*lengths), lengths) == 0).any()


def test_gradients_pass_the_mask() -> None:
    layer = HighwayLayer(3, 4, dropout=0.5)
    steps, places = steps_of(torch.tensor([3, 2]))
    x = rows(3, 2)[places].requires_grad_()

    def said(given: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same mask at each call
        y: Tensor = layer(given, steps, steps.earlier())
        return y

    (got,) = torch.autograd.grad(said(x).square().sum(), [x])
    for at in ((0, 0), (2, 1), (4, 2)):
        shifted = [x.detach().double().float().clone() for _ in range(2)]
        shifted[0][at] += 1e-2
        shifted[1][at] -= 1e-2
        with torch.no_grad():
            above, below = (said(one).square().sum() for one in shifted)
        assert float(got[at]) == pytest.approx(float(above - below) / 2e-2, abs=2e-3)


def test_matrices_start_orthonormal_and_memory_starts_open() -> None:
    layer = HighwayLayer(7, 4, 0.1)
    for block in (*layer.weight_ih.chunk(6), *layer.weight_hh.chunk(5)):
        torch.testing.assert_close(block @ block.t(), torch.eye(4), atol=1e-5, rtol=0)
    assert layer.bias.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 12
