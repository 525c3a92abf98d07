"""Span question answering: windows, decoding, the loss, every method, folders and commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.cli.common import Notes
from pretune.cli.passages import answering
from pretune.data.rows import Row
from pretune.data.samples import Sample, Span, sample
from pretune.data.span_answers import SpanAnswer, question_sample
from pretune.errors import UsageError, UserError
from pretune.layers.biattention import BiAttentiveReader, SelfAttention
from pretune.methods import METHODS
from pretune.methods.hub import HubCodec
from pretune.runs.predictor import Predictor, evaluate
from pretune.runs.run import finetune, load_start, load_trained
from pretune.runs.trained import TrainedModel, join
from pretune.tasks.base import Answer
from pretune.tasks.passages import Windows, candidates, stretch, widest_context
from pretune.tasks.span_decoding import best_spans
from pretune.tasks.span_head import SpanHead
from pretune.tasks.span_qa import SpanQA
from pretune.tensors.batch import Batch
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

METHOD_NAMES = [name for name in METHODS if name in tiny.ENCODER]
LIMITED = ["bert", "gpt"]
MODELS = ["linear", "bidaf"]


def questions(count: int = 6, long: bool = False) -> list[Sample]:
    """Which word follows "very"? Every third passage has none."""
    chance, found = Random(1), []
    for i in range(count):
        words = [w for w in chance.choices(tiny.WORDS, k=90 if long else chance.randint(4, 9)) if w != "very"]
        at = chance.randrange(1, len(words))
        answers = []
        if i % 3 != 2:
            words.insert(at - 1, "very")
            answers = [(words[at], len(" ".join(words[:at])) + 1)]
        found.append(question_sample("what was very", " ".join(words), answers, key=str(i)))
    return found


def trained(method: str, model: str = "linear", **options: object) -> TrainedModel:
    task = SpanQA.of(questions(), model=model, **({"hidden": 3} if model == "bidaf" else {}), **options)
    return join(tiny.start(method), task, tiny.recipe("full"), 0)


def scores_of(model: TrainedModel, samples: Sequence[Sample], gold: bool = False) -> dict[str, torch.Tensor]:
    codec, task = model.start.codec, model.learned
    batch = task_batch(task, codec, samples, task.rows(codec, samples), gold)
    with torch.no_grad():
        return model.model.eval()(batch).scores


@pytest.mark.parametrize("method", LIMITED)
@pytest.mark.parametrize("apart", [False, True])
def test_every_token_of_a_passage_is_in_a_window_that_has_room(method: str, apart: bool):
    codec = tiny.start(method).codec
    one = questions(long=True)[0]
    for length, stride, asked in ((64, 128, 64), (30, 5, 2), (24, 7, 64), (8, 1, 1)):
        windows = Windows(length, stride, asked)
        (whole,), (rows,) = codec.unlimited().encode([one.parts]), windows.rows(codec, [one], apart)
        if apart:
            question, *rows = rows
            assert not candidates(question)
        assert all(len(row) <= length for row in rows)
        read = [[(row.ids[t], row.chars[t]) for t in range(*stretch(row))] for row in rows]
        wanted = [(whole[0].ids[t], whole[0].chars[t]) for t in range(*stretch(whole[0]))]
        step = windows.step(len(read[0]))
        assert len(rows) > 1 and all(0 < step <= max(1, len(x) // 2) for x in read[:1])
        for w, own in enumerate(read):
            assert own == wanted[w * step : w * step + len(own)]
        assert {t for w, own in enumerate(read) for t in range(w * step, w * step + len(own))} == set(
            range(len(wanted))
        )
        if not apart:
            kept = [sum(part == 0 for part in row.part) for row in rows]
            assert len(set(kept)) == 1 and 0 < kept[0] <= asked
            assert all(row.ids[0] == whole[0].ids[0] and row.ids[-1] == whole[0].ids[-1] for row in rows)


@pytest.mark.parametrize("method", sorted(set(METHOD_NAMES) - set(LIMITED)))
def test_encoders_of_any_length_read_a_passage_whole(method: str):
    codec, one = tiny.start(method).codec, questions(long=True)[0]
    assert Windows(16, 4, 2).rows(codec, [one], False) == codec.encode([one.parts])
    assert len(Windows(16, 4, 2).rows(codec, [one], True)[0]) == 2


def test_a_guest_reads_windows_that_its_own_tokenizer_would_cut(tmp_path: Path):
    from guest_models import saved  # skips without transformers

    start = load_start(saved("bert", tmp_path / "guest"))
    codec, one = start.codec, questions(long=True)[0]
    assert isinstance(codec, HubCodec)
    limited = HubCodec(replace(codec.config, context=24), codec.tokenizer)
    before = limited.encode([one.parts])
    (rows,) = Windows().rows(limited, [one], False)
    (whole,) = HubCodec(replace(codec.config, context=None), codec.unlimited().tokenizer).encode([one.parts])
    assert len(rows) > 1 and all(len(row) <= 24 for row in rows)
    assert {row.chars[t] for row in rows for t in candidates(row)} == {
        whole[0].chars[t] for t in candidates(whole[0])
    }
    assert limited.encode([one.parts]) == before  # the codec itself goes on cutting
    reader = join(start, SpanQA(max_length=24, no_answer=True), tiny.recipe("full"), 0)
    (alone,), (beside, _) = reader.answers([one]), reader.answers([one, questions()[0]])
    assert alone.guesses[0][:2] == beside.guesses[0][:2]


@pytest.mark.parametrize("method", ["gpt", "bert"])
def test_the_text_may_be_predicted_beside_the_answer(method: str):
    some, encoder = questions(4, long=True), {"pretraining_heads": True} if method == "bert" else {}
    way = tiny.recipe("full", auxiliary=0.5)
    reader, fitted = finetune(
        tiny.start(method, **encoder), SpanQA.of(some, max_length=24), way, some, [], Fitting(quiet=True)
    )
    assert np.isfinite(fitted.history[-1]["loss"]) and len(reader.answers(some)) == 4


def test_a_short_pair_is_read_as_the_codec_reads_it():
    codec, some = tiny.start("bert").codec, questions()
    assert Windows().rows(codec, some, False) == codec.encode([one.parts for one in some])


def test_each_token_is_scored_in_the_window_with_the_widest_context():
    assert widest_context([4], 2) == [range(4)]
    for counts, step in (((10, 10, 7), 3), ((8, 8, 8, 8, 5), 2), ((317, 317, 200), 128)):
        own = widest_context(counts, step)
        for token in range((len(counts) - 1) * step + counts[-1]):
            contexts = [
                min(token - w * step, n - 1 - (token - w * step)) + 0.01 * n
                if 0 <= token - w * step < n
                else -1.0
                for w, n in enumerate(counts)
            ]
            best = contexts.index(max(contexts))
            assert [w for w in range(len(counts)) if token - w * step in own[w]] == [best]


def made_row(count: int, first: int = 0, backward: bool = False) -> Row:
    """A mark, a token of the question, `count` tokens of the passage from the character 2 · first, a mark."""
    chars = [Span(2 * t, 2 * t + 1) for t in range(first, first + count)]
    row = Row([0] * (count + 3), [0] * (count + 3), [-1, 0, *[1] * count, -1], [Span(0, 0)] * 2 + chars)
    row.chars.append(Span(0, 0))
    return row.reversed() if backward else row


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_spans_are_those_of_trying_all(backward: bool, longest: int):
    chance = np.random.default_rng(longest)
    row = made_row(9, backward=backward)
    start, end = chance.normal(size=(2, len(row)))
    guesses = best_spans([(row, start, end)], lambda first: 1, longest, 5)
    everything = {
        Span(row.chars[i].start, row.chars[j].end): start[i] + end[j]
        for i in candidates(row)
        for j in candidates(row)
        if 0 <= (row.chars[j].start - row.chars[i].start) // 2 < longest
    }
    wanted = sorted(everything.items(), key=lambda item: -item[1])[:5]
    assert [x.span for x in guesses] == [span for span, _ in wanted]
    assert [x.score for x in guesses] == pytest.approx([score for _, score in wanted])


def test_spans_of_windows_are_merged_and_begin_where_their_window_sees_most():
    rows = [made_row(6), made_row(6, 3)]
    start, end = np.zeros((2, 9)), np.zeros((2, 9))
    start[0, 2 + 5] = 9.0  # token 5 has a wider context in the second window
    start[1, 2 + 2] = 1.0
    end[1, 2 + 3] = 1.0
    windows = [(row, s, e) for row, s, e in zip(rows, start, end, strict=True)]
    (best, second, *_) = best_spans(windows, lambda first: 3, 30, 20)
    assert best == (Span(10, 13), 2.0) and second.score == 1.0
    assert best_spans([], lambda first: 1, 30, 20) == []


def test_the_loss_is_the_cross_entropy_over_all_windows_of_a_sample_and_no_answer():
    head = SpanHead(1, 1, None, 0.0, True)
    torch.manual_seed(0)
    start, end = torch.randn(2, 3, 4)
    passage = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]]).bool()
    start, end = start.masked_fill(~passage, -1e30), end.masked_fill(~passage, -1e30)
    right = torch.zeros(3, 4, dtype=torch.bool)
    starts, ends = right.clone(), right.clone()
    starts[0, 2] = starts[1, 1] = ends[0, 3] = True  # one token in two windows
    batch = Batch(*[torch.zeros(3, 4)] * 3, torch.tensor([0, 0, 1]))
    batch.gold = {"starts": starts, "ends": ends, "none": torch.tensor([False, True])}
    null = torch.tensor([0.4, -0.6])
    first = torch.cat([start[0, 1:], start[1, 1:3], null[:1] / 2]).softmax(0)
    last = torch.cat([end[0, 1:], end[1, 1:3], null[:1] / 2]).softmax(0)
    wanted = -((first[1] + first[3]).log() + last[2].log()) / 2
    for x in (start, end):
        wanted = wanted - torch.cat([x[2, :2], null[1:] / 2]).log_softmax(0)[-1] / 2
    found = head.loss({"start": start, "end": end, "null": null}, batch)
    torch.testing.assert_close(found, wanted)
    assert head.targets(batch) == 2


@pytest.mark.parametrize(("no_answer", "answers"), [(True, ["nowhere"]), (False, ["nowhere"]), (False, [])])
def test_a_sample_without_any_right_token_adds_nothing_and_no_nan(no_answer: bool, answers: list[str]):
    model = trained("wordvectors", no_answer=no_answer)
    answered = [one for one in questions() if one.gold]
    some = [*answered, question_sample("what", "the film", answers)]
    codec, task = model.start.codec, model.learned
    model.model.eval()
    with_it = model.model(task_batch(task, codec, some, task.rows(codec, some), True))
    without = model.model(task_batch(task, codec, answered, task.rows(codec, answered), True))
    torch.testing.assert_close(with_it.reported, without.reported)
    with_it.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.model.parameters())


def test_gold_tokens_are_those_of_the_answer_in_every_window_that_has_all_of_it():
    task, codec = SpanQA(max_length=24, stride=6), tiny.start("bert").codec
    some = [one for one in questions(9, long=True) if one.gold]
    rows = task.rows(codec, some)
    gold, n = task.gold(some, rows), 0
    for one, of_sample in zip(some, rows, strict=True):
        (answer,) = one.gold
        seen = 0
        for row in of_sample:
            for name, side in (("starts", 0), ("ends", 1)):
                for t in gold[name][n].nonzero()[:, 0].tolist():
                    seen += 1
                    assert row.part[t] == 1 and row.chars[t][side] == answer.span[side]
            n += 1
        assert seen >= 2
    assert not gold["none"].any()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ["elmo", "bert"])
def test_scores_feel_neither_neighbours_nor_gold(method: str, model: str):
    """Other samples, more padding, another gold; the long passage has windows where rows are limited."""
    reader = trained(method, model, max_length=24, stride=6)
    some = [*questions(3), questions(1, long=True)[0]]
    together = scores_of(reader, some)
    row = 0
    for b, one in enumerate(some):
        alone = scores_of(reader, [one])
        count, length = alone["start"].shape
        for name in ("start", "end"):
            own = together[name][row : row + count]
            torch.testing.assert_close(own[:, :length], alone[name], atol=1e-5, rtol=1e-5)
            assert (own[:, length:] == -1e30).all()
        torch.testing.assert_close(together["null"][b], alone["null"][0], atol=1e-5, rtol=1e-5)
        row += count
    if method in LIMITED:
        assert row > len(some) * (2 if model == "bidaf" else 1)
    other = [replace(s, gold=(SpanAnswer(s.texts[1][:3], Span(0, 3)),)) for s in some]
    for name, x in scores_of(reader, other, gold=True).items():
        torch.testing.assert_close(x, together[name], atol=0, rtol=0)


def test_the_threshold_is_found_on_validation_data_and_saved(tmp_path: Path):
    some = questions(9)
    task = SpanQA.of(some)
    assert task.no_answer and task.null_threshold is None
    reader, fitted = finetune(
        tiny.start("wordvectors"), task, tiny.recipe("full"), some, some, Fitting(quiet=True)
    )
    assert isinstance(reader.task.null_threshold, float) and fitted.best.keys() >= {"f1", "exact_match"}
    answers = reader.answers(some)
    assert fitted.best == pytest.approx(task.score([one.gold for one in some], answers))
    for threshold in (-1e9, 0.0, 1e9):
        given = replace(reader.task, null_threshold=threshold)
        assert fitted.best["f1"] >= given.score([x.gold for x in some], given.average([answers]))["f1"] - 1e-9
        assert given.tuned([x.gold for x in some], answers) == given  # what was given stays
    reader.save(tmp_path / "model", {})
    again = load_trained(tmp_path / "model")
    assert again.task == reader.task and again.answers(some) == answers


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ["ulmfit", "gpt"])
def test_what_is_saved_answers_as_it_did(method: str, model: str, tmp_path: Path):
    reader, some = trained(method, model, max_length=32), [*questions(3), questions(1, long=True)[0]]
    reader.save(tmp_path / "model", {})
    before = reader.answers(some)
    assert Predictor.load(tmp_path / "model").answer(some) == before
    for one, answer in zip(some, before, strict=True):
        for span, text, _ in answer.guesses:
            assert one.texts[1][slice(*span)] == text
        assert sum(share for *_, share in answer.guesses) + answer.scores["no_answer"] == pytest.approx(1)


def test_nothing_is_answered_exactly_where_the_difference_exceeds_the_threshold():
    reader, some = trained("elmo"), questions(6)
    answers = reader.answers(some)
    low, high = (replace(reader.task, null_threshold=x) for x in (-1e9, 1e9))
    assert all(x.text == "" and x.spans == () for x in low.average([answers]))
    for said, before in zip(high.average([answers]), answers, strict=True):
        span, text, share = before.guesses[0]
        assert said.text == text and said.spans == ((span, "answer"),) and said.scores["answer"] == share


def test_several_models_answer_by_the_mean_of_their_probabilities():
    task, a, b = SpanQA(), Span(0, 1), Span(2, 3)
    one = Answer(text="a", spans=((a, "answer"),), guesses=((a, "a", 0.6), (b, "b", 0.4)))
    two = Answer(text="b", spans=((b, "answer"),), guesses=((b, "b", 0.9),))
    (mean,) = task.average([[one], [two]])
    assert mean.text == "b" and [g[2] for g in mean.guesses] == pytest.approx([0.65, 0.3])


def test_a_passage_without_words_has_no_answer():
    for method in ("wordvectors", "bert"):
        (answer,) = trained(method).answers([sample("what was very", " ")])
        assert answer.text == "" and answer.spans == () and answer.to_dict()["answer"] == ""


def test_chinese_is_scored_by_characters():
    some = [
        question_sample("谁来了？", "昨天小明来了学校。", ["小明"]),
        question_sample("谁？", "小红走了。", ["小红"]),
    ]
    task = SpanQA.of(some)
    assert task.language == "zh" and not task.no_answer
    answers = [Answer(text="小明来"), Answer(text="小红")]
    scores = task.score([one.gold for one in some], answers)
    assert scores == pytest.approx({"f1": (0.8 + 1) / 2, "exact_match": 0.5})


def test_self_attention_never_looks_at_the_token_itself_or_at_padding():
    torch.manual_seed(0)
    attend = SelfAttention(4)
    x, mask = torch.randn(1, 3, 4), torch.tensor([[True, True, False]])
    found = attend(x, mask)[0, :, 4:8]
    torch.testing.assert_close(found[0], x[0, 1])  # of two tokens the other one
    torch.testing.assert_close(found[1], x[0, 0])
    alone = attend(x[:, :1], mask[:, :1])[0, 0, 4:8]
    assert torch.equal(alone, torch.zeros(4))


def test_the_reader_knows_the_question_and_its_words_order():
    torch.manual_seed(0)
    reader = BiAttentiveReader(4, 3, 0.0).eval()
    x, q = torch.randn(1, 5, 4), torch.randn(1, 3, 4)
    mask, asked = torch.ones(1, 5, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    before = reader(x, q, mask, asked)
    assert before.shape == (1, 5, 6) and not torch.allclose(before, reader(x, q.flip(1), mask, asked))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "bidef"}, "did you mean 'bidaf'"),
        ({"dropout": 1.0}, "task.dropout is 1.0"),
        ({"stride": 0}, "task.stride is 0"),
        ({"max_length": 4}, "task.max_length is 4"),
        ({"hidden": 5}, "task.hidden is for task.model=bidaf"),
        ({"null_threshold": 1.0}, "training has none"),
    ],
)
def test_options_that_mean_nothing_are_errors(options: dict[str, object], said: str):
    with pytest.raises(UsageError, match=said):
        SpanQA(**options)


def test_samples_of_another_shape_are_named():
    with pytest.raises(UserError, match="'x' has 1 text"):
        SpanQA.of([sample("what", key="x", gold=(SpanAnswer("a"),))])
    with pytest.raises(UserError, match="'x' has the answers 'a'"):
        SpanQA.of([sample("what", "a", key="x", gold="a")])
    with pytest.raises(UserError, match="nothing to train on"):
        SpanQA.of([question_sample("what", "a", [])])


def squad_of(path: Path, some: Sequence[Sample]) -> Path:
    """The samples in SQuAD's layout."""
    paragraphs = [
        {
            "context": one.texts[1],
            "qas": [
                {
                    "id": f"q{one.key}",
                    "question": one.texts[0],
                    "answers": [{"text": a.text, "answer_start": a.span.start} for a in one.gold],
                }
            ],
        }
        for one in some
    ]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), "utf-8")
    return path


