"""Language modelling as an evaluated task: what held-out text costs models, per word and per character.

Models are compared by the cost of the same text, whatever tokens they cut it into (Mielke 2019). So what
tokens leave open is charged too: how an unknown word is spelled, capitals that a codec does not read, and a
first token that nothing predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, fsum, isnan, log
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pretune.data.text_units import UNITS, count_words, one_spaced
from pretune.errors import UsageError, UserError
from pretune.methods.elmo import ElmoCodec
from pretune.methods.gpt.language import MARKS
from pretune.methods.gpt.tokens import GPTCodec
from pretune.metrics import capitals
from pretune.metrics.bootstrap import interval_of_sums
from pretune.metrics.spelling_model import SpellingModel
from pretune.runs.gpt_scorer import GPTScorer
from pretune.runs.language_model import LanguageModel, Perplexity, TextScore
from pretune.runs.masked_scorer import MaskedScorer
from pretune.runs.readings import Sentence, part_of
from pretune.runs.scorers import RowScorer
from pretune.runs.surfaces import kept, sentences_of, tokens_of, vocabulary
from pretune.training.progress import passed

Floats = NDArray[np.float64]
Way = Literal["forward", "backward", "mean", "masked"]
Texts = Callable[[], Iterable[Sentence]]  # documents, as often as asked for

PARTS: Final = ("predicted", "first", "spelling", "capitals")  # of the cost
GROUP: Final = 2**15  # characters at least that are scored together, so that texts find others of like length
MASKED_GROUP: Final = 2**12  # of a BERT, which reads a text once for each of its pieces


@dataclass(frozen=True)
class Reading:
    """What a model's reading of documents, one way, costs: nats of each, (D,)."""

    model: str
    method: str
    way: Way
    predicted: Floats  # what the model says of its tokens, and of ends of sentences inside a document
    first: Floats  # of tokens that nothing predicts: all of the vocabulary are alike
    spelling: Floats  # of words that the vocabulary lacks
    capitals: Floats  # of those that the codec does not read
    perplexity: float  # of the model's own tokens: not to be compared with other tokens
    tokens: int
    unknown: int
    changed: int  # characters that the codec changes or drops, case aside: not charged

    @property
    def nats(self) -> Floats:
        return self.predicted + self.first + self.spelling + self.capitals

    @property
    def pseudo(self) -> bool:
        """Whether tokens are given both sides: no probability of the text (Salazar et al. 2020)."""
        return self.way == "masked"


@dataclass(frozen=True)
class HeldOut:
    """Readings of the same documents by one or more models."""

    characters: Floats  # (D,)
    words: Floats  # (D,)
    readings: list[Reading]
    own: list[Perplexity]  # of each model's tokens
    seed: int = 0

    def per_character(self, reading: Reading) -> float:
        """Bits."""
        return fsum(reading.nats) / log(2) / fsum(self.characters)

    def interval(self, reading: Reading) -> tuple[float, float] | None:
        """95 % of `per_character`, by drawing documents; None of a single one."""
        return self._drawn(reading.nats)

    def beyond_first(self, reading: Reading) -> tuple[float, tuple[float, float] | None]:
        """Bits a character more than the first reading's; the interval draws the same documents for both."""
        more = reading.nats - self.readings[0].nats
        return fsum(more) / log(2) / fsum(self.characters), self._drawn(more)

    def _drawn(self, nats: Floats) -> tuple[float, float] | None:
        if len(nats) < 2:
            return None
        tallies = np.stack((nats / log(2), self.characters), 1)  # (D, 2)
        return interval_of_sums(lambda sums: float(sums[0] / sums[1]), tallies, seed=self.seed)

    def figures(self, reading: Reading) -> dict[str, Any]:
        """All that is said of a reading, as JSON has it."""
        nats, characters, words = fsum(reading.nats), fsum(self.characters), fsum(self.words)
        more, sure = self.beyond_first(reading)
        parts = {
            name: fsum(getattr(reading, name)) for name in ("predicted", "first", "spelling", "capitals")
        }
        return {
            "model": reading.model,
            "method": reading.method,
            "way": reading.way,
            "pseudo": reading.pseudo,
            "nats": nats,
            "bits": nats / log(2),
            "bits_per_character": self.per_character(reading),
            "interval": self.interval(reading),
            "beyond_first": more,
            "beyond_first_interval": sure,
            "perplexity_per_word": _perplexity(nats, words),
            "perplexity_per_character": _perplexity(nats, characters),
            "perplexity_per_token": reading.perplexity if reading.perplexity < float("inf") else None,
            "nats_of": parts,
            "tokens": reading.tokens,
            "unknown_tokens": reading.unknown,
            "unknown_share": reading.unknown / max(1, reading.tokens),
            "changed_characters": reading.changed,
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "documents": len(self.characters),
            "characters": int(fsum(self.characters)),
            "words": int(fsum(self.words)),
            "units": UNITS,
            "readings": [self.figures(reading) for reading in self.readings],
        }


