"""What reports say of scores: the ranking, what the choice rests on, curves, gains and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pretune.runs import plots
from pretune.runs.comparison import (
    BASELINES,
    Comparison,
    Contender,
    Evidence,
    Gain,
    Rank,
    bytes_text,
    contender_names,
    count_text,
    p_text,
    seconds_text,
    style,
)
from pretune.runs.recommendation import evidence_of, labels_text, points
from pretune.runs.scatter import SECONDS, SPEED, scatter

COLOURS = 8  # c0 … c7 in the template; c0 is the baseline's
ONWARD = 4  # times the labels: as far as curves are drawn


def series(comparison: Comparison) -> dict[Contender, plots.Series]:
    """Each contender with its colour, name and points over sizes, in the order of the ranking."""
    names = contender_names(comparison.contenders, comparison.titles)
    colours = _colours(comparison.contenders)
    front = {standing.contender for standing in comparison.standings if standing.efficient}
    found = {}
    for one in comparison.contenders:
        ranks = [r for size in comparison.sizes if (r := comparison.rank(one, size))]
        points = tuple(plots.Point(r.size, r.mean, r.low, r.high) for r in ranks)
        random_start = one.start == "scratch" and one.method not in BASELINES
        found[one] = plots.Series(
            names[one], f"c{colours[one]}", random_start, points, _beyond(comparison, one), one in front
        )
    return found


def _colours(contenders: Sequence[Contender]) -> dict[Contender, int]:
    """The baseline is grey; a method from scratch has the colour of the same method with a start."""
    colours = {one: 0 for one in contenders if one.method in BASELINES}
    free = 0
    trained = sorted(
        (one for one in contenders if one.method not in BASELINES), key=lambda one: one.start == "scratch"
    )
    for one in trained:
        alike = [
            other
            for other in colours
            if one.start == "scratch" and other.method == one.method and other.start != "scratch"
        ]
        used = {
            colours[other] for other in colours if other.start == "scratch" and other.method == one.method
        }
        shared = next((colours[other] for other in alike if colours[other] not in used), None)
        colours[one] = shared if shared is not None else 1 + free % (COLOURS - 1)
        free += shared is None
    return colours


def _beyond(comparison: Comparison, one: Contender) -> tuple[plots.Point, ...]:
    """Its fitted curve from the largest size on."""
    curve = next((curve for curve in comparison.learning_curves if curve.contender == one), None)
    if curve is None:
        return ()
    largest = comparison.sizes[-1]
    found = [plots.Point(p["size"], p["score"], p["low"], p["high"]) for p in curve.band]
    return tuple(point for point in found if point.x <= ONWARD * largest)


def ranking(comparison: Comparison) -> dict[str, Any]:
    from markupsafe import Markup

    top, say, all_series = comparison.top(), style(comparison.metric), series(comparison)
    low, high, _ = plots.y_axis([plots.Point(r.size, r.mean, r.low, r.high) for r in top], say)
    rows, standings = [], {one.contender: one for one in comparison.standings}
    for rank in top:
        one, standing = all_series[rank.contender], standings.get(rank.contender)
        by = standing.dominated_by if standing else None
        said = f"{say(rank.mean)}, 95 % interval {say(rank.low)} to {say(rank.high)}"
        point = plots.Point(rank.size, rank.mean, rank.low, rank.high)
        rows.append(
            {
                "name": one.name,
                "swatch": Markup(plots.swatch(one)),
                "interval": Markup(plots.interval(point, low, high, one.colour, one.open, said)),
                "mean": say(rank.mean),
                "sd": say(rank.sd, unit=False),
                "low": say(rank.low, unit=False),
                "high": say(rank.high, unit=False),
                "p": p_text(rank.p_value),
                "chosen": comparison.best is not None and comparison.best.contender == rank.contender,
                "efficient": one.efficient,
                "dominated_by": all_series[Contender(**by)].name if by else "",
                **_costs(comparison, rank),
            }
        )
    return {"ranking": rows, "axis": (say(low), say(high)), "front": bool(standings)}


def _costs(comparison: Comparison, rank: Rank) -> dict[str, str]:
    def cost(what: str) -> float:
        return comparison.cost(rank.contender, rank.size, what)

    return {
        "seconds": seconds_text(cost("train_seconds")),
        "memory": bytes_text(cost("peak_memory_bytes")),
        "parameters": count_text(cost("parameters")),
        "speed": count_text(cost("predictions_per_second")),
    }


def curves(comparison: Comparison) -> dict[str, Any]:
    if len(comparison.sizes) < 2:
        empty = {"curves_wide": "", "curves_narrow": "", "target": ""}
        return {**empty, "sizes": [], "by_size": [], "onward": ONWARD}
    from markupsafe import Markup

    say, metric, all_series = (
        style(comparison.metric),
        comparison.metric.replace("_", " "),
        series(comparison),
    )
    drawn, fitted = list(all_series.values()), comparison.learning_curves
    target = fitted[0].target if fitted else None
    needed = {curve.contender: labels_text(curve, comparison.sizes, comparison.counted) for curve in fitted}
    return {
        "curves_wide": Markup(plots.curves(drawn, say, metric, target=target)),
        "curves_narrow": Markup(plots.curves(drawn, say, metric, narrow=True, target=target)),
        "target": "" if target is None else say(target),
        "onward": ONWARD,
        "sizes": [f"{size:,}" for size in comparison.sizes],
        "by_size": [
            {
                "name": one.name,
                "cells": [_by_size(comparison, who, size) for size in comparison.sizes],
                "needed": needed.get(who, "too few sizes for a curve"),
            }
            for who, one in all_series.items()
        ],
    }


def _by_size(comparison: Comparison, who: Contender, size: int) -> dict[str, str]:
    rank, say = comparison.rank(who, size), style(comparison.metric)
    return {"mean": say(rank.mean), "sd": say(rank.sd, unit=False)} if rank else {"mean": "–", "sd": ""}


def costs(comparison: Comparison) -> dict[str, Any]:
    """The score over training time and over speed, drawn for desks and phones."""
    from markupsafe import Markup

    say, metric, largest = style(comparison.metric), comparison.metric.replace("_", " "), comparison.sizes[-1]
    found: dict[str, Any] = {}
    for axis, what in ((SECONDS, "train_seconds"), (SPEED, "predictions_per_second")):
        drawn = []
        for who, one in series(comparison).items():
            rank = comparison.rank(who, largest)
            if rank is not None:
                point = plots.Point(comparison.cost(who, largest, what), rank.mean, rank.low, rank.high)
                drawn.append(replace(one, points=(point,), beyond=()))
        found |= {
            f"{axis.kind}_wide": Markup(scatter(drawn, say, metric, axis)),
            f"{axis.kind}_narrow": Markup(scatter(drawn, say, metric, axis, narrow=True)),
        }
    return found


def evidence(comparison: Comparison) -> dict[str, Any]:
    """What validation and test data say of each contender, in the order of the ranking."""
    names, say = contender_names(comparison.contenders, comparison.titles), style(comparison.metric)

    def said(one: Evidence, best: bool) -> dict[str, Any]:
        return {
            "mean": say(one.mean, unit=False),
            "optimism": points(comparison, one.optimism, unit=False),
            "gap": "best"
            if best
            else f"{points(comparison, one.gap, unit=False)} ± {points(comparison, one.error, unit=False)}",
            "within": one.within,
        }

    by = {
        data: {one.contender: said(one, i == 0) for i, one in enumerate(evidence_of(comparison, data))}
        for data in ("validation", "test")
    }
    rows = [
        {"name": names[rank.contender], **{data: found[rank.contender] for data, found in by.items()}}
        for rank in comparison.top()
        if all(rank.contender in found for found in by.values())
    ]
    return {"evidence": rows if len(rows) > 1 else []}


def gains(comparison: Comparison) -> dict[str, Any]:
    """What starts bring over scratch, sizes across."""
    names = contender_names(comparison.contenders, comparison.titles)
    sizes = sorted({gain.size for gain in comparison.gains})
    by = {(gain.contender, gain.size): gain for gain in comparison.gains}
    rows = [
        {"name": names[who], "cells": [_gain(comparison, by.get((who, size))) for size in sizes]}
        for who in comparison.contenders
        if any((who, size) in by for size in sizes)
    ]
    per_cent = style(comparison.metric).scale == 100
    return {"gains": rows, "gain_sizes": [f"{size:,}" for size in sizes], "gain_points": per_cent}


def _gain(comparison: Comparison, gain: Gain | None) -> dict[str, Any]:
    if gain is None:
        return {"gain": "–", "interval": "", "sure": False}

    def signed(value: float) -> str:
        said = points(comparison, abs(value), unit=False)
        return f"{'−' if value < 0 and float(said) else '+'}{said}"

    return {
        "gain": signed(gain.gain),
        "interval": f"{signed(gain.low)} to {signed(gain.high)}",
        "sure": gain.low > 0 or gain.high < 0,
    }
