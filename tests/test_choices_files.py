"""Files of multiple choice: every way of writing choices and answers, mistakes with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretune.data.choices import choice_sample, read_choices
from pretune.data.readers import read_samples
from pretune.data.samples import Span
from pretune.errors import UserError


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def csv(folder: Path, text: str, name: str = "q.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


SUN = {"question": "The sun is", "choices": ["a moon", "a star", "a cat"]}


@pytest.mark.parametrize(
    ("answers", "golds"),
    [
        ([1, 0], [1, 0]),
        ([1, 3], [0, 2]),  # no 0, and a 3 where there are three: counted from 1
        (["1", "2"], [1, 2]),
        (["B", "a"], [1, 0]),
        (["a star", "a cat"], [1, 2]),
    ],
)
def test_answers_are_numbers_letters_or_texts(tmp_path, answers, golds):
    path = jsonl(tmp_path, *({**SUN, "answer": answer} for answer in answers))
    assert [one.gold for one in read_choices(path).samples] == golds


def test_labels_of_choices_come_before_numbers(tmp_path):
    """As ARC and OpenBookQA are published."""
    rows = [
        {
            "id": "x",
            "question": {
                "stem": "The sun is",
                "choices": [{"text": "a moon", "label": "1"}, {"text": "a star", "label": "2"}],
            },
            "answerKey": key,
        }
        for key in ("2", "1")
    ]
    found = read_choices(jsonl(tmp_path, *rows))
    assert [one.gold for one in found.samples] == [1, 0]
    assert found.samples[0].texts == ("The sun is", "a moon", "a star")
    rows = [
        {
            "question_stem": "The sun is",
            "choices": {"text": ["a", "b"], "label": ["A", "B"]},
            "answerKey": "B",
        }
    ]
    assert read_choices(jsonl(tmp_path, *rows)).samples[0].gold == 1


def test_texts_that_are_numbers_are_taken_for_texts_where_all_answers_are(tmp_path):
    rows = [
        {"question": "1 + 2", "choices": ["0", "3", "4"], "answer": "3"},
        {"question": "2 + 2", "choices": ["4", "0"], "answer": "4"},
    ]
    assert [one.gold for one in read_choices(jsonl(tmp_path, *rows)).samples] == [1, 0]


def test_context_and_question_are_joined_and_the_question_is_marked(tmp_path):
    row = {"passage": "It rained. ", "question": " Why wet?", "options": ["rain", "sun"], "answer": 0}
    (one,) = read_choices(jsonl(tmp_path, row)).samples
    assert one.texts[0] == "It rained. Why wet?" and one.marks == (Span(11, 19),)
    (alone,) = read_choices(jsonl(tmp_path, {**row, "passage": None})).samples
    assert alone.texts[0] == "Why wet?" and alone.marks == ()
    assert choice_sample("Why wet?", ["rain", "sun"], 0, "It rained.", one.key) == one
    assert choice_sample("为什么？", ["雨", "晴"], context="下雨了。").texts[0] == "下雨了。为什么？"


def test_a_column_for_each_choice_and_lists_in_cells(tmp_path):
    swag = "startphrase,ending0,ending1,ending2,label\nShe runs.,one,two,three,2\nHe is.,one,two,,0\n"
    found = read_choices(csv(tmp_path, swag))
    assert [one.texts for one in found.samples] == [
        ("She runs.", "one", "two", "three"),
        ("He is.", "one", "two"),
    ]
    assert found.choice_columns == ("ending0", "ending1", "ending2") and found.label_columns == ("label",)
    letters = "question,A,B,C,answer\nWhat?,one,two,three,C\nWhy?,one,two,three,A\n"
    assert [one.gold for one in read_choices(csv(tmp_path, letters)).samples] == [2, 0]
    cells = 'question,choices,answer\nWhat?,"[""one"", ""two""]",1\nWhy?,"[""x"", ""y""]",0\n'
    assert read_choices(csv(tmp_path, cells)).samples[0].texts == ("What?", "one", "two")
    story = (
        "InputSentence1,InputSentence2,RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding\n"
    )
    rows = "It was late.,He slept.,He woke.,He flew.,1\nIt was hot.,She swam.,She froze.,She dried.,2\n"
    found = read_choices(csv(tmp_path, story + rows))
    assert [one.gold for one in found.samples] == [0, 1] and found.counts_from == 1
    assert found.samples[0].texts[0] == "It was late. He slept."


def test_a_table_without_header_is_read_by_places(tmp_path):
    """As CODAH is published: kind, question, four endings, answer."""
    rows = "o\tI run. I\tsit.\tfly.\twin.\teat.\t0\no\tHe is. He\ta.\tb.\tc.\td.\t3\n"
    found = read_choices(csv(tmp_path, rows, "q.tsv"))
    assert [one.gold for one in found.samples] == [0, 3]
    assert found.samples[0].texts == ("I run. I", "sit.", "fly.", "win.", "eat.")
    again = read_choices(
        csv(tmp_path, "o\tI am. I\ta\tb\tc\td\n", "new.tsv"),
        text=found.text_columns, choices=found.choice_columns, label=found.label_columns, labelled=False,
    )  # fmt: skip
    assert again.samples[0].texts == ("I am. I", "a", "b", "c", "d") and again.samples[0].gold is None


def test_a_second_file_is_counted_as_the_first(tmp_path):
    path = jsonl(tmp_path, {**SUN, "answer": 1}, {**SUN, "answer": 2})
    assert [one.gold for one in read_choices(path).samples] == [1, 2]
    assert [one.gold for one in read_choices(path, counts_from=1).samples] == [0, 1]


def test_rows_without_an_answer_are_left_out_and_noted(tmp_path):
    found = read_choices(
        jsonl(tmp_path, {**SUN, "answer": 1}, {**SUN, "answer": -1}, {**SUN, "answer": None})
    )
    assert len(found.samples) == 1
    assert "q.jsonl: 2 rows without answer left out (q.jsonl:2, q.jsonl:3)" in found.notes
    kept = read_choices(jsonl(tmp_path, {**SUN, "answer": -1}), labelled=False)
    assert len(kept.samples) == 1


def test_what_was_guessed_and_counted_is_said(tmp_path):
    notes = read_choices(
        jsonl(tmp_path, {**SUN, "answer": 1}, {**SUN, "choices": ["a", "a"], "answer": 0})
    ).notes
    assert notes == [
        "q.jsonl: question from column 'question', choices from column 'choices', "
        "answer from column 'answer' (guessed; --text, --choices and --label choose)",
        "q.jsonl: 2 questions with 2 or 3 choices; answers are numbers counted from 0",
        "q.jsonl: 1 question has a choice twice, kept (q.jsonl:2)",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**SUN, "answer": 0}, {**SUN, "answer": 7}], "q.jsonl:2: the answer '7' is none of 3 choices"),
        ([{**SUN, "answer": "a dog"}], "q.jsonl:1: the answer 'a dog' is none of 3 choices"),
        ([{**SUN, "choices": ["one"], "answer": 0}], "q.jsonl:1: 1 choices; a question needs at least two"),
        ([{**SUN, "choices": ["one", " "], "answer": 0}], "q.jsonl:1: choice 1 is blank"),
        ([{**SUN, "choices": "one, two", "answer": 0}], "q.jsonl:1: the choices .'choices'. are no list"),
        ([{**SUN, "choices": "[one", "answer": 0}], "q.jsonl:1: the choices are no JSON list"),
        (
            [{"question": "What?", "answer": 0}],
            "no column is known to hold the choices; choose with --choices",
        ),
        (
            [{"choices": ["a", "b"], "answer": 0}],
            "no column is known to hold the question; choose with --text",
        ),
        ([SUN], "no column is known to hold the answers; choose with --label"),
    ],
)
def test_mistakes_say_where_and_what_to_do(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read_choices(jsonl(tmp_path, *rows))


@pytest.mark.parametrize(
    ("name", "count", "choices"),
    [
        ("codah/full_data.tsv", 2776, {4}),
        ("openbookqa/train.jsonl", 4957, {4}),
        ("arc-easy/test.jsonl", 2376, {3, 4, 5}),
        ("arc-challenge/train.jsonl", 1119, {3, 4, 5}),
    ],
)
def test_published_files_are_read_as_they_are(shared, name, count, choices):
    found = read_choices(shared(f"data/{name}"))
    assert len(found.samples) == count and {len(s.parts) - 1 for s in found.samples} == choices
    assert {s.gold for s in found.samples} >= {0, 1, 2}


def test_pairs_of_published_files_are_read_as_they_are(shared):
    def read(name: str, text: list[str], label: str, **options: Any) -> Any:
        return read_samples(shared(f"data/{name}"), text=text, label=[label], **options)

    rte = read("glue-rte/train.tsv", ["sentence1", "sentence2"], "label")
    sick = read("sick/SICK_train.txt", ["sentence_A", "sentence_B"], "relatedness_score")
    stsb = read("stsb/stsb-en-train.csv", ["0", "1"], "2")
    ocnli = read("ocnli/train.10k.json.xz", ["sentence1", "sentence2"], "label")
    senti = read("chnsenticorp/train.tsv.xz", ["text_a"], "label")
    assert [len(x.samples) for x in (rte, sick, stsb, ocnli, senti)] == [2490, 4500, 5749, 9985, 9600]
    assert [x.kind for x in (rte, sick, stsb, ocnli, senti)] == ["one", "number", "number", "one", "one"]
    assert any(
        "15 rows without label ('-': annotators did not agree) left out" in note for note in ocnli.notes
    )


def test_a_dash_is_no_label_unless_it_is_one_of_two_or_beside_a_plus(tmp_path):
    def labels(*found: str) -> set[str]:
        path = csv(tmp_path, "text,label\n" + "".join(f"text {i},{x}\n" for i, x in enumerate(found)))
        return {str(one.gold) for one in read_samples(path).samples}

    assert labels("yes", "no", "-", "yes") == {"yes", "no"}
    assert labels("good", "-", "good") == {"good", "-"}
    assert labels("+", "-", "0") == {"+", "-", "0"}
