"""What a comparison recommends, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pretune.runs.comparison import (
    Comparison,
    Contender,
    Rank,
    bytes_text,
    contender_names,
    count_text,
    p_text,
    seconds_text,
    style,
)


def recommend(comparison: Comparison) -> str:
    """Plain sentences: what to use, how sure that is, from how many labels, at which cost."""
    assert comparison.best is not None
    best, say, top = comparison.best.contender, style(comparison.metric), comparison.top()
    names, size = contender_names(comparison.contenders, comparison.titles), comparison.sizes[-1]
    mine = comparison.rank(best, size)
    assert mine is not None
    metric, spent = comparison.metric.replace("_", " "), f"{size:,} {comparison.counted}"
    sentences = [f"Use {names[best]}: {say(mine.mean)} {metric} with {spent}{_lead(comparison, names)}."]
    if top[0].contender != best:
        sentences.append(
            f"Validation data chose it; on the test data {names[top[0].contender]} has {say(top[0].mean)} "
            f"({'no significant difference, ' if (mine.p_value or 1) >= 0.05 else ''}p {_p(mine.p_value)})."
        )
    sentences += _from_size(comparison, best) + _fewer(comparison, names) + _cheaper(comparison, names)
    seconds, memory, speed = (
        comparison.cost(best, size, what)
        for what in ("train_seconds", "peak_memory_bytes", "predictions_per_second")
    )
    sentences.append(
        f"One training takes {seconds_text(seconds)} and {bytes_text(memory)} of memory; "
        f"it answers {count_text(speed)} samples a second."
    )
    return " ".join(sentences)


def _lead(comparison: Comparison, names: Mapping[Contender, str]) -> str:
    """How far before the second, where the chosen one is first."""
    top, say = comparison.top(), style(comparison.metric)
    assert comparison.best is not None
    if len(top) < 2 or top[0].contender != comparison.best.contender:
        return ""
    gap = abs(top[0].mean - top[1].mean)
    points = f"{gap * say.scale:.{say.digits}f}" + (" points" if say.scale == 100 else "")
    other, p = names[top[1].contender], top[1].p_value
    if p is not None and p >= 0.05:
        return f", not significantly better than {other} ({say(top[1].mean)}, p {_p(p)})"
    word = "above" if comparison.higher_is_better else "below"
    return f", {points} {word} {other} (p {_p(p)})"


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


def _fewer(comparison: Comparison, names: Mapping[Contender, str]) -> list[str]:
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


def _cheaper(comparison: Comparison, names: Mapping[Contender, str]) -> list[str]:
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
