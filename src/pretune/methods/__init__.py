"""Methods by name, in the order of their years: ways to carry knowledge from text to tasks."""

from __future__ import annotations

from pretune.methods.base import Method
from pretune.methods.bert import METHOD as BERT
from pretune.methods.elmo import ELMO
from pretune.methods.gpt import METHOD as GPT
from pretune.methods.hub import HUB
from pretune.methods.ulmfit import ULMFIT
from pretune.methods.wordvectors import WORDVECTORS

METHODS: dict[str, Method] = {
    "wordvectors": WORDVECTORS,
    "ulmfit": ULMFIT,
    "elmo": ELMO,
    "gpt": GPT,
    "bert": BERT,
}

# Not among them, for they have no sizes and are not pretrained here: models that come from elsewhere.
GUESTS: dict[str, Method] = {"hub": HUB}
