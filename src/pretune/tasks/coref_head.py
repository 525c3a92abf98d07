"""The head of coreference: words of documents -> spans, and what each goes back to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.encoder import Encoded
from pretune.layers.spans import Links, PairScorer, SpanScorer, antecedent_loss, best_spans
from pretune.tasks.base import Head, Scores
from pretune.tasks.words import word_vectors
from pretune.tensors.batch import Batch

if TYPE_CHECKING:
    from pretune.tasks.coref import Coref


class CorefHead(Head):
    """The top layer at the words -> spans and their links, document by document, so that memory is one
    document's at a time.

    Scores: `spans` (P, 2), first and last word, and how likely each is a `mention` (P,); `antecedents` and
    `scores` (P, K) as `Links` has them, counted through the batch; all `candidates` (S, 2) and their
    `candidate_scores` (S,).
    """

    def __init__(self, task: Coref, width: int) -> None:
        super().__init__()
        self.task = task
        self.dropout = nn.Dropout(task.dropout)
        self.spans = SpanScorer(width, task.max_width, task.hidden, task.feature, task.dropout)
        self.pairs = PairScorer(
            self.spans.width, task.hidden, task.feature, task.dropout, task.antecedents, task.order
        )

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        words = word_vectors(encoded.layers[-1], batch.given["tokens"])  # (M, D)
        found = []
        words_before = spans_before = 0
        for count in torch.bincount(batch.given["document"], minlength=batch.samples).tolist():
            own = slice(words_before, words_before + count)
            said = self._document(words[own], batch.given["sentence"][own])
            for name in ("spans", "candidates"):
                said[name] = said[name] + words_before
            none = said["antecedents"] < 0
            said["antecedents"] = (said["antecedents"] + spans_before).masked_fill(none, -1)
            words_before += count
            spans_before += len(said["spans"])
            found.append(said)
        most = max(x["scores"].shape[1] for x in found)
        for said in found:
            short = (0, most - said["scores"].shape[1])
            said["scores"] = F.pad(said["scores"], short, value=float("-inf"))
            said["antecedents"] = F.pad(said["antecedents"], short, value=-1)
        return {name: torch.cat([x[name] for x in found]) for name in found[0]}

    def _document(self, words: Tensor, sentence: Tensor) -> Scores:  # (M, D), (M,)
        words = self.dropout(words)
        candidates, likely = self.spans(words, sentence)  # (S, 2), (S,)
        most = max(1, int(self.task.spans_per_word * len(words)))
        kept = best_spans(candidates.tolist(), likely.tolist(), most)
        chosen = torch.tensor(kept, dtype=torch.long, device=words.device)  # (P,)
        spans, mention = candidates[chosen], likely[chosen]
        links = self.pairs(self.spans.vectors(words, spans), mention)
        return {
            "spans": spans,
            "mention": mention,
            "antecedents": links.antecedents,
            "scores": links.scores,
            "candidates": candidates,
            "candidate_scores": likely,
        }

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        links = Links(scores["antecedents"], scores["scores"])
        loss = antecedent_loss(links, self._clusters(scores["spans"], batch))
        if self.task.mention_weight:
            true = self._clusters(scores["candidates"], batch) > 0  # (S,)
            likely = scores["candidate_scores"]
            found = F.binary_cross_entropy_with_logits(likely, true.to(likely), reduction="sum")
            loss = loss + self.task.mention_weight * found
        return loss

    def _clusters(self, spans: Tensor, batch: Batch) -> Tensor:
        """Of spans (P, 2) the gold cluster, 0 for none."""
        mentions = batch.gold["mentions"]  # (G, 3)
        table = {(first, last): cluster for first, last, cluster in mentions.tolist()}
        found = [table.get((first, last), 0) for first, last in spans.tolist()]
        return torch.tensor(found, dtype=torch.long, device=spans.device)

    def targets(self, batch: Batch) -> int:
        """Words: a document counts by its length, whatever is kept of it."""
        return max(1, len(batch.given["document"]))
