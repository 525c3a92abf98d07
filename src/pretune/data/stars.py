"""Words that a text points at, between asterisks: "They *play* ." -> the text without them, and a mark."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from pretune.data.samples import Part, Sample, Span
from pretune.errors import UserError

STARRED: Final = re.compile(r"([^*]*)\*([^*]*[^*\s][^*]*)\*([^*]*)")


def unstarred(sample: Sample) -> Sample:
    """With a mark for each part, of that part's characters; as it is where it has its marks."""
    if sample.marks:
        if len(sample.marks) != len(sample.parts):
            raise UserError(
                f"sample {sample.key!r} has {len(sample.marks)} marks for {len(sample.parts)} texts; one each"
            )
        return sample
    parts, marks = [], []
    for text in sample.texts:
        found = STARRED.fullmatch(text)
        if found is None:
            raise UserError(
                f"sample {sample.key!r}: {text!r:.60} has no word between two asterisks; write it as *word*"
            )
        parts.append(Part("".join(found.groups())))
        marks.append(Span(found.end(1), found.end(1) + len(found[2])))
    return replace(sample, parts=tuple(parts), marks=tuple(marks))
