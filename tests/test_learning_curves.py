"""Learning curves: known laws come back, their intervals hold the truth, and they are read backwards."""

from __future__ import annotations

import numpy as np
import pytest

from pretune.errors import UserError
from pretune.metrics.learning_curves import fit

SIZES = np.array([50.0, 100, 200, 400, 800])


def law(n, c=0.9, a=1.2, b=0.4):
    return c - a * np.asarray(n, float) ** -b


def test_a_law_without_noise_is_found_and_read_backwards() -> None:
    curves = fit(SIZES, law(SIZES), np.tile(law(SIZES), (3, 1)))
    assert curves.c[0] == pytest.approx(0.9, abs=0.002)
    assert curves.a[0] == pytest.approx(1.2, rel=0.02)
    assert curves.b[0] == pytest.approx(0.4, rel=0.01)
    assert curves.at(3200)[0] == pytest.approx(law(3200), abs=1e-3)
    assert curves.labels(law(3200))[0] == pytest.approx(3200, rel=0.03)


def test_errors_fall_as_scores_rise() -> None:
    errors = 0.2 + 3.0 * SIZES**-0.5
    curves = fit(SIZES, errors, np.tile(errors, (2, 1)), higher=False, best=0.0)
    assert curves.c[0] == pytest.approx(0.2, abs=0.005) and curves.at(3200)[0] == pytest.approx(
        0.2 + 3 * 3200**-0.5, rel=0.02
    )
    assert curves.labels(0.2 + 3 * 3200**-0.5, sign=-1)[0] == pytest.approx(3200, rel=0.05)
    assert curves.labels(0.1, sign=-1)[0] == np.inf


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """60 experiments with the noise of 500 test samples: 95 % intervals of the curve, and of the labels."""
    chance, error = np.random.default_rng(3), np.sqrt(0.7 * 0.3 / 500)
    target, held, reached = float(law(1600)), 0, 0
    for _ in range(60):
        scores = law(SIZES) + chance.normal(0, error, len(SIZES))
        curves = fit(SIZES, scores, scores + chance.normal(0, error, (200, len(SIZES))))
        low, high = curves.band(3200)
        held += low <= law(3200) <= high
        fewest, most = curves.labels_between(target)
        reached += fewest <= 1600 <= most
    assert held >= 52 and reached >= 52


def test_scores_that_vary_much_count_little() -> None:
    off = law(SIZES) + np.array([0.0, 0, 0, 0, 0.1])
    spread = np.array([0.001, 0.001, 0.001, 0.001, 0.2])
    drawn = off + np.random.default_rng(0).normal(0, 1, (400, 5)) * spread
    assert fit(SIZES, off, drawn).at(800)[0] == pytest.approx(law(800), abs=0.01)


def test_no_curve_falls_or_rises_above_what_is_possible() -> None:
    falling = np.array([0.8, 0.7, 0.6, 0.5, 0.4])
    curves = fit(SIZES, falling, np.tile(falling, (2, 1)))
    assert curves.at(10_000)[0] == pytest.approx(0.6, abs=1e-6)
    assert curves.labels(0.9)[0] == np.inf and curves.labels(0.5)[0] == 1
    steep = np.array([0.5, 0.65, 0.8, 0.95, 0.99])
    assert fit(SIZES, steep, np.tile(steep, (2, 1))).at(1e9)[0] <= 1.0 + 1e-9


def test_two_sizes_are_no_curve() -> None:
    with pytest.raises(UserError, match="needs 3 sizes"):
        fit([50, 100], [0.5, 0.6], [[0.5, 0.6]])
