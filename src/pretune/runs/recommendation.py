"""What a comparison recommends and why, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pretune.metrics.learning_curves import REACH
from pretune.runs.comparison import (
    BASELINES,
    Comparison,
    Contender,
    Curve,
    Evidence,
    Rank,
    bytes_text,
    contender_names,
    count_text,
    p_text,
    seconds_text,
    style,
)
from pretune.runs.selection import costs_of, simplest

Names = Mapping[Contender, str]
NEGLIGIBLE = 0.0005


def recommend(comparison: Comparison) -> list[str]:
    """What to use; then why, how sure that is, from how many labels, at which cost."""
    assert comparison.best is not None
    best, say = comparison.best.contender, style(comparison.metric)
    names, size = contender_names(comparison.contenders, comparison.titles), comparison.sizes[-1]
    mine = comparison.rank(best, size)
    assert mine is not None
    metric, spent = comparison.metric.replace("_", " "), f"{size:,} {comparison.counted}"
    by_test = comparison.best.chosen_by == "test"
    more = _against_validation(comparison, names) if by_test else _lead(comparison, names)
    first = f"Use {names[best]}: {say(mine.mean)} {metric} on the test data with {spent}{more}."
    seconds, memory, speed = (
        comparison.cost(best, size, what)
        for what in ("train_seconds", "peak_memory_bytes", "predictions_per_second")
    )
    return [
        first,
        *(_chosen_by_test(comparison, names) if by_test else _chosen_by_validation(comparison, names)),
        *_on_test(comparison, names),
        *_optimism(comparison),
        *_from_size(comparison, best),
        *_fewer(comparison, names),
        *_cheaper(comparison, names),
        *_reached(comparison, names),
        f"One training takes {seconds_text(seconds)} and {bytes_text(memory)} of memory; "
        f"it answers {count_text(speed)} samples a second.",
        *_sure(comparison),
    ]


def points(comparison: Comparison, gap: float, unit: bool = True) -> str:
    """A difference of scores: per cents in points."""
    say = style(comparison.metric)
    return f"{gap * say.scale:.{say.digits}f}" + (" points" if unit and say.scale == 100 else "")


def evidence_of(comparison: Comparison, data: str) -> list[Evidence]:
    """On validation or on test data, best first."""
    return [one for one in comparison.evidence if one.data == data]


def labels_text(curve: Curve, sizes: Sequence[int], counted: str) -> str:
    """How many labels a contender needs for the target, with the interval."""
    most = f"{REACH * sizes[-1]:,}"
    if curve.labels is None:
        low = f"; 95 % interval from {curve.labels_low:,} on" if curve.labels_low is not None else ""
        return f"not within {REACH} times the {counted} ({most}){low}"
    high = f"{curve.labels_high:,}" if curve.labels_high is not None else f"more than {most}"
    if curve.labels <= sizes[0]:
        return f"at most {sizes[0]:,} {counted}, the fewest that were tried (95 % interval up to {high})"
    low = f"{curve.labels_low:,}" if (curve.labels_low or 0) > sizes[0] else f"{sizes[0]:,} or fewer"
    return f"about {curve.labels:,} {counted} (95 % interval {low} to {high})"


def _chosen_by_validation(comparison: Comparison, names: Names) -> list[str]:
    """What validation data say, and why the chosen one is taken among those that they cannot tell apart."""
    assert comparison.best is not None
    best, found = comparison.best.contender, evidence_of(comparison, "validation")
    if len(found) < 2:
        return []
    say, first, second = style(comparison.metric), found[0], found[1]
    where = _splits(comparison)
    if first.contender != best:
        mine = next(one for one in found if one.contender == best)
        return [
            f"Validation{where} puts {names[first.contender]} first with {say(first.mean)}, but cannot tell "
            f"it from {names[best]} with {say(mine.mean)}: {_gap(comparison, mine)} is within one standard "
            "error.",
            f"Of those within one standard error of the best the simplest is taken: "
            f"{_simpler(comparison, best, first.contender)}.",
        ]
    others = [one for one in found[1:] if one.within]
    if not others:
        return [
            f"Validation{where} puts it first with {say(first.mean)}; {names[second.contender]} follows, "
            f"worse by {_gap(comparison, second)}, more than one standard error."
        ]
    said = _listed([names[one.contender] for one in others])
    return [
        f"Validation{where} puts it first with {say(first.mean)}, though it cannot tell it from {said} "
        "(within one standard error); none of these is simpler."
    ]


def _chosen_by_test(comparison: Comparison, names: Names) -> list[str]:
    assert comparison.best is not None
    best, say = comparison.best.contender, style(comparison.metric)
    found = {one.contender: one for one in evidence_of(comparison, "validation")}
    first, mine = evidence_of(comparison, "validation")[0], found[best]
    sentences = [
        f"Validation{_splits(comparison)} puts {names[first.contender]} first with {say(first.mean)}; "
        f"{names[best]} has {say(mine.mean)} there, worse by {_gap(comparison, mine)}."
    ]
    luck = comparison.best.optimism
    less = f"up to about {points(comparison, luck)} worse" if luck >= NEGLIGIBLE else "about as good"
    sentences.append(
        "The test data made this choice, so its score there is no longer that of new data: expect one "
        f"{less}."
    )
    return sentences


def _against_validation(comparison: Comparison, names: Names) -> str:
    """For the headline: that the choice goes against the validation data's."""
    say = style(comparison.metric)
    other = simplest(evidence_of(comparison, "validation"), costs_of(comparison))
    test = next(one for one in evidence_of(comparison, "test") if one.contender == other)
    return (
        f"; the validation data would take {names[other]}, which is clearly worse there "
        f"({say(test.mean)}, p {_p(test.p_holm)})"
    )


