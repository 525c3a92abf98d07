"""Span question answering: files, answers found in passages, and what the official scripts count."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest

from pretune.data.passages import passage_question, read_passages
from pretune.data.samples import Span
from pretune.data.span_answers import SpanAnswer, placed, question_sample
from pretune.errors import UsageError, UserError
from pretune.metrics.span_qa import (
    best_of,
    best_threshold,
    cmrc,
    longest_stretch,
    mixed,
    normalised,
    squad,
)

SHARED = Path(os.environ.get("PRETUNE_SHARED", Path(__file__).parents[2] / "shared")) / "data"
shared = pytest.mark.skipif(not (SHARED / "xquad").is_dir(), reason="the shared data are not here")
PASSAGE = "Mary lives in Rome. John lives in Paris."


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(x) + "\n" for x in records), "utf-8")
    return path


def squad_file(path: Path, *questions: dict[str, object]) -> Path:
    document = {"version": "2.0", "data": [{"paragraphs": [{"context": PASSAGE, "qas": questions}]}]}
    path.write_text(json.dumps(document), "utf-8")
    return path


def qa(key: str, *answers: tuple[str, int], **more: object) -> dict[str, object]:
    given = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": key, "question": "Where?", "answers": given, **more}


def test_an_answer_stands_where_the_file_says():
    assert placed(PASSAGE, "lives", 25) == SpanAnswer("lives", Span(25, 30))
    assert placed(PASSAGE, "Rome") == SpanAnswer("Rome", Span(14, 18))


def test_an_answer_is_looked_for_near_by_and_the_nearest_is_taken():
    assert placed(PASSAGE, "lives", 22).span == Span(25, 30)
    assert placed(PASSAGE, "lives", 7).span == Span(5, 10)
    assert placed("x" * 500 + "Rome", "Rome", 3).span is None  # that is not near


def test_an_answer_spaced_otherwise_is_taken_as_the_passage_has_it():
    assert placed("It's a re-run (of it).", "It ' s a re - run", 0) == SpanAnswer(
        "It's a re-run", Span(0, 13)
    )
    assert placed("Damaged cards, so be wary", "cards so be", 8) == SpanAnswer("cards, so be", Span(8, 20))
    assert placed(PASSAGE, "Berlin", 3) == SpanAnswer("Berlin")


def test_squad_is_read_with_its_ids_several_golds_and_questions_without_answer(tmp_path: Path):
    path = squad_file(
        tmp_path / "dev.json",
        qa("a", ("Rome", 14), ("in Rome", 11)),
        qa("b", is_impossible=True),
        qa("c", ("Paris", 30)),
    )
    found = read_passages(path)
    assert [s.key for s in found.samples] == ["dev.json:a", "dev.json:b", "dev.json:c"]
    assert found.samples[0].texts == ("Where?", PASSAGE)
    assert found.samples[0].gold == (
        SpanAnswer("Rome", Span(14, 18)),
        SpanAnswer("in Rome", Span(11, 18)),
    )
    assert found.samples[1].gold == () and found.samples[2].gold[0].span == Span(34, 39)
    assert "1 answer found near" in found.notes[0] and "3 questions, 1 without answer" in found.notes[1]


def test_questions_whose_answer_is_nowhere_are_named_and_left_out_of_training_alone(tmp_path: Path):
    path = squad_file(tmp_path / "x.json", qa("a", ("Rome", 14)), qa("b", ("Berlin", 4)))
    found = read_passages(path)
    assert [s.key for s in found.samples] == ["x.json:a"]
    assert "1 question whose answer is not in the passage left out (x.json:b)" in found.notes[0]
    kept = read_passages(path, training=False)
    assert kept.samples[1].gold == (SpanAnswer("Berlin"),) and "kept" in kept.notes[0]


@pytest.mark.parametrize(
    "answers",
    [
        [{"text": "Rome", "start": 14}],
        [{"text": "Rome", "answer_start": 14}],
        {"text": ["Rome"], "answer_start": [14]},
        {"text": "Rome", "start": 14},
        ["Rome"],
        "Rome",
    ],
)
@pytest.mark.parametrize("name", ["passage", "context"])
def test_json_lines_may_write_answers_in_several_ways(tmp_path: Path, answers: object, name: str):
    path = lines(tmp_path / "x.jsonl", {"question": "Where?", name: PASSAGE, "answers": answers})
    assert read_passages(path).samples[0].gold == (SpanAnswer("Rome", Span(14, 18)),)


def test_an_empty_list_says_that_there_is_no_answer_and_nothing_says_nothing(tmp_path: Path):
    path = lines(
        tmp_path / "x.jsonl",
        {"question": "Where?", "passage": PASSAGE, "answers": []},
        {"question": "Who?", "passage": PASSAGE},
        {"question": "Which?", "passage": PASSAGE, "answers": {"text": [], "answer_start": []}},
    )
    found = read_passages(path)
    assert [s.gold for s in found.samples] == [(), ()]
    assert "1 question without question, passage or answer left out (x.jsonl:2)" in found.notes[1]
    everything = read_passages(path, labelled=False)
    assert len(everything.samples) == 3 and all(s.gold is None for s in everything.samples)


def test_rows_of_subjqa_are_merged_and_its_marks_taken_away(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_text(
        "question,review,human_ans_spans,human_ans_indices\n"
        'Good?,"It is good , I say. ANSWERNOTFOUND",is good,"(3, 10)"\n'
        'Good?,"It is good , I say. ANSWERNOTFOUND",ANSWERNOTFOUND,"(20, 34)"\n'
        'Good?,"It is good , I say. ANSWERNOTFOUND",good,"(6, 10)"\n'
        'Bad?,"It is good , I say. ANSWERNOTFOUND",ANSWERNOTFOUND,"(20, 34)"\n'
    )
    good, bad = read_passages(path).samples
    assert good.texts == ("Good?", "It is good , I say.") and bad.gold == ()
    assert good.gold == (SpanAnswer("is good", Span(3, 10)), SpanAnswer("good", Span(6, 10)))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.jsonl", '{"question": "Where?", "answers": "Rome"}', "give --text QUESTION --text PASSAGE"),
        ("x.jsonl", '{"question": "Where?", "passage": "Rome"}', "no column is known to hold the answers"),
        (
            "x.jsonl",
            '{"question": "?", "passage": "a", "answers": [{"start": 1}]}',
            "x.jsonl:1: an answer has",
        ),
        ("x.jsonl", '{"question": "?", "passage": "a", "answers": 7}', "x.jsonl:1: the answers are '7'"),
        (
            "x.jsonl",
            '{"question": "?", "passage": "a", "answers": [{"text": "a", "start": "z"}]}',
            "x.jsonl:1: an answer starts at 'z'",
        ),
        ("x.jsonl", '{"question": "?", "passage": "a", "answers": "b"}', "no question has an answer"),
        ("x.txt", "Where?", "a question needs a passage"),
        ("x.json", '{"data": [{"paragraphs": [{"qas": [{"id": "q7"}]}]}]}', "x.json:q7: SQuAD's layout"),
        ("x.json", '{"data": [7]}', "x.json: SQuAD's layout is broken"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, said: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        read_passages(tmp_path / name)
    assert said in str(error.value)


def test_columns_and_formats_that_do_not_fit_are_usage_errors(tmp_path: Path):
    path = squad_file(tmp_path / "x.json", qa("a", ("Rome", 14)))
    with pytest.raises(UserError, match="without columns"):
        read_passages(path, text=["question", "context"])
    with pytest.raises(UsageError, match="--format is 'txt'"):
        read_passages(path, format="txt")
    table = lines(tmp_path / "x.jsonl", {"q": "Where?", "p": PASSAGE, "a": "Rome"})
    assert read_passages(table, text=["q", "p"], label=["a"]).samples[0].gold[0].text == "Rome"
    with pytest.raises(UserError, match="--text twice"):
        read_passages(table, text=["q"], label=["a"])
    with pytest.raises(UserError, match="not SQuAD's layout"):
        read_passages(lines(tmp_path / "y.json", {"q": 1}), format="squad")


def test_questions_in_python_are_pairs_dicts_or_samples():
    assert passage_question(("Where?", PASSAGE)).texts == ("Where?", PASSAGE)
    assert passage_question({"context": PASSAGE, "question": "Where?"}).texts == ("Where?", PASSAGE)
    assert passage_question({"p": PASSAGE, "q": "Where?"}, ("q", "p")).texts == ("Where?", PASSAGE)
    assert question_sample("Where?", PASSAGE, [("lives", 25)]).gold[0].span == Span(25, 30)
    assert question_sample("Where?", PASSAGE, []).gold == () and question_sample("?", "").gold is None
    with pytest.raises(UserError, match="a question is"):
        passage_question("Where?")


@shared
@pytest.mark.parametrize(
    ("file", "count", "most"),
    [
        ("xquad/xquad.zh.json", 1190, 1),
        ("cmrc2018/cmrc2018_dev.json.xz", 3219, 3),
        ("subjqa/electronics/dev.csv.xz", 255, 2),
    ],
)
def test_published_files_are_read_and_their_answers_stand_in_the_passages(file: str, count: int, most: int):
    samples = read_passages(SHARED / file, training=False).samples
    assert len(samples) == count and max(len(s.gold) for s in samples) <= most
    found = [(s.texts[1][slice(*a.span)], a.text) for s in samples for a in s.gold if a.span is not None]
    assert all(there == text for there, text in found)
    assert len(found) > 0.95 * sum(len(s.gold) for s in samples)


def test_normalising_is_squads():
    assert normalised("  The Cat's, a  HAT—an ant! ") == "cats hat— ant"


@pytest.mark.parametrize(
    ("golds", "answer", "em", "f1"),
    [
        (["the Eiffel Tower"], "Eiffel tower.", 1, 1),
        (["in Rome, Italy"], "Rome", 0, 0.5),  # precision 1, recall 1/3
        (["Rome", "in Rome"], "in Rome", 1, 1),
        (["Rome Rome Paris"], "Rome Rome", 0, 0.8),  # words count as often as they stand
        (["Rome"], "Paris", 0, 0),
        (["Rome"], "", 0, 0),
        ([], "", 1, 1),
        ([], "Rome", 0, 0),
        (["the"], "", 1, 1),  # a gold of which nothing is left is none in version 2.0
    ],
)
def test_em_and_f1_are_those_of_squads_script(golds: list[str], answer: str, em: float, f1: float):
    assert best_of(golds, answer, squad) == pytest.approx((em, f1))


@pytest.mark.parametrize(
    ("golds", "answer", "em", "f1"),
    [
        (["光荣和ω-force"], "光荣和ω-force", 1, 1),
        (["《战国无双3》"], "战国无双3", 1, 1),  # signs do not count
        (["村雨城"], "任天堂游戏谜之村雨城", 0, 2 * 3 / (3 + 10)),
        (["一二三四五"], "一二五四三", 0, 2 * 2 / 10),  # the longest stretch, not all in common
        (["4分钟", "四分钟"], "4 分钟", 0, 1),  # the space is no unit, but text it is
        (["NBA 2k17游戏"], "nba游戏", 0, 2 * 2 / (4 + 3)),
        (["北京"], "上海", 0, 0),
    ],
)
def test_em_and_f1_are_those_of_cmrcs_script(golds: list[str], answer: str, em: float, f1: float):
    assert best_of(golds, answer, cmrc) == pytest.approx((em, f1))


def test_mixed_text_is_split_into_characters_and_words():
    assert mixed("2016年，NBA-总决赛 (G7)") == ["2016", "年", "nba", "总", "决", "赛", "(", "g7", ")"]
    assert longest_stretch("abcdef", "zcdeab") == 3 and longest_stretch("", "a") == 0


def test_the_threshold_is_the_best_of_all():
    """Against trying every one, on made-up differences with ties."""
    chance = Random(0)
    for _ in range(200):
        count = chance.randint(1, 9)
        differences = [float(chance.randint(-3, 3)) for _ in range(count)]
        answerable = [chance.random() < 0.5 for _ in range(count)]
        f1 = [chance.random() if has else 0.0 for has in answerable]

        def score(threshold: float) -> float:
            said = zip(differences, f1, answerable, strict=True)  # noqa: B023
            return sum(x if d <= threshold else float(not has) for d, x, has in said)

        found = best_threshold(differences, f1, answerable)
        assert score(found) == pytest.approx(max(score(x) for x in [*differences, -9.0]))
