"""From finished cells to a verdict: ranking, tests, what is recommended, and what the errors look like."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from statistics import fmean, stdev
from typing import Any

import numpy as np

from pretune.metrics.bootstrap import Figure, Floats, mcnemar, percentiles, two_sided
from pretune.metrics.classification import confusion
from pretune.runs.cells import Finished
from pretune.runs.comparison import Choice, Comparison, Contender, Evidence, Hard, Mix, Rank, Test
from pretune.runs.recommendation import recommend
from pretune.runs.selection import Cost, clearly_worse, optimism_of_search, simplest
from pretune.runs.weighing import Scoring, curves, draw, gains, on_test, on_validation, standings

HARDEST = 12
LONGEST = 400  # characters of a hard sample that are shown

Groups = Mapping[tuple[Contender, int], list[Finished]]


def groups(finished: Sequence[Finished]) -> Groups:
    """The seeds of each contender at each size."""
    found: dict[tuple[Contender, int], list[Finished]] = defaultdict(list)
    for one in finished:
        found[one.row.contender, one.row.size].append(one)
    return {key: sorted(cells, key=lambda cell: cell.row.seed) for key, cells in found.items()}


@dataclass(frozen=True)
class View:
    """How test samples and what is said of them are shown and counted."""

    texts: Sequence[str]
    said: Callable[[int, Any], str] = lambda _, value: named(value)
    """Number of the sample, a gold or an answer -> what people read."""
    scores_of: Callable[[Any], dict[str, float]] | None = None
    """Scores of what samples add up to, where they are made so."""
    pictures: Callable[[Sequence[Any], Sequence[Any]], dict[str, Any]] | None = None
    """Golds and answers -> the fields of a comparison that show the errors; else the confusion of labels."""
    right: Callable[[Any, Any], bool] = eq
    """Whether an answer to a gold is right."""


def judge(
    finished: Sequence[Finished],
    view: View,
    task: str,
    data: dict[str, Any],
    titles: Mapping[str, str],
    higher_is_better: bool = True,
    target: float | None = None,
) -> Comparison:
    """Everything that can be said of the cells; notes, commands and versions are the caller's.

    `target` is the score that learning curves are read at; without one the best there is.
    """
    all_groups, metric = groups(finished), finished[0].metric
    sizes = sorted({size for _, size in all_groups}, reverse=True)
    by_size = {n: {who: cells for (who, at), cells in all_groups.items() if at == n} for n in sizes}
    scoring = Scoring(metric, 1 if higher_is_better else -1, figure_of(view, metric))
    drawn = {size: draw(here, scoring) for size, here in by_size.items()}
    ranked = {size: rank(here, drawn[size], scoring, size) for size, here in by_size.items()}
    ranking = [one for size in sizes for one in ranked[size][1]]
    tests, top = ranked[sizes[0]]
    largest, means = by_size[sizes[0]], {one.contender: one.mean for one in top}
    holms = {test.contender: test.p_holm for test in tests}
    evidence = [
        *on_validation(largest, scoring),
        *on_test(means, drawn[sizes[0]], holms, scoring.sign),
    ]
    costs = {who: _cost(largest[who]) for who in means}
    luck = optimism_of_search(drawn[sizes[0]], means, scoring.sign)
    best = choose(largest, evidence, costs, luck, scoring)
    chosen = next(c for c in largest[best.contender] if c.row.seed == best.seed)
    order = {(r.contender, r.size): i for i, r in enumerate(ranking)}
    cells = sorted(finished, key=lambda c: (order[c.row.contender, c.row.size], c.row.seed))
    comparison = Comparison(
        task,
        metric,
        {**data, "valid": len(chosen.valid_golds) or None},
        [cell.row for cell in cells],
        ranking,
        "",
        {},
        higher_is_better,
        dict(titles),
        best,
        tests,
        None,
        hardest(largest, view, data["kind"]),
        _validation(all_groups, metric),
        mixes=[
            Mix(*cell.row.contender, cell.row.size, cell.row.seed, **mix)
            for cell in cells
            for mix in cell.mixes
        ],
        evidence=evidence,
        gains=[gain for size in sizes for gain in gains(by_size[size], drawn[size], scoring, size)],
        learning_curves=curves(ranking, drawn, scoring.sign, target),
        standings=standings({who: _point(scoring, means[who], largest[who]) for who in means}),
    )
    pictures = view.pictures or (lambda golds, said: {"confusion": _confusion(golds, said, data)})
    shown = pictures(chosen.golds, chosen.predicted)
    first, *reasons = recommend(comparison)
    said = " ".join([first, *reasons])
    return replace(comparison, recommendation=said, reasons=reasons, **shown)


def figure_of(view: View, metric: str) -> Figure | None:
    """The metric of what samples add up to, where it is made so."""
    scores_of = view.scores_of
    return (lambda total: scores_of(total)[metric]) if scores_of else None


def rank(
    here: Mapping[Contender, list[Finished]], drawn: Mapping[Contender, Floats], scoring: Scoring, size: int
) -> tuple[list[Test], list[Rank]]:
    """The contenders of one size, best first, each tested against the best."""
    means = {who: fmean(cell.row.score for cell in cells) for who, cells in here.items()}
    order = sorted(here, key=lambda who: -scoring.sign * means[who])
    best, tests = order[0], []
    for who in order[1:]:
        p = two_sided(drawn[best] - drawn[who])
        single = scoring.metric == "accuracy" and not scoring.figure  # a sample is right or wrong
        exact = mcnemar(_mostly_right(here[best]), _mostly_right(here[who])) if single else None
        tests.append(Test(*who, means[best] - means[who], p, exact, p))
    corrected = holm([test.p_bootstrap for test in tests])
    tests = [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]
    ranks = []
    for who, p_value in zip(order, [None, *corrected], strict=True):
        scores = [cell.row.score for cell in here[who]]
        spread = stdev(scores) if len(scores) > 1 else 0.0
        low, high = percentiles(drawn[who])
        ends = (low, min(high, 1.0)) if scoring.sign > 0 else (max(low, 0.0), high)
        ranks.append(Rank(*who, size, means[who], spread, *ends, p_value))
    return tests, ranks


def holm(values: Sequence[float]) -> list[float]:
    """Holm (1979): the k-th smallest of n times n - k + 1, never falling, at most 1."""
    corrected, highest = [0.0] * len(values), 0.0
    for place, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        highest = max(highest, min(1.0, (len(values) - place) * values[i]))
        corrected[i] = highest
    return corrected


def choose(
    largest: Mapping[Contender, list[Finished]],
    evidence: Sequence[Evidence],
    costs: Mapping[Contender, Cost],
    luck: float,
    scoring: Scoring,
) -> Choice:
    """The simplest within one standard error on validation data, and its best seed there.

    Where the test data say clearly that another is better, they choose instead, by the same rule; their
    score is then too good by about `luck`.
    """
    validation, test = ([one for one in evidence if one.data == data] for data in ("validation", "test"))
    who, by = simplest(validation, costs), "validation"
    if clearly_worse(next(one for one in test if one.contender == who)):
        who, by = simplest(test, costs), "test"
    cell = max(largest[who], key=lambda one: scoring.sign * one.validation[scoring.metric])
    mean = next(one.mean for one in validation if one.contender == who)
    return Choice(*who, cell.row.size, cell.row.seed, mean, by, luck if by == "test" else 0.0)


def _cost(cells: Sequence[Finished]) -> Cost:
    rows = [cell.row for cell in cells]
    return Cost(fmean(row.train_seconds for row in rows), fmean(row.predictions_per_second for row in rows))


def _point(scoring: Scoring, mean: float, cells: Sequence[Finished]) -> tuple[float, ...]:
    """What the Pareto front weighs, more is better: score, training time, peak memory, speed."""
    cost, memory = _cost(cells), fmean(cell.row.peak_memory_bytes for cell in cells)
    return scoring.sign * mean, -cost.train_seconds, -memory, cost.predictions_per_second


def hardest(largest: Mapping[Contender, list[Finished]], view: View, kind: str) -> list[Hard]:
    """Test samples that most trainings get wrong; among equals, those with the greatest loss."""
    cells = [cell for of_contender in largest.values() for cell in of_contender]
    golds = cells[0].golds
    if kind == "number":
        errors = np.abs(np.array([cell.predicted for cell in cells]) - np.array(golds))  # (cells, samples)
        means = np.mean([cell.predicted for cell in cells], 0)
        return [
            Hard(
                _short(view.texts[i]),
                f"{golds[i]:g}",
                f"answered {means[i]:.3g} on average",
                len(cells),
                len(cells),
            )
            for i in np.argsort(-errors.mean(0), kind="stable")[:HARDEST]
        ]
    wrong = ~np.array([[view.right(g, p) for g, p in zip(golds, c.predicted, strict=True)] for c in cells])
    losses = np.zeros(len(golds))
    for cell in cells:
        if cell.chances:
            losses -= np.log(np.maximum(cell.chances, 1e-6))
    order = sorted(range(len(golds)), key=lambda i: (-wrong[:, i].sum(), -losses[i], i))[:HARDEST]
    return [_hard(i, cells, int(wrong[:, i].sum()), view) for i in order if wrong[:, i].any()]


def _hard(i: int, cells: Sequence[Finished], wrong: int, view: View) -> Hard:
    gold = cells[0].golds[i]
    said = Counter(
        view.said(i, cell.predicted[i]) for cell in cells if not view.right(gold, cell.predicted[i])
    )
    most, times = said.most_common(1)[0]
    how = f"answered {most} by {times} of {len(cells)} trainings"
    return Hard(_short(view.texts[i]), view.said(i, gold), how, wrong, len(cells))


def _right(cells: Sequence[Finished]) -> list[list[int]]:
    return [[int(p == g) for p, g in zip(c.predicted, c.golds, strict=True)] for c in cells]


def _mostly_right(cells: Sequence[Finished]) -> list[bool]:
    """Whether most seeds answer a sample rightly."""
    return [2 * sum(column) > len(cells) for column in zip(*_right(cells), strict=True)]


def _confusion(golds: Sequence[Any], said: Sequence[Any], data: Mapping[str, Any]) -> dict[str, Any] | None:
    if data["kind"] != "one":
        return None
    labels, counts = confusion(golds, said, data["labels"])
    return {"labels": labels, "counts": counts.tolist()}


def _validation(all_groups: Groups, metric: str) -> list[dict[str, Any]]:
    return [
        {**who._asdict(), "size": size, "mean": fmean(cell.validation[metric] for cell in cells)}
        for (who, size), cells in sorted(all_groups.items(), key=lambda pair: (-pair[0][1], pair[0][0]))
    ]


def named(value: Any) -> str:
    return ", ".join(map(str, value)) or "nothing" if isinstance(value, (list, tuple)) else str(value)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + " …"