def _on_test(comparison: Comparison, names: Names) -> list[str]:
    """Who is best on the test data, and who cannot be told from it."""
    assert comparison.best is not None
    best, found = comparison.best.contender, evidence_of(comparison, "test")
    if len(found) < 2:
        return []
    say, first = style(comparison.metric), found[0]
    count = comparison.data.get("test")
    where = f"On the test data{f' ({count:,} samples)' if count else ''}"
    equal = [names[one.contender] for one in found[1:] if (one.p_holm or 0) >= 0.05]
    if first.contender == best:
        if not equal:
            return [f"{where} it is better than every other approach."]
        return [f"{where} it is best, but cannot be told from {_listed(equal)} (p at least 0.05)."]
    mine = next(one for one in found if one.contender == best)
    how = "no significant difference" if (mine.p_holm or 1) >= 0.05 else "a significant difference"
    return [
        f"{where} {names[first.contender]} is best with {say(first.mean)}, {points(comparison, mine.gap)} "
        f"better than it ({how}, p {_p(mine.p_holm)})."
    ]


def _optimism(comparison: Comparison) -> list[str]:
    found = [one.optimism for one in evidence_of(comparison, "validation")]
    if max(found, default=0) < NEGLIGIBLE:
        return []
    return [
        "Validation scores are those of the best of several epochs or strengths, and so too good by up to "
        f"{points(comparison, max(found))} (Tibshirani & Tibshirani 2009); that is taken off before they are "
        "compared."
    ]


def _sure(comparison: Comparison) -> list[str]:
    """What the tests are corrected for, and what nothing is known of."""
    sentences = []
    number = len(comparison.tests)
    if number:
        sentences.append(
            "p-values are of paired bootstraps over test samples and seeds, corrected for "
            f"{number} comparison{'s' * (number > 1)} (Holm 1979)."
        )
    if len({row.seed for row in comparison.rows}) == 1:
        sentences.append("With one seed nothing is known of how much others would differ.")
    return sentences


def _reached(comparison: Comparison, names: Names) -> list[str]:
    """How many labels the chosen one needs for the target."""
    assert comparison.best is not None
    best, size, say = comparison.best.contender, comparison.sizes[-1], style(comparison.metric)
    curve = next((one for one in comparison.learning_curves if one.contender == best), None)
    mine = comparison.rank(best, size)
    if curve is None or mine is None or curve.target == mine.mean:
        return []
    return [
        f"By its learning curve {names[best]} reaches {say(curve.target)} with "
        f"{labels_text(curve, comparison.sizes, comparison.counted)}."
        if curve.labels is not None
        else f"By its learning curve {names[best]} does not reach {say(curve.target)}: "
        f"{labels_text(curve, comparison.sizes, comparison.counted)}."
    ]


def _splits(comparison: Comparison) -> str:
    """How many samples validation has."""
    count, seeds = comparison.data.get("valid"), len({row.seed for row in comparison.rows})
    if not count:
        return " (answers not kept by an earlier version: its error is over seeds alone)"
    return f" ({count:,} samples" + (f" in each of {seeds} seeds)" if seeds > 1 else ")")


