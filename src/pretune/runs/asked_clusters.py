"""Coreference as `compare` sees it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pretune.data.documents import read_documents
from pretune.data.samples import Sample, Span
from pretune.data.splits import same_text
from pretune.data.tables import Table
from pretune.errors import UserError
from pretune.metrics.coref_errors import by_distance, by_size
from pretune.metrics.tag_errors import by_length_of
from pretune.runs.asked_base import READING, Asked, Pictures, Read, given
from pretune.runs.comparison import Breakdown

if TYPE_CHECKING:
    from pretune.tasks.base import Task
    from pretune.tasks.coref import Coref

MOST = 6  # clusters of a document that are said, the largest


def _read(path: Path | Table, kind: str | None, reading: Mapping[str, Any], first: Read | None) -> Read:
    assert isinstance(path, Path)  # see `tables`
    found = read_documents(path, **given(reading, READING))
    return Read(found.samples, "clusters", {"kind": "clusters"}, list(found.notes))


def _kind(samples: Sequence[Sample]) -> str:
    for sample in samples:
        if len(sample.parts) != 1 or not isinstance(sample.gold, tuple):
            raise UserError(f"sample {sample.key!r}: coref needs one text, and a tuple of clusters of spans")
    return "clusters"


def _said(task: Task, sample: Sample, clusters: Any) -> str:
    """The largest clusters of several mentions, each string of them once."""
    text = sample.texts[0]
    several = sorted((x for x in clusters if len(x) > 1), key=len, reverse=True)
    found = [
        " = ".join(dict.fromkeys(" ".join(text[start:end].split()) for start, end in cluster))
        for cluster in several[:MOST]
    ]
    return "; ".join([*found, "…"] if len(several) > MOST else found) or "nothing linked"


def _pictures(
    task: Task, samples: Sequence[Sample], golds: Sequence[Any], answers: Sequence[Any]
) -> Pictures:
    from pretune.tasks.coref import words_under

    words = [cast("Coref", task).words_of(sample) for sample in samples]
    true, said = ([[[Span(*m) for m in some] for some in one] for one in side] for side in (golds, answers))

    def between(document: int, before: Span, after: Span) -> int:
        starts = [bisect_left(words[document], x, key=lambda w: w.start) for x in (before.end, after.start)]
        return max(0, starts[1] - starts[0])

    def length(mention: tuple[int, Span]) -> int:
        first, last = words_under(words[mention[0]], mention[1])
        return last - first + 1

    mentions = [
        [{(n, m) for some in one for m in some} for n, one in enumerate(side)] for side in (true, said)
    ]
    return {
        "breakdowns": [
            Breakdown(
                "Clusters of which size does it find?",
                "Found are mentions that it has at all; together is how much of its cluster a mention has "
                "beside it, the recall of B³.",
                ["mentions of the cluster", "clusters", "mentions", "found", "together"],
                [list(x) for x in by_size(true, said)],
            ),
            Breakdown(
                "Links over which distance does it find?",
                "From a mention to the last one of its cluster before it. A link is found where both sides "
                "agree that the mention goes back to an earlier one of its cluster.",
                ["words between", "links", "found"],
                [list(x) for x in by_distance(true, said, between)],
            ),
            Breakdown(
                "Mentions of which length does it find?",
                "Whatever cluster they are in.",
                ["words", "true", "answered", "F1"],
                [list(x) for x in by_length_of(mentions[0], mentions[1], length)],
            ),
        ]
    }


CLUSTERS = Asked(
    _read,
    _kind,
    lambda learn, check, kind: [],
    tables=False,
    baseline="strings",
    counted="documents",
    together=same_text,
    side_by_side=True,
    recipe={"batch_size": 1},
    said=_said,
    pictures=_pictures,
)
