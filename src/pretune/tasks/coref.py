"""Coreference: which mentions of a document are of the same person or thing?"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pretune.data.documents import Clusters, in_order
from pretune.data.rows import Codec, Row
from pretune.data.samples import Part, Sample, Span
from pretune.data.segment import Segmenter, guess_language, segmenter
from pretune.data.sentences import sentence_spans
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.metrics.classification import LabelScores
from pretune.metrics.coreference import METRICS, scores_of, tallies
from pretune.tasks.base import Answer, Golds, Scores, Task
from pretune.tasks.coref_head import CorefHead
from pretune.tasks.segments import BySentence, Range, encoded, longest, measuring, segments
from pretune.tasks.words import Token, tokens_read

Reading = Literal["method", "document", "sentences"]


@dataclass(frozen=True)
class Coref(Task):
    """Which mentions of a document are of the same person or thing?

    Golds are clusters, each a tuple of spans of characters; so are the answers' `clusters`. Every span of up
    to `max_width` words within a sentence is a candidate; the best λM of a document of M words are kept, and
    each is linked to an earlier one or to none (Lee et al. 2017, 2018). The score is CoNLL's: the mean F1 of
    MUC, B³ and CEAF-e.

        task = Coref.of(train)

    The encoder reads a document in rows: whole where it can, else in segments of whole sentences. Words are
    put together again before spans are, so rows limit what a word's vector knows, not where mentions are or
    what they go back to. Sentences are the sample's `marks`; without any they are found by end marks.
    """

    golds: ClassVar[Golds] = "clusters"

    max_width: int = 10
    """Most words of a mention: 10 as ELMo's task model has it; Lee et al. (2018) take 30."""
    spans_per_word: float = 0.4
    """λ: how many spans are kept for each word of the document."""
    antecedents: int = 50
    """K: how many earlier spans are looked at closely for each span kept, the best by a bilinear score."""
    order: int = 1
    """2: a span takes up what its likely antecedents say and is scored again (Lee et al. 2018)."""
    hidden: int = 150
    """Units of both layers of the networks that score spans and pairs."""
    feature: int = 20
    """Numbers that stand for a span's width, and for a pair's distance."""
    dropout: float = 0.2
    """On the words' vectors and in these networks."""
    singletons: bool = False
    """Whether mentions without an antecedent are answers too: a kept span that is linked to nothing, and
    whose mention score is above zero, is then a cluster of its own. Guessed from the training samples."""
    mention_weight: float = 1.0
    """Of the binary cross-entropy of every candidate's mention score beside the loss of antecedents (Zhang et
    al. 2018). With 0, as Lee et al. have it, only kept spans learn: where all mentions of a small data set
    are pruned nothing brings them back."""
    reading: Reading = "method"
    """What a row is: method, a sentence for ELMo, as it was pretrained and as its authors read it, else
    document: as much as the encoder reads at a time; or sentences, one each."""
    segment: int | None = None
    """Most tokens of a row; none: as many as the encoder reads. Of BERT 128 or 384 were best (Joshi et al.
    2019)."""
    token: Token = "mean"
    """What a word is read off: its first or last token, or the mean of all."""
    language: str = "en"
    """Of the texts, to find words by; guessed from the training samples."""
    segmenter: str | None = None
    """How words of unsplit texts are found: words, characters, jieba, spaces, or your own module:function;
    none: the language's own."""

    def __post_init__(self) -> None:
        for name, possible in (("reading", Reading), ("token", Token)):
            if getattr(self, name) not in get_args(possible):
                raise choose(f"task.{name}", getattr(self, name), get_args(possible))
        if self.mention_weight < 0 or (self.singletons and not self.mention_weight):
            raise UsageError(
                f"task.mention_weight is {self.mention_weight}; it must be 0 or more, and above 0 with "
                "task.singletons, which are found by mention scores"
            )
        for name in ("max_width", "antecedents", "hidden", "feature"):
            if getattr(self, name) < 1:
                raise UsageError(f"task.{name} is {getattr(self, name)}; it must be at least 1")
        if self.order not in (1, 2):
            raise UsageError(f"task.order is {self.order}; it is 1 or 2")
        if self.spans_per_word <= 0:
            raise UsageError(f"task.spans_per_word is {self.spans_per_word}; it must be above 0")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"task.dropout is {self.dropout}; it must be from 0 to below 1")
        if self.segment is not None and self.segment < 8:
            raise UsageError(f"task.segment is {self.segment}; it must be at least 8 tokens")

    @classmethod
    def of(cls, samples: Sequence[Sample], kind: str = "clusters", **options: Any) -> Coref:
        """The task that these training samples ask: whether clusters of one count, and the language."""
        if kind != "clusters":
            raise UsageError(f"--kind is {kind}, which is for classification; coreference has clusters")
        clusters = [cluster for sample in samples for cluster in sample.gold or ()]
        if all(len(cluster) < 2 for cluster in clusters):
            raise UserError("no training document has a cluster of two mentions, so there is nothing to link")
        guessed = {
            "singletons": any(len(cluster) == 1 for cluster in clusters),
            "language": guess_language(text[:10_000] for sample in samples for text in sample.texts),
        }
        return cls(**{**guessed, **options})

    @property
    def metric(self) -> str:
        return "conll_f1"

    def words_of(self, sample: Sample) -> tuple[Span, ...]:
        """As the sample came, else as the segmenter finds them."""
        if len(sample.parts) != 1:
            raise UserError(
                f"sample {sample.key!r} has {len(sample.parts)} texts; coreference reads one at a time"
            )
        part = sample.parts[0]
        return part.words or _found_words(self.language, self.segmenter, part.text)

    def sentences_of(self, sample: Sample) -> list[Range]:
        """Of each sentence its words; every word is in one."""
        text, words = sample.parts[0].text, self.words_of(sample)
        begins = [mark.start for mark in sample.marks] or [start for start, _ in _found_sentences(text)]
        firsts = [bisect_left(words, begin, key=lambda word: word.start) for begin in begins[1:]]
        cuts = sorted({0, len(words), *firsts})
        return list(pairwise(cuts))

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        """Documents, segments or sentences, in the order of the text."""
        single = self.reading == "sentences" or (self.reading == "method" and isinstance(codec, BySentence))
        most = longest(codec, self.segment)
        measure = codec if most is None else measuring(codec)
        found = []
        for sample in samples:
            part = Part(sample.parts[0].text, self.words_of(sample))
            if not part.words:
                found.append(encoded(codec, part, [(0, 0)]))
                continue
            ranges = self.sentences_of(sample)
            if not single:
                ranges = segments(measure, part, ranges, most)
            elif most is not None:
                ranges = [x for one in ranges for x in segments(measure, part, [one], most)]
            found.append(encoded(codec, part, ranges))
        return found

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`tokens` (K, 3): row, token and word of each that is read; of each of the batch's M words its
        `document` and its `sentence` (M,), both counted through the batch.
        """
        words = [self.words_of(sample) for sample in samples]
        document = [b for b, own in enumerate(words) for _ in own]
        lengths = [end - start for sample in samples for start, end in self.sentences_of(sample)]
        sentence = [number for number, length in enumerate(lengths) for _ in range(length)]
        return {
            "tokens": tokens_read(words, rows, self.token),
            "document": torch.tensor(document, dtype=torch.long),
            "sentence": torch.tensor(sentence, dtype=torch.long),
        }

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`mentions` (G, 3): first and last word, counted through the batch, and the cluster, from 1.

        A mention takes the words with which it shares characters; of one that comes twice the first stays.
        """
        found: dict[Range, int] = {}
        clusters = before = 0
        for sample in samples:
            words = self.words_of(sample)
            for cluster in _checked(sample):
                clusters += 1
                for mention in cluster:
                    first, last = words_under(words, mention)
                    if first <= last:
                        found.setdefault((before + first, before + last), clusters)
            before += len(words)
        mentions = [(*span, cluster) for span, cluster in found.items()]
        return {"mentions": torch.tensor(mentions, dtype=torch.long).view(-1, 3)}

    def head(self, encoder: Encoder) -> CorefHead:
        return CorefHead(self, encoder.width)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        """Each kept span joins the cluster of its best antecedent, if that is likelier than none."""
        words = [(b, span) for b, sample in enumerate(samples) for span in self.words_of(sample)]
        links = F.pad(scores["scores"], (1, 0)).argmax(1).tolist()  # 0 for none, (P,)
        likely = (scores["mention"] > 0).tolist()
        found: list[list[tuple[list[Span], bool]]] = [
            [] for _ in samples
        ]  # clusters; whether one alone counts
        own: list[list[Span]] = []  # the cluster of each span
        for i, (first, last) in enumerate(scores["spans"].tolist()):
            b, word = words[first]
            if links[i]:
                own.append(own[int(scores["antecedents"][i, links[i] - 1])])
            else:
                own.append([])
                found[b].append((own[i], self.singletons and likely[i]))
            own[i].append(Span(word.start, words[last][1].end))
        return [Answer(clusters=in_order([x for x, alone in some if alone or len(x) > 1])) for some in found]

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        """As the official scorer: singletons of either side count as they stand."""
        return self.scores_of(self.tallies(golds, answers).sum(0))

    def tallies(self, golds: Sequence[Any], answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Per document, what `scores_of` makes scores of when added up."""
        return tallies(golds, [answer.clusters or () for answer in answers])

    def scores_of(self, total: NDArray[np.float64]) -> dict[str, float]:
        return {name: score for name, score in scores_of(total).items() if name.endswith("_f1")}

    def by_label(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, LabelScores]:
        """Precision and recall of each metric, and of how many links, mentions or clusters."""
        total = self.tallies(golds, answers).sum(0)
        found = scores_of(total)
        return {
            name: LabelScores(
                found[f"{name}_precision"],
                found[f"{name}_recall"],
                found[f"{name}_f1"],
                round(total[4 * n + 1]),
            )
            for n, name in enumerate((*METRICS, "mention"))
        }


def words_under(words: Sequence[Span], mention: Span) -> Range:
    """The first and the last word that share characters with a mention; there is none where last < first."""
    first = bisect_right(words, mention[0], key=lambda word: word.end)
    return first, bisect_left(words, mention[1], key=lambda word: word.start) - 1


def _checked(sample: Sample) -> Clusters:
    """Its clusters, each mention within the text."""
    length = len(sample.parts[0].text)
    if sample.gold is None:
        raise UserError(f"sample {sample.key!r} has no clusters to learn from")
    for cluster in sample.gold:
        for start, end in cluster:
            if not 0 <= start < end <= length:
                raise UserError(
                    f"sample {sample.key!r} has a mention from {start} to {end} in a text of {length} "
                    "characters; spans are (start, end), the end exclusive"
                )
    clusters: Clusters = sample.gold
    return clusters


@lru_cache(maxsize=8)
def _segmenter(language: str, name: str | None) -> Segmenter:
    return segmenter(language, name)


@lru_cache(maxsize=256)
def _found_words(language: str, name: str | None, text: str) -> tuple[Span, ...]:
    return tuple(_segmenter(language, name)(text))


@lru_cache(maxsize=256)
def _found_sentences(text: str) -> tuple[Span, ...]:
    return sentence_spans(text)
