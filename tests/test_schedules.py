from __future__ import annotations

import pytest

from pretune.training.schedules import Constant, MomentumCycle, OneCycle, SlantedTriangular, WarmupLinear


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.0003125), (50, 0.00515625), (100, 0.01), (550, 0.00515625), (1000, 0.0003125)]
)
def test_slanted_triangles_have_the_values_of_the_paper(step: int, rate: float) -> None:
    assert 0.01 * SlantedTriangular()(step, 1000) == pytest.approx(rate, abs=1e-12)


def test_slanted_triangles_never_fall_below_their_lowest_rate() -> None:
    assert min(SlantedTriangular()(step, 1005) for step in range(1005)) >= 1 / 32


def test_one_cycle_begins_peaks_and_ends_as_fastai_does() -> None:
    schedule = OneCycle()
    assert schedule(0, 100) == pytest.approx(1 / 25)
    assert schedule(25, 100) == pytest.approx(1.0)
    assert schedule(100, 100) == pytest.approx(1e-5)
    assert MomentumCycle()(0, 100) == MomentumCycle()(100, 100) == pytest.approx(0.8)
    assert MomentumCycle()(25, 100) == pytest.approx(0.7)


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_rate_and_momentum_of_every_step_are_those_of_fit_one_cycle(steps: int) -> None:
    fastai = pytest.importorskip("fastai.callback.schedule", reason="fastai is the oracle")
    rate, momentum = fastai.combined_cos(0.25, 1 / 25, 1.0, 1e-5), fastai.combined_cos(0.25, 0.8, 0.7, 0.8)
    for step in range(steps):
        assert OneCycle()(step, steps) == pytest.approx(rate(step / steps), abs=1e-6)
        assert MomentumCycle()(step, steps) == pytest.approx(momentum(step / steps), abs=1e-6)


def test_one_cycle_may_climb_to_its_very_end() -> None:
    assert OneCycle(climb=1.0)(10, 10) == pytest.approx(1.0)
    assert OneCycle(climb=0.0)(0, 10) == pytest.approx(1.0)


def test_warm_up_reaches_the_rate_and_goes_down_in_a_line() -> None:
    factors = [WarmupLinear()(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(1 / 90)


@pytest.mark.parametrize("schedule", [Constant(), SlantedTriangular(), WarmupLinear(), OneCycle()])
def test_runs_of_few_steps_have_sound_rates(schedule: SlantedTriangular) -> None:
    for steps in range(1, 12):
        assert all(0 < schedule(step, steps) <= 1 for step in range(steps))
