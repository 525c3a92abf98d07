"""Tasks by name: the questions that models learn to answer."""

from __future__ import annotations

from pretune.tasks.base import Task
from pretune.tasks.choice import MultipleChoice
from pretune.tasks.classification import Classification
from pretune.tasks.coref import Coref
from pretune.tasks.span_qa import SpanQA
from pretune.tasks.srl import SemanticRoles
from pretune.tasks.tagging import Tagging

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "tagging": Tagging,
    "srl": SemanticRoles,
    "choice": MultipleChoice,
    "qa": SpanQA,
    "coref": Coref,
}
