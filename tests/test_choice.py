"""Multiple choice: each choice read after its question, one softmax a sample, contexts that give way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.data.choices import choice_sample
from pretune.data.samples import Part, Sample, Span, sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.runs import tfidf
from pretune.runs.compare import compare
from pretune.runs.predictor import Predictor, evaluate
from pretune.runs.run import finetune, load_trained
from pretune.runs.trained import join
from pretune.tasks.base import Answer
from pretune.tasks.choice import ChoiceHead, MultipleChoice
from pretune.tasks.joint import Joint
from pretune.tensors.batch import Batch
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

METHOD_NAMES = [name for name in METHODS if name in tiny.ENCODER]


def questions(count: int, seed: int = 0) -> list[Sample]:
    """The right choice is the one with a good word; two to four choices."""
    chance = Random(seed)
    found = []
    for i, text in enumerate(tiny.texts(count, seed, 6)):
        choices = [
            f"{chance.choice(['bad', 'poor', 'dull'])} {x}" for x in tiny.texts(chance.randint(2, 4), i, 3)
        ]
        gold = chance.randrange(len(choices))
        choices[gold] = f"{chance.choice(['good', 'great', 'fine'])} film"
        found.append(sample(text, *choices, key=str(i), gold=gold))
    return found


def trained(method: str, name: str = "full", **changes: object):
    samples = questions(6)
    return join(tiny.start(method), MultipleChoice.of(samples), tiny.recipe(name, **changes), 0)


def batch_of(model, samples: Sequence[Sample], gold: bool = True) -> Batch:
    codec, task = model.start.codec, model.learned
    return task_batch(task, codec, samples, task.rows(codec, samples), gold)


def logits_of(model, samples: Sequence[Sample]) -> torch.Tensor:
    return model.model.eval()(batch_of(model, samples, gold=False)).scores["logits"]


def test_a_choice_is_scored_alike_beside_any_neighbours():
    model, samples = trained("gpt"), questions(6)
    together = logits_of(model, samples)
    for b, one in enumerate(samples):
        alone = logits_of(model, [one])[0]
        torch.testing.assert_close(together[b, : len(alone)], alone, atol=1e-5, rtol=0)
        assert (together[b, len(alone) :] == -torch.inf).all()


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_the_order_of_choices_permutes_the_scores_and_nothing_else(method):
    model = trained(method)
    one = sample("the film was", "good", "bad plot", "not very dull", "fine", gold=0)
    turned = replace(one, parts=(one.parts[0], *one.parts[:0:-1]))
    before, after = logits_of(model, [one]), logits_of(model, [turned])
    torch.testing.assert_close(after.flip(1), before, atol=1e-6, rtol=0)


def test_each_choice_stands_after_the_question_as_a_part_of_its_own():
    model = trained("ulmfit")
    (rows,) = model.task.rows(model.start.codec, [sample("the film", "good", "bad plot", gold=1)])
    assert [sorted({part for part in row.part if part >= 0}) for row in rows] == [[0, 1], [0, 2]]


def test_losses_of_single_samples_add_up_to_the_loss_of_the_batch():
    model, samples = trained("wordvectors"), questions(6)
    model.model.eval()
    alone = [model.model(batch_of(model, [one])).loss.item() for one in samples]
    batch = batch_of(model, samples)
    assert model.model(batch).loss.item() == pytest.approx(sum(alone), rel=1e-5)
    assert model.model.head.targets(batch) == len(samples)


def test_the_loss_is_the_softmax_over_the_sample_s_own_choices():
    head = ChoiceHead(3, 0.0)
    batch = Batch(*[torch.zeros(5, 1)] * 3, torch.tensor([0, 0, 1, 1, 1]))
    batch.given = {"choice": torch.arange(5), "asked": batch.owner}
    batch.gold = {"choice": torch.tensor([1, 2])}
    logits = torch.tensor([[1.0, 3.0, -torch.inf], [0.5, 0.0, 2.0]])
    wanted = -(logits[0, :2].log_softmax(0)[1] + logits[1].log_softmax(0)[2])
    torch.testing.assert_close(head.loss({"logits": logits}, batch), wanted)


def test_all_choices_of_a_sample_lose_the_same_features():
    from pretune.encoder import Encoded

    torch.manual_seed(0)
    head = ChoiceHead(50, 0.5).train()
    with torch.no_grad():
        head.linear.weight.fill_(1)
        head.linear.bias.zero_()
    owner = torch.tensor([0, 0, 0, 1, 1])
    batch = Batch(*[torch.zeros(5, 1)] * 3, owner, {"choice": torch.arange(5), "asked": owner})
    summary = torch.arange(50.0).expand(5, 50)  # equal for all: so must be what is left of them
    logits = head(Encoded((), batch.mask, summary), batch)["logits"]
    assert logits[0].unique().numel() == 1 and logits[1, :2].unique().numel() == 1
    assert logits[0, 0] != logits[1, 0]  # but samples draw masks of their own


def test_several_rows_of_a_choice_are_averaged():
    from pretune.encoder import Encoded

    head = ChoiceHead(2, 0.0).eval()
    owner = torch.tensor([0, 0, 0])
    batch = Batch(*[torch.zeros(3, 1)] * 3, owner)
    batch.given = {"choice": torch.tensor([0, 0, 1]), "asked": torch.tensor([0, 0])}
    summary = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    logits = head(Encoded((), batch.mask, summary), batch)["logits"]
    wanted = head.linear(torch.tensor([[2.0, 3.0], [5.0, 6.0]]))[:, 0]
    torch.testing.assert_close(logits[0], wanted)


def test_what_is_saved_answers_as_it_did(tmp_path: Path):
    samples = questions(8)
    task = MultipleChoice.of(samples)
    model, fitted = finetune(
        tiny.start("wordvectors"), task, tiny.recipe("full"), samples[:6], samples[6:], Fitting(quiet=True)
    )
    model.save(tmp_path / "model", {})
    again = load_trained(tmp_path / "model")
    assert again.task == task and set(fitted.best) == {"accuracy"}
    assert again.answers(samples) == model.answers(samples)
    assert Predictor.load(tmp_path / "model").answer(samples[0]) == model.answers(samples[:1])


def test_an_answer_says_which_choice_and_how_likely_each_is():
    (answer,) = trained("wordvectors").answers([sample("the film", "good", "bad", "dull")])
    assert answer.choice == max(range(3), key=lambda k: answer.scores[str(k)]) == answer.said
    assert sum(answer.scores.values()) == pytest.approx(1) and list(answer.scores) == ["0", "1", "2"]
    assert answer.to_dict() == {"choice": answer.choice, "scores": answer.scores}


def test_several_models_answer_by_the_mean_of_their_probabilities():
    task = MultipleChoice()
    one = [Answer(choice=0, scores={"0": 0.5, "1": 0.4, "2": 0.1})]
    two = [Answer(choice=2, scores={"0": 0.0, "1": 0.4, "2": 0.6})]
    (mean,) = task.average([one, two])
    assert mean.choice == 1 and mean.scores == pytest.approx({"0": 0.25, "1": 0.4, "2": 0.35})


def test_every_choice_adds_to_the_auxiliary_loss():
    """L1 over the rows of all choices, wrong ones too."""
    start, samples = tiny.start("ulmfit"), questions(3)
    joint = Joint(MultipleChoice.of(samples), weight=0.5)
    head = joint.head(start.encoder).eval()
    batch = task_batch(joint, start.codec, samples, joint.rows(start.codec, samples), gold=True)
    top = start.encoder.eval()(batch)
    scores = head(top, batch)
    auxiliary = head.loss(scores, batch) - head.main.loss(scores, batch)
    each = []
    for b in range(len(samples)):
        rows = []
        for n in (batch.owner == b).nonzero()[:, 0].tolist():
            length = int(batch.mask[n].sum())
            logits = top.layers[-1][n, : length - 1] @ start.encoder.embedding_weight.T
            logits = logits + start.encoder.decoder_bias
            rows.append(torch.nn.functional.cross_entropy(logits, batch.ids[n, 1:length]))
        each.append(torch.stack(rows).mean())
    torch.testing.assert_close(auxiliary, 0.5 * torch.stack(each).sum(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["ulmfit", "gpt", "bert"])
def test_an_auxiliary_objective_is_learned_beside_the_choice(method):
    samples = questions(6)
    task, recipe = MultipleChoice.of(samples), tiny.recipe("full", auxiliary=0.5, batch_size=3)
    start = tiny.start(method, **({"pretraining_heads": True} if method == "bert" else {}))
    model, fitted = finetune(start, task, recipe, samples[:4], samples[4:], Fitting(quiet=True))
    assert set(fitted.best) == {"accuracy"} and len(model.answers(samples)) == 6


class Short:
    """A codec of characters that keeps the first ten of each text."""

    pad_id, size = 0, 300

    def encode(self, samples_parts, unordered=False):
        from pretune.data.rows import Row

        found = []
        for parts in samples_parts:
            tokens = [(k, i, ord(c)) for k, part in enumerate(parts) for i, c in enumerate(part.text[:10])]
            chars = [Span(i, i + 1) for _, i, _ in tokens]
            found.append([Row([c for *_, c in tokens], [0] * len(tokens), [k for k, *_ in tokens], chars)])
        return found


def read(one: Sample, cut: str) -> str:
    """What of the first part is read."""
    ((row, _),) = MultipleChoice(cut=cut).rows(Short(), [one])
    covered = "".join(
        one.texts[0][span.start] for part, span in zip(row.part, row.chars, strict=True) if part == 0
    )
    said = "".join(chr(c) for part, c in zip(row.part, row.ids, strict=True) if part == 0)
    assert covered == said  # characters are those of the whole part
    return said


def test_a_long_context_gives_way_and_the_question_stays():
    text = "aa bb cc dd Why?"
    one = Sample("1", (Part(text), Part("x"), Part("y")), 0, (Span(12, 16),))
    assert read(one, "codec") == "aa bb cc d"
    assert read(one, "end") == "aa bb Why?"
    assert read(one, "start") == "cc dd Why?"
    assert read(replace(one, marks=()), "end") == "aa bb cc d"


def test_a_question_that_is_too_long_itself_loses_its_whole_context():
    text = "aa bb Whyever not this?"
    one = Sample("1", (Part(text), Part("x"), Part("y")), 0, (Span(6, 23),))
    assert read(one, "end") == "Whyever no" == read(one, "start")


@pytest.mark.parametrize("method", ["gpt", "bert"])
@pytest.mark.parametrize("cut", ["end", "start"])
def test_question_and_choice_are_read_whole_after_any_context(method, cut):
    codec = tiny.start(method).codec
    context = " ".join(tiny.texts(30, 3))
    one = choice_sample("was the film great ?", ["a fine plot", "a dull book"], 0, context)
    for row in MultipleChoice(cut=cut).rows(codec, [one])[0]:
        read = {
            part: {c for p, span in zip(row.part, row.chars, strict=True) if p == part for c in range(*span)}
            for part in range(3)
        }
        start, end = one.marks[0]
        needed = {c for c in range(start, end) if one.texts[0][c] != " "}
        assert needed <= read[0] and len(read[0]) > len(needed)  # and some of the context
        assert max(read[max(row.part)]) == len(one.texts[max(row.part)]) - 1


def test_a_context_that_fits_is_left_alone():
    one = Sample("1", (Part("aa Why?"), Part("x"), Part("y")), 0, (Span(3, 7),))
    assert read(one, "end") == "aa Why?"


def test_what_cannot_be_asked_is_refused():
    codec = tiny.start("wordvectors").codec
    with pytest.raises(UserError, match="'7' has 1 choices; a question and at least two"):
        MultipleChoice().rows(codec, [sample("a", "b", key="7")])
    with pytest.raises(UserError, match="the answer 3; it must be a whole number from 0 to 1"):
        MultipleChoice.of([sample("a", "b", "c", gold=3)])
    with pytest.raises(UserError, match="no sample has an answer"):
        MultipleChoice.of([sample("a", "b", "c")])
    with pytest.raises(UsageError, match=r"task\.cut is 'middle'; choose one of end, start, codec"):
        MultipleChoice(cut="middle")
    with pytest.raises(UsageError, match=r"task\.dropout is 1"):
        MultipleChoice(dropout=1)


def test_a_question_is_asked_as_a_tuple_or_as_a_line_of_a_file():
    predictor = Predictor(trained("wordvectors"), ("question",), ("choices",))
    wanted = sample("the film was", "good", "bad plot")
    record = {"question": "the film was", "choices": ["good", "bad plot"]}
    for question in (("the film was", ["good", "bad plot"]), ("the film was", "good", "bad plot"), record):
        assert predictor.as_sample(question).texts == wanted.texts
    assert (
        predictor.as_sample({"prompt": "the film was", "options": ["good", "bad plot"]}).texts == wanted.texts
    )
    with pytest.raises(UserError, match="a question is"):
        predictor.as_sample("the film was")


def jsonl(path: Path, samples: Sequence[Sample]) -> Path:
    rows = ({"question": s.texts[0], "choices": s.texts[1:], "answer": s.gold} for s in samples)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def said(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def test_from_a_file_to_answers_on_the_command_line(tmp_path: Path):
    train, test = jsonl(tmp_path / "a.jsonl", questions(40)), jsonl(tmp_path / "b.jsonl", questions(10, 1))
    model = tmp_path / "model"
    said(
        "finetune", "choice", train, "--method", "wordvectors", "--size", "tiny", "--out", model,
        "recipe.epochs=2", "codec.min_count=1",
    )  # fmt: skip
    shown = said("evaluate", model, test)
    assert "accuracy" in shown and "Guessing would be right in" in shown
    said("predict", model, test, "--out", tmp_path / "answers")
    lines = [json.loads(line) for line in (tmp_path / "answers").read_text().splitlines()]
    for line, one in zip(lines, questions(10, 1), strict=True):
        assert line["answer"] == one.texts[1 + line["choice"]] and len(line["scores"]) == len(one.parts) - 1
    assert "--choices are for the task choice" in said(
        "finetune", "classification", train, "--choices", "choices", "--out", "x", code=2
    )
    assert "for classification" in said("finetune", "choice", train, "--kind", "one", "--out", "x", code=2)


def test_approaches_to_multiple_choice_are_compared(tmp_path: Path):
    tested = questions(20, 1)
    tested[0] = replace(tested[0], gold=(tested[0].gold + 1) % 2)  # nobody gets that right
    train, test = jsonl(tmp_path / "a.jsonl", questions(60)), jsonl(tmp_path / "b.jsonl", tested)
    found = compare(
        train, test, task="choice", methods=["tfidf", "wordvectors"], sizes=[20, 40], seeds=2, jobs=1,
        unlabelled="none", encoder_size="tiny", out=tmp_path / "out",
        settings={"recipe": {"epochs": 2}, "codec": {"min_count": 1}, "tfidf": {"strengths": [10.0]}},
    )  # fmt: skip
    assert found.task == "choice" and found.metric == "accuracy" and len(found.rows) == 8
    assert any("Guessing would be right in" in note for note in found.notes)
    baseline = next(rank for rank in found.top() if rank.method == "tfidf")
    assert baseline.mean > 0.8  # the right choice is told by its words
    report = (tmp_path / "out" / "report.md").read_text()
    assert "⏐ 0: " in report and "confuses" not in report
    best = Predictor.load(tmp_path / "out" / "best")
    assert best.text_columns == ("question",) and best.choice_columns == ("choices",)
    scores = evaluate(tmp_path / "out" / "best", test).scores
    assert scores["accuracy"] == next(
        row.score
        for row in found.rows
        if (row.contender, row.size, row.seed) == (found.best.contender, found.best.size, found.best.seed)
    )


def test_the_baseline_learns_what_choice_and_question_share(tmp_path: Path):
    chance = Random(0)
    samples = []
    for i in range(60):
        one, other = chance.sample(tiny.WORDS, 2)
        choices = [f"it is {one}", f"it is {other}"]
        gold = i % 2
        samples.append(sample(f"who said {(one, other)[gold]} ?", *choices, key=str(i), gold=gold))
    model, scores = tfidf.fit(MultipleChoice.of(samples), samples[:40], samples[40:])
    assert scores["accuracy"] >= 0.9
    model.save(tmp_path / "model", {})
    assert load_trained(tmp_path / "model").answers(samples) == model.answers(samples)
    assert model.answers([samples[3]]) == model.answers(samples)[3:4]


def test_comparing_refuses_what_another_task_has(tmp_path: Path):
    with pytest.raises(UsageError, match="--choices are for --task choice"):
        compare(questions(9), choices=["a"], out=tmp_path)
    with pytest.raises(UsageError, match="--kind is for --task classification"):
        compare(questions(9), task="choice", kind="one", out=tmp_path)
    with pytest.raises(UsageError, match="--task is 'songs'; choose one of classification, choice"):
        compare(questions(9), task="songs", out=tmp_path)
