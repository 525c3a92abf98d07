"""COPA as first published and as SuperGLUE has it; the layouts of SWAG, OpenBookQA, ARC and CODAH."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pretune.cli import app
from pretune.data.choices import read_choices
from pretune.data.samples import Span
from pretune.errors import UserError

XML = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE copa-corpus SYSTEM "copa.dtd">
<copa-corpus version="1.0">
<item id="1" asks-for="cause" most-plausible-alternative="1">
<p>My body cast a shadow over the grass.</p>
<a1>The sun was rising.</a1>
<a2>The grass was cut.</a2>
</item>
<item id="7" asks-for="effect" most-plausible-alternative="2">
<p>I tipped the bottle.</p>
<a1>The liquid in the bottle froze.</a1>
<a2>The liquid in the bottle poured out.</a2>
</item>
</copa-corpus>
"""
LINES = [
    {
        "premise": "My body cast a shadow over the grass.", "choice1": "The sun was rising.",
        "choice2": "The grass was cut.", "question": "cause", "label": 0, "idx": 0,
    },
    {
        "premise": "I tipped the bottle.", "choice1": "The liquid in the bottle froze.",
        "choice2": "The liquid in the bottle poured out.", "question": "effect", "label": 1, "idx": 1,
    },
]  # fmt: skip


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def jsonl(path: Path, *rows: object) -> Path:
    return write(path, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))


def test_both_layouts_say_the_same_with_a_connective_for_the_question(tmp_path: Path) -> None:
    first = read_choices(write(tmp_path / "copa.xml", XML))
    second = read_choices(jsonl(tmp_path / "copa.jsonl", *LINES))
    assert first.samples[0].key == "copa.xml:1" and first.samples[1].key == "copa.xml:7"
    assert [(x.texts, x.gold, x.marks) for x in first.samples] == [
        (x.texts, x.gold, x.marks) for x in second.samples
    ]
    cause, effect = first.samples
    assert cause.texts == (
        "My body cast a shadow over the grass because", "The sun was rising.", "The grass was cut.",
    )  # fmt: skip
    assert cause.gold == 0 and cause.marks == (Span(37, 44),)  # the connective stays where rows are short
    assert effect.texts[0] == "I tipped the bottle so" and effect.gold == 1
    assert first.counts_from == second.counts_from == 0
    assert any("read as a connective after the premise" in note for note in second.notes)


def test_chinese_premises_get_chinese_connectives(tmp_path: Path) -> None:
    row = {"premise": "这个人打开了水龙头。", "choice1": "马桶灌满了水。", "choice2": "水流出来了。"}
    rows = [{**row, "question": "effect", "label": 1}, {**row, "question": "cause", "label": 0}]
    found = read_choices(jsonl(tmp_path / "xcopa.zh.jsonl", *rows)).samples
    assert [x.texts[0] for x in found] == ["这个人打开了水龙头所以", "这个人打开了水龙头因为"]


def test_files_without_answers_are_read_to_predict(tmp_path: Path) -> None:
    bare = XML.replace(' most-plausible-alternative="1"', "").replace(' most-plausible-alternative="2"', "")
    found = read_choices(write(tmp_path / "new.xml", bare), labelled=False).samples
    assert [x.gold for x in found] == [None, None] and len(found[0].parts) == 3
    with pytest.raises(UserError, match="no row has a question and an answer"):
        read_choices(tmp_path / "new.xml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<a2>The grass was cut.</a2>", "", r"copa.xml:1: the item has no text in <a2>"),
        ('alternative="2"', 'alternative="3"', r"copa.xml:7: most-plausible-alternative is '3'"),
        (
            'asks-for="cause"',
            'asks-for="reason"',
            r"copa.xml:1: asks for 'reason', others for cause or effect",
        ),
        ("</copa-corpus>", "", r"copa.xml: not valid XML"),
        ("item", "entry", r"copa.xml: holds no <item asks-for"),
    ],
)
def test_mistakes_name_the_item(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_choices(write(tmp_path / "copa.xml", XML.replace(old, new)))


def test_a_question_of_another_kind_among_causes_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "copa.jsonl", LINES[0], {**LINES[1], "question": "why"})
    with pytest.raises(UserError, match=r"copa.jsonl:2: asks for 'why', others for cause or effect"):
        read_choices(path)


def test_a_model_learned_from_one_layout_answers_the_other(tmp_path: Path) -> None:
    train, test = jsonl(tmp_path / "train.jsonl", *LINES * 2), write(tmp_path / "copa.xml", XML)
    model = tmp_path / "model"
    options = "--method wordvectors --device cpu -q --valid-share 0 codec.min_count=1 encoder.width=8"
    learn = ["finetune", "choice", str(train), "--out", str(model), *options.split()]
    done = CliRunner().invoke(app, [*learn, "recipe.epochs=30", "recipe.lr=0.05"])
    assert done.exit_code == 0, done.output
    scored = CliRunner().invoke(
        app, ["evaluate", str(model), str(test), "-q", "--out", str(tmp_path / "s.json")]
    )
    assert scored.exit_code == 0, scored.output
    assert json.loads((tmp_path / "s.json").read_text())["scores"]["accuracy"] == 1.0
    said = CliRunner().invoke(app, ["predict", str(model), str(test), "-q"])
    assert [json.loads(line)["choice"] for line in said.stdout.splitlines()] == [0, 1]


def test_swag_is_read_as_published(tmp_path: Path) -> None:
    text = (
        ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n"
        "0,anetv_1,3416,Members of the procession walk down the street holding small horn brass instruments. "
        "A drum line,Members of the procession walk down the street holding small horn brass instruments.,"
        'A drum line,gold,"passes by, walking",has heard approaching them.,arrives.,turns the lead.,0\n'
        "1,lsmdc_2,1111,He sits. He,He sits.,He,gen,eats.,flies.,sings.,sleeps.,3\n"
    )
    found = read_choices(write(tmp_path / "train.csv", text))
    assert found.text_columns == ("startphrase",) and found.label_columns == ("label",)
    assert [x.gold for x in found.samples] == [0, 3] and found.samples[1].texts[0] == "He sits. He"
    assert found.samples[0].texts[1] == "passes by, walking" and len(found.samples[0].parts) == 5


def test_openbookqa_and_arc_are_read_as_published(tmp_path: Path) -> None:
    def question(name: str, stem: str, labels: str, key: str, **more: object) -> dict[str, object]:
        choices = [{"text": f"{stem} {x}", "label": x} for x in labels]
        return {"id": name, "question": {"stem": stem, "choices": choices}, "answerKey": key, **more}

    rows = [
        question("7-980", "The sun is responsible for", "ABCD", "D", fact1="the sun", humanScore="1.00"),
        question("7-584", "Oak tree seeds", "ABCD", "A", fact1="a plant", humanScore="0.80"),
    ]
    found = read_choices(jsonl(tmp_path / "train_complete.jsonl", *rows))
    assert [x.gold for x in found.samples] == [3, 0]
    assert found.samples[0].texts[:2] == ("The sun is responsible for", "The sun is responsible for A")
    arc = [
        question("Mercury_1", "Which is", "ABCD", "C"),
        question("NYSEDREGENTS_2", "Which was", "1234", "3"),
        question("Mercury_3", "Which one", "ABC", "B"),
        question("AKDE_4", "Which of", "ABCDE", "E"),
    ]
    found = read_choices(jsonl(tmp_path / "ARC-Easy-Train.jsonl", *arc))
    assert [x.gold for x in found.samples] == [2, 2, 1, 4]
    assert [len(x.parts) - 1 for x in found.samples] == [4, 4, 3, 5]
