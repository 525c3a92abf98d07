"""Long passages: what is read at once is bounded by tokens, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from pretune.data.samples import Sample
from pretune.data.span_answers import question_sample
from pretune.errors import UsageError
from pretune.runs.run import finetune
from pretune.runs.trained import TrainedModel, join
from pretune.tasks.passages import Windows
from pretune.tasks.span_qa import SpanQA
from pretune.tensors.batch import Batch
from pretune.tensors.lengths import neighbours_within
from pretune.training.loop import Fitting
from pretune.training.sources import SampleSource, batches_of

LENGTH = 24
SMALL = 3 * LENGTH  # three rows


def questions() -> list[Sample]:
    """Which word follows "very"? In passages of one window to many; two have no answer."""
    found = []
    for i, count in enumerate((4, 90, 7, 60, 40, 5)):
        words = [word for word in tiny.texts(1, i, count)[0].split() if word != "very"]
        words = (words * (count // len(words) + 1))[:count]
        answers = []
        if i % 3 != 2:
            words.insert(count // 2, "very")
            answers = [(words[count // 2 + 1], len(" ".join(words[: count // 2 + 1])) + 1)]
        found.append(question_sample("what was very", " ".join(words), answers, key=str(i)))
    return found


def task(model: str, tokens: int) -> SpanQA:
    options = {"hidden": 3} if model == "bidaf" else {}
    found = SpanQA.of(questions(), model=model, dropout=0.0, max_length=LENGTH, stride=6, **options)
    return replace(found, tokens_at_once=tokens)


def answering(model: str, tokens: int) -> TrainedModel:
    return join(tiny.start("bert"), task(model, tokens), tiny.recipe("full"), 0)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_parts_are_neighbours_and_have_no_more_tokens_than_asked(lengths: list[list[int]], most: int) -> None:
    rows = [[range(n) for n in of_sample] for of_sample in lengths]
    parts = neighbours_within(rows, most)
    assert [i for part in parts for i in part] == list(range(len(rows)))

    def tokens(part: range) -> int:
        own = [n for i in part for n in lengths[i]]
        return len(own) * max(own)

    assert all(tokens(part) <= most or len(part) == 1 for part in parts)
    joined = pairwise(parts)
    assert all(tokens(range(a.start, b.start + 1)) > most for a, b in joined)  # none could take one more


@pytest.mark.parametrize("model", ["linear", "bidaf"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(model: str) -> None:
    gradients = []
    for tokens in (1 << 14, SMALL):
        made = answering(model, tokens)
        source = SampleSource(made.learned, made.start.codec, questions(), 6, seed=0)
        batches = batches_of(source, [(0, 0)])
        assert sum(batch.samples for batch in batches) == 6
        assert (len(batches) == 1) == (tokens > SMALL)
        for batch in batches:
            assert batch.ids.numel() <= tokens or batch.samples == 1
            loss = made.model.eval()(batch).loss
            assert loss is not None
            (loss / 6).backward()
        gradients.append({name: p.grad for name, p in made.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert max(float(x.abs().max()) for x in gradients[0].values()) > 1e-3
    for name, x in gradients[0].items():
        assert torch.allclose(x, gradients[1][name], atol=1e-5), name


@pytest.mark.parametrize("model", ["linear", "bidaf"])
def test_a_question_is_answered_alike_however_few_windows_are_read_at_once(model: str) -> None:
    whole, samples = answering(model, 1 << 14), questions()
    wanted = whole.answers(samples)
    assert any(len(rows) > 9 for rows in whole.rows(samples))
    for tokens in (SMALL, 1):
        few, read = answering(model, tokens), []

        def record(module: object, arguments: tuple[Batch, ...], read: list[int] = read) -> None:
            read.append(arguments[0].ids.numel())

        few.model.register_forward_pre_hook(record)
        few.model.load_state_dict(whole.model.state_dict())
        said = few.answers(samples)
        assert max(read) <= max(tokens, (1 + (model == "bidaf")) * LENGTH)
        for a, b in zip(wanted, said, strict=True):
            assert a.spans == b.spans and a.text == b.text
            assert a.scores == pytest.approx(b.scores, abs=1e-5)
            assert [x[0] for x in a.guesses or ()] == [x[0] for x in b.guesses or ()]


def test_frozen_layers_are_remembered_alike_in_few_windows_at_once() -> None:
    samples, found = questions(), []
    for tokens in (1 << 14, SMALL):
        recipe = tiny.recipe("features", epochs=2, dropout=0.0)
        how = Fitting(device="cpu", quiet=True)
        model, _ = finetune(tiny.start("bert"), task("linear", tokens), recipe, samples, [], how)
        found.append(model.answers(samples))
    for a, b in zip(*found, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-4)


def test_no_tokens_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match=r"task.tokens_at_once is 0; it must be at least 1"):
        SpanQA(tokens_at_once=0)
    assert Windows().length == SpanQA().max_length  # what a window of the default bound is
