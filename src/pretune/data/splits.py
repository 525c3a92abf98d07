"""Splits and subsamples: stratified, seeded, equal on every machine; and what ails train and test."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from pretune.data.files import listed, shown
from pretune.data.golds import LabelKind
from pretune.data.samples import Sample
from pretune.errors import UsageError, UserError
from pretune.keys import key

BINS = 10  # quantile bins that stand for classes where golds are numbers

Together = Callable[[Sample], Hashable]  # equal for samples that are never parted


def split(
    samples: Sequence[Sample],
    fraction: float,
    seed: int,
    stratify: bool = True,
    together: Together | None = None,
) -> tuple[list[Sample], list[Sample]]:
    """(rest, held out), both in the order of `samples`; at least one sample each.

    Each class gives its share by the largest remainder, but never its last sample: a class too small for a
    share stays in the rest (`check_labels` notes it). Numbers are stratified by quantile, sets by their first
    label. Of samples that are equal by `together` all are held out or none, and the fraction is of what is
    together; where all are equal each stands alone.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the held-out fraction is {fraction}; give one between 0 and 1, such as 0.1")
    units = list({together(sample): sample for sample in samples}.values()) if together else []
    if together and len(units) > 1:
        apart = {together(sample) for sample in split(units, fraction, seed, stratify)[1]}
        return (
            [sample for sample in samples if together(sample) not in apart],
            [sample for sample in samples if together(sample) in apart],
        )
    if len(samples) < 2:
        raise UserError(f"{source(samples)}{len(samples)} row cannot be split; give more rows or a test file")
    classes = strata(samples) if stratify else [0] * len(samples)
    members: dict[Hashable, list[int]] = {}
    for i in sorted(range(len(samples)), key=lambda i: key(seed, "split", i)):
        members.setdefault(classes[i], []).append(i)
    wanted = min(max(round(fraction * len(samples)), 1), len(samples) - 1)
    shares = largest_remainder({name: len(found) for name, found in members.items()}, wanted)
    held = {i for name, share in shares.items() for i in members[name][:share]}
    held = held or {
        min(range(len(samples)), key=lambda i: key(seed, "split", i))
    }  # every class has one sample
    rest = [sample for i, sample in enumerate(samples) if i not in held]
    return rest, [samples[i] for i in sorted(held)]


def largest_remainder(sizes: dict[Hashable, int], wanted: int) -> dict[Hashable, int]:
    """`wanted` dealt out in proportion to `sizes`, each class keeping at least one."""
    quotas = {name: wanted * size / sum(sizes.values()) for name, size in sizes.items()}
    shares = {name: min(int(quota), sizes[name] - 1) for name, quota in quotas.items()}
    order = sorted(sizes, key=lambda name: (int(quotas[name]) - quotas[name], -sizes[name], str(name)))
    while sum(shares.values()) < wanted and any(shares[name] < sizes[name] - 1 for name in order):
        for name in order:
            if sum(shares.values()) < wanted and shares[name] < sizes[name] - 1:
                shares[name] += 1
    return shares


def subsample(
    samples: Sequence[Sample], size: int, seed: int, together: Together | None = None
) -> list[Sample]:
    """`size` samples in their given order; a smaller size with the same seed is a subset of a larger one.

    One order serves all sizes, whence the nesting: first one sample of each class, the largest class first;
    then the j-th of a class of n stands at (j + 1/2) / n, so that every prefix keeps the proportions. With
    `together` there are no classes: what is equal by it comes one after the other, so that only the last
    of them may be cut.
    """
    if not 1 <= size <= len(samples):
        raise UsageError(f"{source(samples)}{size} rows asked for; there are {len(samples)}")
    if together is not None:
        unit: dict[Hashable, int] = {}
        units = [unit.setdefault(together(sample), len(unit)) for sample in samples]
        order = sorted(range(len(samples)), key=lambda i: (key(seed, "subsample", units[i]), units[i], i))
        return [samples[i] for i in sorted(order[:size])]
    classes = strata(samples)
    sizes = Counter(classes)
    seen: Counter[Hashable] = Counter()
    places: list[tuple[int, float, int, int]] = []
    for draw, i in sorted((key(seed, "subsample", i), i) for i in range(len(samples))):
        name = classes[i]
        first = seen[name] == 0
        place = -sizes[name] if first else (seen[name] + 0.5) / sizes[name]
        places.append((not first, place, draw, i))
        seen[name] += 1
    return [samples[i] for i in sorted(place[-1] for place in sorted(places)[:size])]