def held_out(
    folders: Sequence[str | Path],
    texts: Texts,
    *,
    batch_size: int = 64,
    stride: int | None = None,
    device: str = "auto",
    seed: int = 0,
    quiet: bool = True,
) -> HeldOut:
    """Measure what language models left by `pretrain`, `adapt` or `import` make of documents.

    Each document is read alone, from its beginning to its end with all state: of ELMo its sentences one after
    another. A GPT reads windows that move by `stride` pieces, half a context if None. White space counts
    as one space. An ELMo has three readings: forward, backward, and the mean of both costs.
    """
    models = [LanguageModel.load(folder, device) for folder in folders]
    if stride is not None:
        if not any(isinstance(lm.start.codec, GPTCodec) for lm in models):
            raise UsageError("a stride is for windows of a GPT, and none is given; leave --stride out")
        models = [_striding(lm, stride) for lm in models]
    names = _names(folders)
    measured = [_Measured(lm, name, texts, batch_size, quiet) for lm, name in zip(models, names, strict=True)]
    first = measured[0]
    if any(other.characters != first.characters for other in measured):
        raise UserError("the texts changed while they were read; evaluate once more")
    readings = [reading for one in measured for reading in one.readings()]
    own = [one.perplexity for one in measured]
    return HeldOut(np.array(first.characters, float), np.array(first.words, float), readings, own, seed)


