"""Word in context (Pilehvar & Camacho-Collados 2019): is a word used in the same sense in two sentences?

python -c "from examples.word_in_context import DEMO; print(DEMO)" > wic.csv
pretune finetune examples.word_in_context:WordInContext wic.csv --method elmo --valid-share 0 --out wic
PRETUNE_TRUST_CODE=1 pretune predict wic wic.csv
"""

from dataclasses import dataclass

import torch
from torch import nn

from pretune.data.stars import unstarred
from pretune.metrics.classification import accuracy
from pretune.tasks.base import Answer, Head, Task
from pretune.tasks.words import tokens_read, word_vectors

DEMO = """sentence1,sentence2,label\nwe sat on the *bank* of the river,the *bank* was full of reeds,T
the *bank* lent us money,we sat on the *bank* of the river,F\na *play* in two acts,she wrote a *play*,T
let the children *play*,a *play* in two acts,F\nthe *bank* was full of reeds,the *bank* lent us money,F"""


@dataclass(frozen=True)
class WordInContext(Task):
    labels: tuple[str, ...] = ()
    metric = "accuracy"

    def rows(self, codec, samples):
        return codec.encode([unstarred(sample).parts for sample in samples])

    def given(self, samples, rows):  # row, token and sample of each token of the words, in both sentences
        marks = [unstarred(sample).marks for sample in samples]
        return {str(k): tokens_read([own[k : k + 1] for own in marks], rows, "mean", k) for k in (0, 1)}

    def gold(self, samples, rows):
        return {"label": torch.tensor([self.labels.index(sample.gold) for sample in samples])}

    def head(self, encoder):
        return WordsHead(4 * encoder.width, len(self.labels))

    def decode(self, scores, samples, rows):
        shares = [dict(zip(self.labels, x, strict=True)) for x in scores["logits"].softmax(-1).tolist()]
        return [Answer(label=max(share, key=share.get), scores=share) for share in shares]

    def score(self, golds, answers):
        return {"accuracy": accuracy(golds, [answer.label for answer in answers])}


class WordsHead(Head):
    def __init__(self, width, labels):
        super().__init__()
        self.linear = nn.Linear(width, labels)

    def forward(self, encoded, batch):
        u, v = (word_vectors(encoded.layers[-1], batch.given[k]) for k in "01")  # (B, D) each
        return {"logits": self.linear(torch.cat((u, v, (u - v).abs(), u * v), -1))}  # (B, C)

    def loss(self, scores, batch):
        return nn.functional.cross_entropy(scores["logits"], batch.gold["label"], reduction="sum")
