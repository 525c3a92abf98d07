"""The head of span question answering: scores of first and last tokens, and of there being no answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretune.encoder import Encoded
from pretune.layers.biattention import LOW, BiAttentiveReader, BiGRU
from pretune.tasks.base import Head, Scores
from pretune.tensors.batch import Batch


class SpanHead(Head):
    """Token vectors -> `start` and `end` (N, T), `LOW` outside the passage; `null` (B,) if asked for.

    With `hidden` question and passage are rows of their own: a BiAttentiveReader makes vectors of the
    passage, a GRU on them gives the first tokens, another on both the last ones (Clark & Gardner 2018,
    section 3). The score of no answer is linear in a window's summary, with `hidden` in the maximum of its
    vectors; a sample's is that of its window with the least, as in run_squad.py, and it counts twice: as the
    first and as the last token.
    """

    def __init__(self, width: int, summary: int, hidden: int | None, dropout: float, no_answer: bool) -> None:
        super().__init__()
        self.reader = None if hidden is None else BiAttentiveReader(width, hidden, dropout)
        self.dropout = nn.Dropout(dropout)
        if hidden is not None:
            width = summary = 2 * hidden
            self.firsts, self.lasts = BiGRU(width, hidden), BiGRU(2 * width, hidden)
        self.start, self.end = nn.Linear(width, 1), nn.Linear(width, 1)
        self.null = nn.Linear(summary, 1) if no_answer else None

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        top, summary, passage = encoded.layers[-1], encoded.summary, batch.given["passage"]
        if self.reader is None:
            first = last = self.dropout(top)  # (N, T, D)
        else:
            first, last, summary = self._read(self.reader, top, batch)
        scores = {
            "start": self.start(first)[..., 0].float().masked_fill(~passage, LOW),  # (N, T)
            "end": self.end(last)[..., 0].float().masked_fill(~passage, LOW),
        }
        if self.null is not None:
            null = self.null(self.dropout(summary))[:, 0].float()  # (N,)
            null = null.masked_fill(batch.given["asks"], -LOW)
            none = null.new_full((batch.samples,), -LOW).scatter_reduce(0, batch.owner, null, "amin")
            scores["null"] = 2 * none  # (B,)
        return scores

    def _read(self, reader: BiAttentiveReader, top: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors for first and last tokens (N, T, 2H), and of windows (N, 2H); zero at the questions."""
        asks = batch.given["asks"]  # (N,), one a sample
        asked = asks.nonzero()[:, 0][batch.owner[~asks]]  # (P,) each window's question
        mask = batch.mask[~asks]
        read = reader(top[~asks].float(), top[asked].float(), mask, batch.mask[asked]).float()  # (P, T, 2H)
        first = self.firsts(read, mask)
        last = self.lasts(torch.cat((read, first), -1), mask)
        peak = read.masked_fill(~mask[..., None], LOW).amax(1)  # (P, 2H)
        return self._placed(first, asks), self._placed(last, asks), self._placed(peak, asks)

    def _placed(self, x: Tensor, asks: Tensor) -> Tensor:
        """Of windows alone -> of all rows."""
        return x.new_zeros(len(asks), *x.shape[1:]).index_copy(0, (~asks).nonzero()[:, 0], x)

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        """The mean of both cross-entropies, summed over samples; 0 where no token is of the answer."""
        lost = scores["start"].new_zeros(())
        none = batch.gold["none"]  # (B,)
        for name, right in (("start", batch.gold["starts"]), ("end", batch.gold["ends"])):
            each = scores[name]
            total = of_samples(each.logsumexp(1), batch)  # (B,)
            found = of_samples(each.masked_fill(~right, LOW).logsumexp(1), batch)
            if "null" in scores:
                null = scores["null"] / 2
                total = torch.logaddexp(total, null)
                found = torch.where(none, null, found)
            answered = torch.zeros_like(none, dtype=torch.long).index_add(0, batch.owner, right.any(1).long())
            known = (answered > 0) | (none & ("null" in scores))
            lost = lost + torch.where(known, total - found, torch.zeros_like(total)).sum() / 2
        return lost

    def targets(self, batch: Batch) -> int:
        return batch.samples


def of_samples(logs: Tensor, batch: Batch) -> Tensor:
    """log Σ exp over the rows of each sample, (N,) -> (B,)."""
    top = logs.new_full((batch.samples,), LOW).scatter_reduce(0, batch.owner, logs.detach(), "amax")
    shares = (logs - top[batch.owner]).exp()
    return top + logs.new_zeros(batch.samples).index_add(0, batch.owner, shares).log()
