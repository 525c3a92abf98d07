"""From finished cells to a verdict: ranking, tests, the choice by validation, and what to recommend."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from statistics import fmean, stdev
from typing import Any

import numpy as np

from pretune.metrics.bootstrap import (
    Figure,
    interval,
    interval_of,
    interval_of_sums,
    mcnemar,
    paired_bootstrap,
    paired_bootstrap_of,
    paired_bootstrap_of_sums,
)
from pretune.metrics.classification import confusion, macro_f1, micro_f1
from pretune.metrics.regression import mae, pearson, rmse, spearman
from pretune.runs.cells import Finished
from pretune.runs.comparison import (
    Choice,
    Comparison,
    Contender,
    Hard,
    Mix,
    Rank,
    Test,
)
from pretune.runs.recommendation import recommend

METRICS = {f.__name__: f for f in (micro_f1, macro_f1, pearson, spearman, mae, rmse)}
RESAMPLES = 10_000  # of paired tests: the smallest p is 2 / 10,001
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
) -> Comparison:
    """Everything that can be said of the cells; notes, commands and versions are the caller's."""
    all_groups, metric = groups(finished), finished[0].metric
    sign = 1 if higher_is_better else -1
    ranking: list[Rank] = []
    tests: list[Test] = []
    sizes = sorted({size for _, size in all_groups}, reverse=True)
    for size in sizes:
        here = {who: cells for (who, at), cells in all_groups.items() if at == size}
        found, ranked = rank(here, metric, sign, size, figure_of(view, metric))
        ranking += ranked
        tests = tests or found
    largest = {who: cells for (who, size), cells in all_groups.items() if size == sizes[0]}
    best = choose(largest, metric, sign)
    chosen = next(c for c in largest[best.contender] if c.row.seed == best.seed)
    order = {(r.contender, r.size): i for i, r in enumerate(ranking)}
    cells = sorted(finished, key=lambda c: (order[c.row.contender, c.row.size], c.row.seed))
    comparison = Comparison(
        task,
        metric,
        data,
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
    )
    pictures = view.pictures or (lambda golds, said: {"confusion": _confusion(golds, said, data)})
    shown = pictures(chosen.golds, chosen.predicted)
    return replace(comparison, recommendation=recommend(comparison), **shown)


def figure_of(view: View, metric: str) -> Figure | None:
    """The metric of what samples add up to, where it is made so."""
    scores_of = view.scores_of
    return (lambda total: scores_of(total)[metric]) if scores_of else None


def rank(
    here: Mapping[Contender, list[Finished]],
    metric: str,
    sign: int,
    size: int,
    figure: Figure | None = None,
) -> tuple[list[Test], list[Rank]]:
    """The contenders of one size, best first, each tested against the best."""
    means = {who: fmean(cell.row.score for cell in cells) for who, cells in here.items()}
    order = sorted(here, key=lambda who: -sign * means[who])
    best, tests = order[0], []
    for who in order[1:]:
        p = _paired(here[best], here[who], metric, figure)
        single = metric == "accuracy" and not figure  # a sample is right or wrong
        exact = mcnemar(_mostly_right(here[best]), _mostly_right(here[who])) if single else None
        tests.append(Test(*who, means[best] - means[who], p, exact, p))
    corrected = holm([test.p_bootstrap for test in tests])
    tests = [Test(**{**t.__dict__, "p_holm": p}) for t, p in zip(tests, corrected, strict=True)]
    ranks = []
    for who, p_value in zip(order, [None, *corrected], strict=True):
        scores = [cell.row.score for cell in here[who]]
        spread = stdev(scores) if len(scores) > 1 else 0.0
        ranks.append(Rank(*who, size, means[who], spread, *_interval(here[who], metric, figure), p_value))
    return tests, ranks


def holm(values: Sequence[float]) -> list[float]:
    """Holm (1979): the k-th smallest of n times n - k + 1, never falling, at most 1."""
    corrected, highest = [0.0] * len(values), 0.0
    for place, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        highest = max(highest, min(1.0, (len(values) - place) * values[i]))
        corrected[i] = highest
    return corrected


def choose(largest: Mapping[Contender, list[Finished]], metric: str, sign: int = 1) -> Choice:
    """By validation data alone: the best mean, and the best seed of that contender."""
    means = {who: fmean(cell.validation[metric] for cell in cells) for who, cells in largest.items()}
    who = max(means, key=lambda one: sign * means[one])
    cell = max(largest[who], key=lambda one: sign * one.validation[metric])
    return Choice(*who, cell.row.size, cell.row.seed, means[who])


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
    said = Counter(view.said(i, cell.predicted[i]) for cell in cells if not view.right(gold, cell.predicted[i]))
    most, times = said.most_common(1)[0]
    how = f"answered {most} by {times} of {len(cells)} trainings"
    return Hard(_short(view.texts[i]), view.said(i, gold), how, wrong, len(cells))


def _interval(cells: Sequence[Finished], metric: str, figure: Figure | None) -> tuple[float, float]:
    if figure:
        return interval_of_sums(figure, [cell.tallies for cell in cells])
    if metric == "accuracy":
        return interval(_right(cells))
    return interval_of(METRICS[metric], _items(cells[0].golds), [_items(c.predicted) for c in cells])


def _paired(a: Sequence[Finished], b: Sequence[Finished], metric: str, figure: Figure | None) -> float:
    if figure:
        of_a, of_b = ([cell.tallies for cell in cells] for cells in (a, b))
        return paired_bootstrap_of_sums(figure, of_a, of_b, resamples=RESAMPLES)
    if metric == "accuracy":
        return paired_bootstrap(_right(a), _right(b), resamples=RESAMPLES)
    golds, said_a, said_b = _items(a[0].golds), *([_items(c.predicted) for c in cells] for cells in (a, b))
    return paired_bootstrap_of(METRICS[metric], golds, said_a, said_b, resamples=1000)


def _right(cells: Sequence[Finished]) -> list[list[int]]:
    return [[int(p == g) for p, g in zip(c.predicted, c.golds, strict=True)] for c in cells]


def _mostly_right(cells: Sequence[Finished]) -> list[bool]:
    """Whether most seeds answer a sample rightly."""
    return [2 * sum(column) > len(cells) for column in zip(*_right(cells), strict=True)]


def _items(values: Sequence[Any]) -> list[Any]:
    return [tuple(x) if isinstance(x, list) else x for x in values]


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
