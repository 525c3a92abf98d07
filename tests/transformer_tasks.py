"""Tiny GPTs and BERTs with their codecs, and questions for them, for tests of recipes and joint tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from pretune.data.rows import Codec
from pretune.data.samples import Sample, sample
from pretune.encoder import Encoder
from pretune.methods.bert.encoder import BERT, BERTConfig
from pretune.methods.bert.tokens import BERTCodec, BERTCodecConfig
from pretune.methods.gpt.encoder import GPT, GPTConfig
from pretune.methods.gpt.tokens import GPTCodec, GPTCodecConfig
from pretune.recipes.base import Recipe
from pretune.recipes.full import Full
from pretune.tasks.base import Task
from pretune.tasks.choice import MultipleChoice
from pretune.tasks.classification import Classification
from pretune.tensors.batch import Batch
from pretune.training.loop import Fitted, fit
from pretune.training.model import Model
from pretune.training.sources import SampleSource, task_batch
from tiny_training import quietly

CONTEXT = 24
TEXTS = [
    ("a good cat sat on the mat", "yes"),
    ("the bad dog ran", "no"),
    ("the good dog sat and sat on the mat", "yes"),
    ("a bad cat", "no"),
]
SAMPLES = [sample(text, key=str(n), gold=label) for n, (text, label) in enumerate(TEXTS)]
TASK = Classification.of(SAMPLES, "one")
QUESTIONS = [
    sample("the cat sat", "on the mat", "a dog ran", key="0", gold=0),
    sample("a good dog", "the cat and the bad dog", "sat", key="1", gold=1),
    sample("the bad dog", "a", "ran on the mat", key="2", gold=1),
]
CHOICE = MultipleChoice()
STILL = Classification.of(SAMPLES, "one", dropout=0.0)
# one step a pass for two processes, or for one with batches of 4
JOINT = Full(lr=0.01, epochs=2, batch_size=2, auxiliary=0.5, optimizer="openai", rate_schedule="constant")


def corpus() -> Iterable[str]:
    return [text for text, _ in TEXTS] * 3


GPT_CODEC = GPTCodec.learn(corpus, GPTCodecConfig(merges=30, context=CONTEXT))
BERT_CODEC = BERTCodec.learn(corpus, BERTCodecConfig(vocab_size=60, context=CONTEXT))


def gpt(seed: int = 0, **changes: Any) -> GPT:
    torch.manual_seed(seed)
    shape = {"width": 8, "layers": 3, "heads": 2, "context": CONTEXT} | changes
    return GPT(GPTConfig(**shape), GPT_CODEC.size, GPT_CODEC.classify_id)


def bert(seed: int = 0, **changes: Any) -> BERT:
    torch.manual_seed(seed)
    shape = {"width": 8, "layers": 3, "heads": 2, "context": CONTEXT} | changes
    return BERT(BERTConfig(**shape), BERT_CODEC.size, BERT_CODEC.pad_id, BERT_CODEC.mask_id)


def still(build: Any) -> Any:
    """One of them without dropout."""
    names = ("dropout",) if build is bert else ("embedding_dropout", "residual_dropout")
    return build(attention_dropout=0.0, **dict.fromkeys(names, 0.0))


def codec_of(encoder: Encoder) -> Codec:
    return GPT_CODEC if isinstance(encoder, GPT) else BERT_CODEC


def batch_of(task: Task, encoder: Encoder, samples: list[Sample], gold: bool = True) -> Batch:
    codec = codec_of(encoder)
    return task_batch(task, codec, samples, task.rows(codec, samples), gold)


def model_of(recipe: Recipe, encoder: Encoder, task: Task = TASK) -> Model:
    torch.manual_seed(1)
    wrapped = recipe.wrap(encoder)
    return Model(wrapped, recipe.task(task).head(wrapped), recipe.alpha, recipe.beta)


def trained(
    recipe: Recipe, encoder: Encoder, task: Task = TASK, samples: list[Sample] = SAMPLES, **options: Any
) -> tuple[Model, Fitted]:
    codec, model = codec_of(encoder), model_of(recipe, encoder, task)
    source = SampleSource(recipe.task(task), codec, samples, recipe.batch_size, seed=0)
    stages = recipe.stages(model.encoder, model.head)
    return model, fit(model, stages, source, quietly(**options))


def answers(model: Model, codec: Codec, task: Task = TASK, samples: list[Sample] = SAMPLES) -> list[Any]:
    model.eval()
    rows = task.rows(codec, samples)
    scores = model(task_batch(task, codec, samples, rows, gold=False)).scores
    return [answer.said for answer in task.decode(scores, samples, rows)]
