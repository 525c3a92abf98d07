"""pretune: transfer learning with pretrained language models, compared on your own data."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretune.data.samples import Part, Sample, Span, sample
    from pretune.interop.estimators import PretuneClassifier, PretuneTagger
    from pretune.runs.compare import compare
    from pretune.runs.comparison import Comparison
    from pretune.runs.embedder import Embedder
    from pretune.runs.explain import Explainer
    from pretune.runs.language_model import LanguageModel
    from pretune.runs.predictor import Predictor, evaluate
    from pretune.tasks.base import Answer

_HOMES = {  # public name -> where it lives; imported at first use, for torch takes seconds
    "Answer": "pretune.tasks.base",
    "Comparison": "pretune.runs.comparison",
    "Embedder": "pretune.runs.embedder",
    "Explainer": "pretune.runs.explain",
    "LanguageModel": "pretune.runs.language_model",
    "Part": "pretune.data.samples",
    "Predictor": "pretune.runs.predictor",
    "PretuneClassifier": "pretune.interop.estimators",
    "PretuneTagger": "pretune.interop.estimators",
    "Sample": "pretune.data.samples",
    "Span": "pretune.data.samples",
    "compare": "pretune.runs.compare",
    "evaluate": "pretune.runs.predictor",
    "sample": "pretune.data.samples",
}

__all__ = [
    "Answer",
    "Comparison",
    "Embedder",
    "Explainer",
    "LanguageModel",
    "Part",
    "Predictor",
    "PretuneClassifier",
    "PretuneTagger",
    "Sample",
    "Span",
    "compare",
    "evaluate",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pretune")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pretune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
