"""Exact match and F1 of answers, as SQuAD's and CMRC 2018's scripts count them; the no-answer threshold."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

Scorer = Callable[[str, str], tuple[float, float]]  # gold, answer -> exact match, F1

ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
IDEOGRAPH: Final = re.compile("[\u4e00-\u9fa5]")
SIGNS: Final = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")  # of CMRC's script
WORD: Final = re.compile(r"\w+(?:[.,'&]\w+)*|[^\w\s]")


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", bare).split())


def squad(gold: str, answer: str) -> tuple[float, float]:
    """EM and F1 over words, as version 2.0's script: a blank equals nothing but a blank."""
    gold, answer = normalised(gold), normalised(answer)
    wanted, said = gold.split(), answer.split()
    if not wanted or not said:
        return (float(wanted == said),) * 2
    common = (Counter(wanted) & Counter(said)).total()
    return float(gold == answer), 2 * common / (len(wanted) + len(said))


def cmrc(gold: str, answer: str) -> tuple[float, float]:
    """EM and F1 by the longest stretch in common, of Chinese characters and other words.

    The script splits what is not Chinese by nltk; here a word is letters and digits with signs between them,
    and other signs stand alone.
    """
    exact = _without_signs(gold) == _without_signs(answer)
    wanted, said = mixed(gold), mixed(answer)
    common = longest_stretch(wanted, said)
    return float(exact), 2 * common / (len(wanted) + len(said)) if common else 0.0


def mixed(text: str) -> list[str]:
    """Each Chinese character, and words of the rest; CMRC's signs are left out."""
    found: list[str] = []
    rest = ""
    for letter in text.lower().strip():
        if letter in SIGNS:
            continue
        if IDEOGRAPH.match(letter):
            found += [*WORD.findall(rest), letter]
            rest = ""
        else:
            rest += letter
    return [*found, *WORD.findall(rest)]


def _without_signs(text: str) -> str:
    return "".join(letter for letter in text.lower().strip() if letter not in SIGNS)


def longest_stretch(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest run of units that both have."""
    best, before = 0, [0] * (len(other) + 1)
    for unit in one:
        now = [0] * (len(other) + 1)
        for j, theirs in enumerate(other, 1):
            if unit == theirs:
                now[j] = before[j - 1] + 1
        best, before = max(best, *now), now
    return best


def best_of(golds: Sequence[str], answer: str, scorer: Scorer) -> tuple[float, float]:
    """EM and F1 with the gold that each is highest with; without golds, whether nothing was answered.

    Golds of which normalising leaves nothing are none, as in SQuAD 2.0's script.
    """
    if scorer is squad:
        golds = [gold for gold in golds if normalised(gold)]
    found = [scorer(gold, answer) for gold in golds] or [(float(not answer.strip()),) * 2]
    exact, f1 = zip(*found, strict=True)
    return max(exact), max(f1)


def best_threshold(differences: Sequence[float], f1: Sequence[float], answerable: Sequence[bool]) -> float:
    """The largest difference (no answer's score minus the best answer's) up to which answering pays.

    `f1` is each question's if it is answered. Above the threshold nothing is answered; the walk is that of
    SQuAD 2.0's script: where none pays, the threshold is below all.
    """
    order = sorted(range(len(differences)), key=differences.__getitem__)
    score = best = float(len(answerable) - sum(answerable))
    threshold = min(differences) - 1.0
    for place, i in enumerate(order):
        score += f1[i] if answerable[i] else -1.0
        last = place + 1 == len(order) or differences[order[place + 1]] > differences[i]  # ties go together
        if score > best and last:
            best, threshold = score, differences[i]
    return threshold