def _gap(comparison: Comparison, one: Evidence) -> str:
    return f"{points(comparison, one.gap, unit=False)} ± {points(comparison, one.error)}"


def _simpler(comparison: Comparison, one: Contender, other: Contender) -> str:
    """In what the one is simpler than the other."""
    size = comparison.sizes[-1]
    reasons = []
    if one.method in BASELINES and other.method not in BASELINES:
        reasons.append("it needs no encoder")
    for what, verb, sign in (("train_seconds", "trains", 1), ("predictions_per_second", "answers", -1)):
        mine, theirs = (max(comparison.cost(who, size, what), 1e-3) for who in (one, other))
        times = (theirs / mine) ** sign
        if times >= 1.5:
            reasons.append(f"{verb} {times:,.0f} times as fast" if times >= 3 else f"{verb} faster")
    if not reasons:
        return "they cost about the same, and it is the better of these"
    said = " and ".join(reasons)
    return said if said.startswith("it ") else f"it {said}"


def _listed(names: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _lead(comparison: Comparison, names: Names) -> str:
    """How far before the second, where the chosen one is first."""
    top, say = comparison.top(), style(comparison.metric)
    assert comparison.best is not None
    if len(top) < 2 or top[0].contender != comparison.best.contender:
        return ""
    gap = points(comparison, abs(top[0].mean - top[1].mean))
    other, p = names[top[1].contender], top[1].p_value
    if p is not None and p >= 0.05:
        return f", not significantly better than {other} ({say(top[1].mean)}, p {_p(p)})"
    word = "above" if comparison.higher_is_better else "below"
    return f", {gap} {word} {other} (p {_p(p)})"


def _p(p: float | None) -> str:
    said = p_text(p)
    return said if said.startswith("<") else f"= {said}"


def _from_size(comparison: Comparison, best: Contender) -> list[str]:
    """From which size on it has led."""
    firsts = {r.size: r.contender for r in reversed(comparison.ranking)}
    leads = None
    for size in reversed(comparison.sizes):
        if firsts[size] != best:
            break
        leads = size
    if leads is None or len(comparison.sizes) < 2:
        return []
    if leads == comparison.sizes[0]:
        return [f"It leads at every size from {leads:,} {comparison.counted} on."]
    names = contender_names(comparison.contenders, comparison.titles)
    before = max(size for size in comparison.sizes if size < leads)
    better = names[firsts[before]]
    return [f"It leads from {leads:,} {comparison.counted} on; with {before:,} {better} does better."]


def _fewer(comparison: Comparison, names: Names) -> list[str]:
    """How many labels it saves against the best that starts from nothing."""
    assert comparison.best is not None
    best, largest = comparison.best.contender, comparison.sizes[-1]
    plain = [r for r in comparison.top() if r.start == "scratch"]
    if not plain or best.start == "scratch":
        return []
    sign = 1 if comparison.higher_is_better else -1
    for size in comparison.sizes[:-1]:
        mine = comparison.rank(best, size)
        if mine is not None and sign * mine.mean >= sign * plain[0].mean:
            who = names[plain[0].contender]
            return [
                f"With {size:,} {comparison.counted} its mean already reaches that of {who} with {largest:,}."
            ]
    return []


def _cheaper(comparison: Comparison, names: Names) -> list[str]:
    """A way that cannot be told from the best, for much less."""
    assert comparison.best is not None
    best, top, size = comparison.best.contender, comparison.top(), comparison.sizes[-1]
    spent = comparison.cost(best, size, "train_seconds")
    if top[0].contender == best:  # every p is of a gap to the first row: no other pair was tested
        equal = [r.contender for r in top[1:] if (r.p_value or 0) >= 0.05]
    else:
        equal = [top[0].contender] if (_of(top, best) or 0) >= 0.05 else []
    cheap = min(equal, key=lambda who: comparison.cost(who, size, "train_seconds"), default=None)
    if cheap is None or comparison.cost(cheap, size, "train_seconds") * 3 > spent:
        return []
    times = spent / max(comparison.cost(cheap, size, "train_seconds"), 1e-3)
    return [f"{names[cheap]} cannot be told from it on this test set and trains {times:,.0f} times as fast."]


def _of(top: Sequence[Rank], who: Contender) -> float | None:
    return next(r.p_value for r in top if r.contender == who)