class _Measured:
    """One model's pass over the documents."""

    def __init__(self, lm: LanguageModel, name: str, texts: Texts, batch_size: int, quiet: bool) -> None:
        self.lm, self.name, self.batch_size = lm, name, batch_size
        self.codec = lm.start.codec
        self.spelling_model = SpellingModel(vocabulary(self.codec))
        self.outcomes = self.codec.size - (MARKS if isinstance(self.codec, GPTCodec) else 0)
        self.characters: list[int] = []
        self.words: list[int] = []
        self.spelling: list[float] = []
        self.predicted: dict[Way, list[float]] = {"forward": [], "backward": [], "masked": []}
        self.first: dict[Way, list[float]] = {"forward": [], "backward": [], "masked": []}
        self.case: list[tuple[NDArray[np.int64], int]] = []
        self.tokens = self.unknown = self.changed = 0
        documents = passed(filter(_text, map(_plain, texts())), f"{name} reads", quiet)
        self.perplexity = Perplexity.of(self._scores(documents))

    def _scores(self, documents: Iterable[Sentence]) -> Iterator[TextScore]:
        """All scores, each document's tallied before."""
        for some in self._groups(documents):
            for document, scores in zip(some, self._scored(some), strict=True):
                self._tally(document, scores)
                yield from scores

    def _groups(self, documents: Iterable[Sentence]) -> Iterator[list[Sentence]]:
        masked = isinstance(self.lm.scorer, MaskedScorer)
        least, most = (1, MASKED_GROUP) if masked else (self.batch_size, GROUP)
        some: list[Sentence] = []
        size = 0
        for document in documents:
            some.append(document)
            size += len(_text(document))
            if len(some) >= least and size >= most:
                yield some
                some, size = [], 0
        if some:
            yield some

    def _scored(self, documents: Sequence[Sentence]) -> list[list[TextScore]]:
        if not isinstance(self.codec, ElmoCodec):
            return [[score] for score in self.lm.score(documents, self.batch_size)]
        assert isinstance(self.lm.scorer, RowScorer)
        found: list[list[TextScore]] = [[] for _ in documents]
        parts = [sentences_of(self.codec, document) for document in documents]
        for at in range(0, len(parts), self.batch_size):
            for i, score in self.lm.scorer.in_turn(parts[at : at + self.batch_size]):
                found[at + i].append(score)
        return found

    def _tally(self, document: Sentence, scores: Sequence[TextScore]) -> None:
        text, tokens = _text(document), tokens_of(self.codec, document)
        known = [known for score in scores for known in score.known]
        missing = [token.spelled for token, has in zip(tokens, known, strict=True) if not has]
        read = kept(text, tokens)
        self.characters.append(len(text))
        self.words.append(count_words(text))
        self.spelling.append(fsum(map(self.spelling_model.nats, missing)))
        self.case.append(capitals.changes(read.read, text))
        self.tokens += len(tokens)
        self.unknown += len(missing)
        self.changed += read.changed
        for way in self.predicted:
            found = [_side(score, way) for score in scores]
            sides = [side for side, _ in found if side is not None]
            if sides:
                every = np.concatenate(sides)
                marks = [mark for _, mark in found[:-1] if not isnan(mark)]  # not of the document's end
                self.predicted[way].append(-fsum([*every[~np.isnan(every)], *marks]))
                self.first[way].append(int(np.isnan(every).sum()) * log(self.outcomes))

    def readings(self) -> list[Reading]:
        case = capitals.costs(
            np.stack([counts for counts, _ in self.case]), np.array([m for _, m in self.case])
        )
        ways: list[Way] = [way for way, nats in self.predicted.items() if nats]
        own = {"forward": self.perplexity.forward, "backward": self.perplexity.backward}
        found = [
            Reading(
                self.name,
                self.lm.start.method.name,
                way,
                np.array(self.predicted[way]),
                np.array(self.first[way]),
                np.array(self.spelling),
                case,
                own.get(way) or self.perplexity.value,
                self.tokens,
                self.unknown,
                self.changed,
            )
            for way in ways
        ]
        if len(found) == 2:
            both = (found[0].predicted + found[1].predicted) / 2
            found.append(replace(found[0], way="mean", predicted=both, perplexity=self.perplexity.value))
        return found


def _side(score: TextScore, way: Way) -> tuple[Floats | None, float]:
    """Nats of a text's tokens, and of the mark that is predicted behind them."""
    if way == "forward":
        return score.forward, score.end
    if way == "backward":
        return score.backward, score.start
    return score.around, float("nan")


def _plain(document: Sentence) -> Sentence:
    """One space for each white space; words that are given stay words."""
    if isinstance(document, str):
        return one_spaced(document)
    return [word for word in map(one_spaced, document) if word]


def _text(document: Sentence) -> str:
    return document if isinstance(document, str) else part_of(document).text


def _striding(lm: LanguageModel, stride: int) -> LanguageModel:
    codec = lm.start.codec
    return replace(lm, scorer=GPTScorer(lm.model, codec, stride)) if isinstance(codec, GPTCodec) else lm


def _names(folders: Sequence[str | Path]) -> list[str]:
    """The last names of folders, where they tell them apart."""
    short = [Path(folder).name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _perplexity(nats: float, units: float) -> float | None:
    """None where it overflows, or there are no such units."""
    return exp(nats / units) if units and nats / units < 700 else None
