"""Semantic roles: the arguments that tags mark, and how many were found, as CoNLL-2005's srl-eval.pl counts.

Tags are BIO, one a word: `B-ARG0 I-ARG0 B-V B-ARG1 O B-C-ARG1`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pretune.errors import UserError
from pretune.metrics.classification import LabelScores
from pretune.metrics.tagging import Tags, chunks, share

VERB: Final = "V"  # the predicate itself, which is given and counts for nothing
CONTINUES: Final = "C-"


@dataclass(frozen=True)
class Argument:
    """A role and the words that have it, in several pieces where others stand between."""

    role: str
    pieces: tuple[tuple[int, int], ...]  # words, end exclusive


def arguments(tags: Tags) -> list[Argument]:
    """The arguments of one predicate, without the predicate itself.

    A piece C-X goes on with the last X before it; where there is none it is an X. A reference R-X is a role
    of its own. An argument in pieces is one argument.
    """
    found: list[tuple[str, list[tuple[int, int]]]] = []
    last: dict[str, list[tuple[int, int]]] = {}
    for start, end, kind in chunks(tags, "iob2"):
        role = kind.removeprefix(CONTINUES)
        if role != kind and role in last:
            last[role].append((start, end))
        else:
            last[role] = [(start, end)]
            found.append((role, last[role]))
    return [Argument(role, tuple(pieces)) for role, pieces in found if role != VERB]


def tallies(golds: Sequence[Tags], answers: Sequence[Tags]) -> NDArray[np.int64]:
    """What scores are made of, per predicate, to be added up: (predicates, 5).

    Arguments right, said, true; whether all are right and no others said; 1. An argument is right where role
    and pieces are.
    """
    if len(golds) != len(answers) or not len(golds):
        raise UserError(f"cannot score {len(answers)} answers against {len(golds)} golds")
    rows = np.zeros((len(golds), 5), dtype=np.int64)
    for row, gold, answer in zip(rows, golds, answers, strict=True):
        if len(gold) != len(answer):
            raise UserError(f"cannot score {len(answer)} tags against {len(gold)}: one a word is needed")
        true, said = set(arguments(gold)), set(arguments(answer))
        row[:] = len(true & said), len(said), len(true), true == said, 1
    return rows


def scores_of(total: Sequence[int] | NDArray[np.int64]) -> dict[str, float]:
    """Scores over all predicates from tallies added up: (5,). 0 where there was nothing to divide by."""
    right, said, true, perfect, predicates = map(int, total)
    return {
        "argument_f1": share(2 * right, said + true),
        "argument_precision": share(right, said),
        "argument_recall": share(right, true),
        "perfect": share(perfect, predicates),
    }


def by_role(golds: Sequence[Tags], answers: Sequence[Tags]) -> dict[str, LabelScores]:
    """How well arguments of each role are found."""
    right, said, true = Counter[str](), Counter[str](), Counter[str]()
    for gold, answer in zip(golds, answers, strict=True):
        own, theirs = set(arguments(gold)), set(arguments(answer))
        right.update(one.role for one in own & theirs)
        said.update(one.role for one in theirs)
        true.update(one.role for one in own)
    return {
        role: LabelScores(
            share(right[role], said[role]),
            share(right[role], true[role]),
            share(2 * right[role], said[role] + true[role]),
            true[role],
        )
        for role in sorted({*said, *true})
    }