def strata(samples: Sequence[Sample]) -> list[Hashable]:
    """What each sample is stratified by: its label, the first of its labels, or the decile of its number."""
    numbers = sorted(sample.gold for sample in samples if isinstance(sample.gold, float))
    bins = min(BINS, len(numbers) // 2)
    edges = [numbers[len(numbers) * b // bins] for b in range(1, bins)]

    def stratum(gold: object) -> Hashable:
        if isinstance(gold, float):
            return bisect_right(edges, gold)
        if isinstance(gold, tuple):
            return gold[0] if gold else None
        return str(gold)

    return [stratum(sample.gold) for sample in samples]


def without_leaks(train: Sequence[Sample], test: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """`train` without the texts that also stand in `test`, and what was removed.

    Texts are the same if they are so after Unicode normalisation (NFC), without case, and with all white
    space as one space.
    """
    tested = {same_text(sample) for sample in test}
    clean, leaked = [], []
    for sample in train:
        if same_text(sample) in tested:
            leaked.append(sample.key)
        else:
            clean.append(sample)
    if not clean:
        where = source(test).removesuffix(": ") or "the test set"
        raise UserError(f"{source(train)}every text also stands in {where}; give other rows to train on")
    if not leaked:
        return clean, []
    count = f"{len(leaked)} training row{'s' * (len(leaked) > 1)}"
    return clean, [f"{source(train)}{count} removed, of the same text as a test row ({listed(leaked, 3)})"]


def same_text(sample: Sample) -> tuple[str, ...]:
    """What is equal for texts that a reader would call the same."""
    folded = (unicodedata.normalize("NFC", text).casefold() for text in sample.texts)
    return tuple(" ".join(unicodedata.normalize("NFC", text).split()) for text in folded)


def check_labels(train: Sequence[Sample], test: Sequence[Sample], kind: LabelKind) -> list[str]:
    """Notes on labels that train and test do not share, and on equal texts with different labels.

    Raises where there is nothing to learn: no rows, or the same gold on every row. Test samples whose label
    was never trained stay, and count as errors.
    """
    golds = {sample.gold for sample in train}
    if len(golds) < 2:
        found = f"{len(train)} training row{'s' * (len(train) != 1)}"
        if golds:
            found += f", all with the {'number' if kind == 'number' else 'label'} {gold_name(*golds)}"
        raise UserError(f"{source(train)}{found}; nothing to tell apart, give rows of two or more labels")
    notes = conflicts(train)
    if kind == "number" or not test:
        return notes
    trained, tested = count_labels(train), count_labels(test)
    unseen = [f"{shown(name, 24)} {tested[name]}" for name in sorted(tested.keys() - trained.keys())]
    if unseen:
        notes.append(f"{source(test)}labels never seen in training count as errors: {listed(unseen)}")
    untested = [shown(name, 24) for name in sorted(trained.keys() - tested.keys())]
    if untested:
        notes.append(
            f"{source(test)}no held-out example of {len(untested)} trained "
            f"label{'s' * (len(untested) != 1)}: {listed(untested)}"
        )
    return notes


def conflicts(train: Sequence[Sample]) -> list[str]:
    """A note on training rows of equal text and different gold; they are kept."""
    same: dict[tuple[str, ...], list[Sample]] = {}
    for sample in train:
        same.setdefault(same_text(sample), []).append(sample)
    torn = [group for group in same.values() if len({sample.gold for sample in group}) > 1]
    if not torn:
        return []
    where = listed([" and ".join(sample.key for sample in group[:2]) for group in torn], 3)
    count = f"{len(torn)} text{'s' * (len(torn) > 1)}"
    return [f"{source(train)}{count} in training with different labels, kept ({where})"]


def count_labels(samples: Sequence[Sample]) -> Counter[str]:
    return Counter(
        name for s in samples for name in (s.gold if isinstance(s.gold, tuple) else (str(s.gold),))
    )


def gold_name(gold: object) -> str:
    if isinstance(gold, tuple):
        return " + ".join(shown(name, 24) for name in gold) or "(none of the labels)"
    return f"{gold:g}" if isinstance(gold, float) else shown(gold, 24)


def source(samples: Sequence[Sample]) -> str:
    """ "file: ", where the samples come from one; for the start of a message."""
    names = {sample.key.rpartition(":")[0] or sample.key.partition("/")[0] for sample in samples}
    return f"{names.pop()}: " if len(names) == 1 and "" not in names else ""
