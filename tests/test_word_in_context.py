"""A task written by docs/extending.md alone: it learns, gold does not leak, its commands work as printed."""

from __future__ import annotations

import csv
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.data.samples import Sample, Span, sample
from pretune.data.stars import unstarred
from pretune.errors import UserError
from pretune.runs.predictor import Predictor
from pretune.runs.run import finetune
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

ROOT = Path(__file__).parent.parent


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from examples import word_in_context

    return word_in_context


def demo(example: Any) -> list[Sample]:
    rows = csv.DictReader(example.DEMO.splitlines())
    return [sample(x["sentence1"], x["sentence2"], key=str(i), gold=x["label"]) for i, x in enumerate(rows)]


@pytest.mark.parametrize("method", ["bert", "elmo"])
def test_it_learns_a_handful_by_heart(example: Any, method: str) -> None:
    samples = demo(example)
    task = example.WordInContext.of(samples)
    assert task.labels == ("F", "T")
    recipe = tiny.recipe("full", epochs=60, **tiny.gentle(method))
    start = tiny.start(method)
    trained, _ = finetune(start, task, recipe, samples, samples, Fitting(device="cpu", quiet=True))
    said = trained.answers(samples)
    assert [answer.label for answer in said] == [one.gold for one in samples]
    assert task.score([one.gold for one in samples], said) == {"accuracy": 1.0}
    alone = trained.answers(samples[3:4])[0]
    assert alone.scores == pytest.approx(said[3].scores, abs=1e-5)  # neighbours do not matter


def test_the_tokens_are_those_of_the_marked_words_and_gold_does_not_leak(example: Any) -> None:
    codec = tiny.start("bert").codec
    samples, task = demo(example)[:2], example.WordInContext(("F", "T"))
    rows = task.rows(codec, samples)
    batch = task_batch(task, codec, samples, rows, gold=True)
    for part in (0, 1):
        for row, token, word in batch.given[str(part)].tolist():
            assert rows[word][0].part[token] == part and row == word
            start, end = rows[word][0].chars[token]
            mark = unstarred(samples[word]).marks[part]
            assert mark.start <= start < end <= mark.end
    bare = [Sample(one.key, one.parts) for one in samples]
    again = task_batch(task, codec, bare, task.rows(codec, bare), gold=False)
    assert all(torch.equal(again.given[name], x) for name, x in batch.given.items())
    assert batch.gold["label"].tolist() == [1, 0] and not again.gold


def test_asterisks_become_marks() -> None:
    one = unstarred(sample("a *play* here", "*plays*"))
    assert one.texts == ("a play here", "plays") and one.marks == (Span(2, 6), Span(0, 5))
    assert unstarred(one) is one
    for text in ("a play", "a * * b", "*a* and *b*", "a *b"):
        with pytest.raises(UserError, match=r"sample 'k': .*write it as \*word\*"):
            unstarred(sample(text, key="k"))
    with pytest.raises(UserError, match="1 marks for 2 texts"):
        unstarred(Sample("k", one.parts, marks=one.marks[:1]))


def test_its_commands_work_as_printed_in_under_sixty_lines(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len((ROOT / "examples" / "word_in_context.py").read_text("utf-8").splitlines()) < 60
    monkeypatch.chdir(tmp_path)
    Path("wic.csv").write_text(example.DEMO, encoding="utf-8")
    _, learn, ask = [line for line in example.__doc__.splitlines() if "wic" in line]
    quick = "--size tiny --device cpu -q codec.min_count=1 recipe.epochs=1"
    done = CliRunner().invoke(app, [*shlex.split(learn)[1:], *quick.split()])
    assert done.exit_code == 0, done.output
    asked = CliRunner().invoke(app, [*shlex.split(ask.partition("pretune ")[2]), "-q"])
    assert asked.exit_code == 0, asked.output
    assert len(re.findall(r'"label": "[TF]"', asked.stdout)) == 5
    (answer,) = Predictor.load("wic", "cpu").answer(("they *play*", "a *play*"))
    assert answer.label in ("F", "T")
    monkeypatch.delitem(sys.modules, "examples.word_in_context")
    refused = CliRunner().invoke(app, ["predict", "wic", "wic.csv", "-q"])
    assert refused.exit_code == 1 and "PRETUNE_TRUST_CODE=1" in refused.output