def invoke(*arguments: object, **more: object):
    return CliRunner().invoke(app, [str(x) for x in arguments], **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader that the command line made."""
    place = tmp_path_factory.mktemp("qa")
    train = squad_of(place / "train.json", questions(12))
    valid = squad_of(place / "valid.json", [replace(x, key=f"v{x.key}") for x in questions(30)[20:]])
    result = invoke(
        "finetune", "qa", train, "--valid", valid, "--method", "wordvectors", "--size", "tiny",
        "--out", place / "reader", "recipe.epochs=2", "task.max_answer=3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "12 questions, 4 without answer" in result.output and "nothing is answered where" in result.output
    return place


def test_commands_train_score_and_answer_with_characters_of_the_passage(folder: Path):
    score = invoke("evaluate", folder / "reader", folder / "valid.json", "--out", folder / "scores.json")
    assert score.exit_code == 0, score.output
    found = json.loads((folder / "scores.json").read_text())["scores"]
    in_python = evaluate(folder / "reader", folder / "valid.json").scores
    assert found == in_python and 0 <= found["exact_match"] <= found["f1"] <= 1
    result = invoke("predict", folder / "reader", folder / "valid.json", "--out", folder / "said.jsonl")
    assert result.exit_code == 0, result.output
    said = [json.loads(line) for line in (folder / "said.jsonl").read_text().splitlines()]
    wanted = [replace(x, key=f"v{x.key}") for x in questions(30)[20:]]
    assert [line["id"] for line in said] == [f"q{one.key}" for one in wanted]
    for one, line in zip(wanted, said, strict=True):
        assert line["question"] == one.texts[0] and len(line["guesses"]) <= 20
        assert [line["answer"]] == [one.texts[1][x["start"] : x["end"]] for x in line["spans"]] or (
            line["answer"] == "" and not line["spans"]
        )


def test_questions_on_one_passage_are_held_out_together(tmp_path: Path):
    lines = [
        {"question": f"what is {word}", "passage": f"passage {n} has {word}", "answers": [word]}
        for n in range(10)
        for word in (f"one{n}", f"two{n}")
    ]
    for line, other in zip(lines[::2], lines[1::2], strict=True):
        line["passage"] = other["passage"] = f"{line['passage']} and {other['answers'][0]}"
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    reading = {"text": (), "label": (), "format": None, "encoding": "utf-8"}
    learn, check, _ = answering(path, None, 0.3, reading, 0, Notes(quiet=True))
    assert len(check) == 6 and len(learn) == 14
    assert not {one.texts[1] for one in learn} & {one.texts[1] for one in check}
    path.write_text(
        "".join(json.dumps({**line, "passage": "one0 two0"}) + "\n" for line in lines[:2] * 5), "utf-8"
    )
    learn, check, _ = answering(path, None, 0.3, reading, 0, Notes(quiet=True))
    assert learn and check


def test_questions_come_from_a_pipe_and_from_python(folder: Path):
    one = questions(1)[0]
    record = json.dumps({"question": one.texts[0], "context": one.texts[1]})
    result = invoke("predict", folder / "reader", "-", "--quiet", input=record)
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout.splitlines()[-1])
    predictor = Predictor.load(folder / "reader")
    (answer,) = predictor.answer((one.texts[0], one.texts[1]))
    assert line["answer"] == answer.text == predictor.answer(json.loads(record))[0].text


def test_on_a_terminal_a_question_stands_beside_its_answer(capsys: pytest.CaptureFixture[str]):
    from pretune.cli.answer import _print_answers

    some = [sample("where is she", "in Rome"), sample("who is he", "in Rome")]
    said = Answer(text="Rome", spans=((Span(3, 7), "answer"),), scores={"answer": 0.75})
    _print_answers(some, [said, Answer(text="", spans=(), scores={"answer": 0.2})])
    printed = capsys.readouterr().out.splitlines()
    assert any("where is she" in line and "Rome" in line and "0.75" in line for line in printed)
    assert any("who is he" in line and "–" in line and "0.2" not in line for line in printed)
    assert not any("in Rome" in line for line in printed)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--kind", "one"), 2, "--kind and --label-separator are for classification"),
        (("--choices", "a"), 2, "--choices are for the task choice"),
        (("task.model=bidef",), 2, "did you mean 'bidaf'"),
        (("task.hidden=9",), 2, "task.hidden is for task.model=bidaf"),
        (("--format", "conll"), 2, "--format is 'conll'"),
        (("--text", "question", "--text", "context"), 1, "without columns"),
    ],
)
def test_mistakes_are_answered_in_one_line(folder: Path, arguments: tuple[str, ...], code: int, said: str):
    result = invoke(
        "finetune", "qa", folder / "train.json", "--method", "wordvectors", "--out", folder / "no", *arguments
    )
    assert result.exit_code == code and said in " ".join(result.output.split())
    assert not (folder / "no").exists()
