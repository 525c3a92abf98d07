"""Published GPTs and BERTs as model folders: pretrained ones, and classifiers that answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from pretune.data.files import listed
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.methods.bert.importing import import_bert
from pretune.methods.gpt.importing import import_gpt
from pretune.recipes.full import Full
from pretune.runs.imported_task import classification_of
from pretune.runs.published import Published
from pretune.runs.starts import Start, for_task
from pretune.runs.trained import TrainedModel, join
from pretune.tasks.classification import Kind
from pretune.tasks.summary_head import ClassificationHead

CLASSIFIERS: Final = {  # where a head lies, and the models whose head it is
    "gpt": ("score.", ("OpenAIGPTForSequenceClassification",)),
    "bert": ("classifier.", ("BertForSequenceClassification",)),
}
KINDS: Final[Mapping[str, Kind]] = {  # problem_type of transformers
    "single_label_classification": "one",
    "multi_label_classification": "many",
    "regression": "number",
}


def gpt(published: Published) -> tuple[Start | TrainedModel, list[str]]:
    """A folder of OpenAI's or transformers' files."""
    source = _source(published, "gpt")
    read = import_gpt(source, published.codec, published.encoder, published.seed, published.encoder_only)
    start = Start(source.name, METHODS["gpt"], read.codec, read.encoder, read.encoder.config)
    return _with_head(published, start, read.head, read.config, read.notes)


def bert(published: Published) -> tuple[Start | TrainedModel, list[str]]:
    """A folder of Google's or transformers' files."""
    source = _source(published, "bert")
    read = import_bert(
        source,
        published.codec,
        published.encoder,
        published.checkpoint,
        published.vocab,
        published.seed,
    )
    start = Start(source.name, METHODS["bert"], read.codec, read.encoder, read.encoder.config)
    return _with_head(published, start, read.head, read.config, read.notes)


def _source(published: Published, method: str) -> Path:
    if published.source is None:
        raise UsageError(f"give the folder of its files: pretune import {method} FOLDER --out DIR")
    return published.source


def _with_head(
    published: Published,
    start: Start,
    head: Mapping[str, Tensor],
    config: Mapping[str, Any],
    notes: list[str],
) -> tuple[Start | TrainedModel, list[str]]:
    """A classifier where the file has the head of one; the heads of other tasks are left out, and said so."""
    prefix, models = CLASSIFIERS[start.method.name]
    model = next(iter(config.get("architectures") or ()), None)
    answers = bool(head) and all(name.startswith(prefix) for name in head)
    answers = answers and (model in models or (model is None and getattr(start.encoder, "pooler", True)))
    if not answers or published.encoder_only:
        if published.labels or published.task:
            raise UsageError("--labels and task.… are for classifiers; these weights have no head of one")
        if head:
            whose = f" of {model}" if model else ""
            notes = [*notes, f"the head{whose} is left out: {listed(sorted(head), 4)}"]
        return start, notes
    weight, bias = head[f"{prefix}weight"], head.get(f"{prefix}bias")
    _check(start, head, prefix)
    task, more = classification_of(
        published, len(weight), _labels(config, len(weight)), _settings(start, config), _kind(config)
    )
    trained = join(for_task(start), task, Full(), published.seed)
    scores = trained.model.head
    assert isinstance(scores, ClassificationHead) and isinstance(scores.layers[1], nn.Linear)
    with torch.no_grad():
        scores.layers[1].weight.copy_(weight)
        scores.layers[1].bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return trained, [*notes, *more]


def _check(start: Start, head: Mapping[str, Tensor], prefix: str) -> None:
    width = start.encoder.summary_width
    shapes = {name: list(x.shape) for name, x in head.items()}
    outputs = shapes.get(f"{prefix}weight", [0])[0]
    wanted = {f"{prefix}weight": [outputs, width], f"{prefix}bias": [outputs]}
    if f"{prefix}bias" not in shapes:
        del wanted[f"{prefix}bias"]
    if shapes != wanted:
        raise UserError(
            f"{start.name}: its head is {shapes}; {wanted} is wanted; --encoder-only leaves it out"
        )
    for name, tensor in head.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{start.name}: {name} has values that are not finite; the file is damaged")


def _labels(config: Mapping[str, Any], outputs: int) -> tuple[str, ...]:
    """In the order of the scores; none where config.json names none, or a number is answered."""
    named = config.get("id2label")
    if not isinstance(named, Mapping) or _kind(config) == "number":
        return ()
    numbers = {int(number): str(label) for number, label in named.items()}
    if outputs == 1 and _kind(config) is None:
        return ()
    return tuple(numbers.get(number, str(number)) for number in range(outputs))


def _kind(config: Mapping[str, Any]) -> Kind | None:
    return KINDS.get(str(config.get("problem_type")))


def _settings(start: Start, config: Mapping[str, Any]) -> dict[str, Any]:
    """The task's, as the file has them; transformers reads a pair in its own order alone."""
    settings: dict[str, Any] = {"head_kind": "linear", "orders": "given"}
    if start.method.name == "bert":
        dropout = config.get("classifier_dropout")
        settings["dropout"] = float(config.get("hidden_dropout_prob", 0.1) if dropout is None else dropout)
    return settings
