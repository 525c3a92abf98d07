from __future__ import annotations

from math import cos, pi

import pytest

from pretune.training.schedules import (
    BERTLinear,
    Constant,
    MomentumCycle,
    OneCycle,
    OpenAIWarmup,
    Schedule,
    SlantedTriangular,
    WarmupCosine,
    WarmupLinear,
)


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


def test_the_rates_of_gpts_fine_tuning_are_those_of_rocstories() -> None:
    # 138 updates at batch 32: the climb ends within the first, which moves nothing
    schedule = OpenAIWarmup()
    assert [schedule(t, 138) for t in (0, 1, 69, 137)] == pytest.approx([0, 137 / 138, 0.5, 1 / 138])
    assert OpenAIWarmup(step_offset=1)(0, 138) == pytest.approx(137 / 138)
    assert OpenAIWarmup(warmup=0.5)(25, 100) == pytest.approx(0.5 * 0.75)  # both at once


def test_gpts_pretraining_climbs_for_2000_updates_and_falls_along_the_whole_run() -> None:
    schedule = OpenAIWarmup("cosine", updates=2000)
    assert [schedule(t, 100_000) for t in (0, 500, 2000)] == [0, 0.25, 1]
    assert schedule(2001, 100_000) == pytest.approx(0.5 * (1 + cos(pi * 0.02001)))
    assert schedule(50_000, 100_000) == pytest.approx(0.5)
    rest = WarmupCosine(updates=2000)
    assert [rest(t, 100_000) for t in (0, 500, 2000, 51_000)] == pytest.approx([0, 0.25, 1, 0.5])


def test_berts_rate_jumps_down_at_the_end_of_its_climb() -> None:
    schedule = BERTLinear(0.1)
    assert [schedule(t, 1000) for t in (0, 50, 99, 100, 550, 999)] == pytest.approx(
        [0, 0.5, 0.99, 0.9, 0.45, 0.001]
    )
    assert BERTLinear(updates=10_000)(10_000, 1_000_000) == pytest.approx(0.99)


@pytest.mark.parametrize(
    "schedule", [OpenAIWarmup(), OpenAIWarmup("cosine", 0.3), BERTLinear(), WarmupCosine(), BERTLinear(0)]
)
def test_published_rates_of_few_steps_are_sound_and_some_step_moves(schedule: Schedule) -> None:
    for steps in range(1, 12):
        rates = [schedule(step, steps) for step in range(steps)]
        assert all(0 <= rate <= 1 for rate in rates)
        assert any(rates) or steps == 1
    no_climb = OpenAIWarmup(warmup=0)
    assert no_climb(0, 10) == 1
