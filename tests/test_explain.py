"""Explanations: scores that add up, on the characters of the text, for every method that can be asked."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import pretune
import tiny
from pretune.cli import app
from pretune.cli.explain import doubts
from pretune.data.samples import Sample, Span, sample
from pretune.errors import UsageError, UserError
from pretune.runs.attributions import Attributed, Explaining, units_of
from pretune.runs.explain import Explainer, Explanation, average
from pretune.runs.explanation_page import html, pieces
from pretune.runs.predictor import Predictor
from pretune.runs.run import finetune
from pretune.runs.trained import TrainedModel
from pretune.tasks.classification import Classification
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

SAMPLES = tiny.labelled(24)
QUIET = Fitting(device="cpu", quiet=True)
TEXT = "It was a GOOD film , but very dull !!!!"
WAYS = ("integrated", "gradient", "occlusion")


def learned(
    method: str, recipe: str = "full", samples: list[Sample] = SAMPLES, kind: Any = "one", **changes: Any
) -> TrainedModel:
    task = Classification.of(samples, kind)
    changes = {"epochs": 12} | changes
    trained, _ = finetune(tiny.start(method), task, tiny.recipe(recipe, **changes), samples, [], QUIET)
    assert isinstance(trained, TrainedModel)
    return trained


def explainer(trained: Any, **how: Any) -> Explainer:
    return Explainer(Predictor(trained), Explaining(**how))


def turned(start: Any) -> Any:
    codec = type(start.codec)(replace(start.codec.config, direction="backward"), start.codec.vocab)
    return replace(start, codec=codec)


@pytest.fixture(scope="module")
def ulmfit() -> TrainedModel:
    return learned("ulmfit")


@pytest.fixture(scope="module")
def folder(ulmfit: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explain") / "stars"
    ulmfit.save(out, {"data": {"text": ["review"]}})
    return out


@pytest.fixture(scope="module")
def both() -> Any:
    starts = [replace(tiny.start("ulmfit"), name="fwd"), replace(turned(tiny.start("ulmfit", 1)), name="bwd")]
    recipe = tiny.recipe("full", epochs=12)
    trained, _ = finetune(starts, Classification.of(SAMPLES), recipe, SAMPLES, [], QUIET)
    return trained


def log_odds(explanation: Explanation) -> float:
    p = explanation.probability
    assert p is not None
    return log(p / (1 - p))


@pytest.mark.parametrize(
    ("method", "recipe", "options"),
    [
        ("ulmfit", "full", {}),
        ("ulmfit", "features", {}),
        ("wordvectors", "full", {}),
        ("elmo", "full", {}),
        ("elmo", "features", {"bilstm": 3}),
    ],
)
def test_integrated_gradients_add_up_to_what_the_words_change(
    method: str, recipe: str, options: dict[str, Any]
) -> None:
    trained = learned(method, recipe, **options)
    for text in (TEXT, *tiny.texts(4, 8, 20)):
        found = explainer(trained, steps=200).explain(text)
        assert found.score == pytest.approx(log_odds(found), abs=1e-4)
        assert found.baseline is not None and found.gap is not None
        assert abs(found.gap) < 0.02 * max(1, abs(found.score - found.baseline))
        rough = explainer(trained, steps=1).explain(text)
        assert rough.gap is not None and abs(rough.gap) >= abs(found.gap) - 1e-6


@pytest.mark.parametrize("method", ["ulmfit", "wordvectors", "elmo"])
def test_an_encoder_says_the_same_of_tokens_and_of_their_vectors(method: str) -> None:
    trained = learned(method, epochs=1)
    samples = [sample(text) for text in tiny.texts(5, 3, 60)]  # longer ones than `max_len`
    rows = trained.learned.rows(trained.start.codec, samples)
    batch = task_batch(trained.learned, trained.start.codec, samples, rows, gold=False)
    encoder = trained.model.encoder.eval()
    with torch.no_grad():
        whole, read = encoder(batch), encoder.read_vectors(encoder.vectors(batch), batch)
    assert torch.allclose(whole.summary, read.summary, atol=1e-5)
    for a, b in zip(whole.layers, read.layers, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "qrnn"])
def test_every_word_of_a_long_text_gets_its_gradient(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = tiny.labelled(6)
    start = tiny.start("ulmfit", cell=cell)
    trained, _ = finetune(start, Classification.of(samples), tiny.recipe("full"), samples, [], QUIET)
    text = " ".join(tiny.texts(30, 2, 12))  # `max_len` is 40, `bptt` 10
    found = explainer(trained, method="gradient").explain(text)
    assert len(found.tokens) > 100
    assert sum(token.score != 0 for token in found.tokens[:30]) > 10  # read before what is pooled
    monkeypatch.setattr("pretune.methods.ulmfit.encoder.UNCUT", 16)  # in pieces, worked out twice
    again = explainer(trained, method="gradient").explain(text)
    assert [x.score for x in again.tokens] == pytest.approx([x.score for x in found.tokens], abs=1e-6)


def test_a_gradient_is_the_change_of_the_score_with_a_word(ulmfit: TrainedModel) -> None:
    found = explainer(ulmfit, method="gradient").explain("a good dull film")
    question = sample("a good dull film")
    rows = ulmfit.learned.rows(ulmfit.start.codec, [question])
    batch = task_batch(ulmfit.learned, ulmfit.start.codec, [question], rows, gold=False)
    model = ulmfit.model.eval()

    def score(scale: float, place: int) -> float:
        vectors = model.encoder.vectors(batch).double().float()
        vectors[0, place] *= scale
        with torch.no_grad():
            logits = model.head(model.encoder.read_vectors(vectors, batch), batch)["logits"].double()[0]
        yes, no = ulmfit.task.labels.index(str(found.label)), 1 - ulmfit.task.labels.index(str(found.label))  # type: ignore[attr-defined]
        return float(logits[yes] - logits[no])

    for place, token in enumerate(found.tokens, start=1):
        with torch.no_grad():
            slope = (score(1.01, place) - score(0.99, place)) / 0.02
        assert token.score == pytest.approx(slope, abs=2e-3)


def test_occlusion_is_the_score_less_that_of_the_text_without_the_word(ulmfit: TrainedModel) -> None:
    words = ["a", "good", "dull", "film"]
    found = explainer(ulmfit, method="occlusion").explain(" ".join(words))
    unknown = explainer(ulmfit, method="occlusion", occlude="unknown").explain(" ".join(words))
    assert found.baseline is None and found.gap is None
    assert unknown.score == pytest.approx(found.score)
    for k in range(len(words)):
        without = explainer(ulmfit).explain(" ".join(words[:k] + words[k + 1 :]), label=found.label)
        assert found.tokens[k].score == pytest.approx(found.score - without.score, abs=1e-4)
        blurred = explainer(ulmfit).explain(" ".join([*words[:k], "zvx", *words[k + 1 :]]), label=found.label)
        assert unknown.tokens[k].score == pytest.approx(unknown.score - blurred.score, abs=1e-4)


def test_the_words_that_decide_have_the_largest_scores() -> None:
    """The labels of `tiny.labelled` say whether a text begins with good or with bad."""
    trained = learned("wordvectors", samples=tiny.labelled(60), epochs=40)
    others = [text for text in tiny.texts(40, 31, 8) if not {"good", "bad"} & set(text.split())]
    for way in WAYS:
        for text in others:
            for word, label in (("good", "yes"), ("bad", "no")):
                found = explainer(trained, method=way).explain(f"{word} {text}", label=label)
                assert found.strongest(1)[0].start == 0 and found.tokens[0].score > 0


def test_a_sign_turns_with_the_label(ulmfit: TrainedModel) -> None:
    for way in WAYS:
        for_yes = explainer(ulmfit, method=way).explain(TEXT, label="yes")
        for_no = explainer(ulmfit, method=way).explain(TEXT, label="no")
        assert [x.score for x in for_yes.tokens] == pytest.approx([-x.score for x in for_no.tokens], abs=1e-6)
        assert explainer(ulmfit, method=way).explain(TEXT).label == Predictor(ulmfit).answer(TEXT)[0].label


def test_scores_stand_on_the_characters_of_the_text(ulmfit: TrainedModel) -> None:
    for text in (TEXT, "good<br />BAD good good good good", "a &amp; b\n\nfilm", "", "   "):
        for way in WAYS:
            found = explainer(ulmfit, method=way).explain(text)
            ends = [0]
            for token in found.tokens:
                assert token.text == text[token.start : token.end] and token.start >= ends[-1]
                ends.append(token.end)
            assert "".join("".join(x.text for x in found.tokens).split()) == "".join(text.split())
    marks = explainer(ulmfit).explain(TEXT)
    assert [x.text for x in marks.tokens[-2:]] == ["dull", "!!!!"]  # xxrep 4 ! are one


def test_a_pair_has_scores_on_both_texts(ulmfit: TrainedModel) -> None:
    for way in WAYS:
        found = explainer(ulmfit, method=way).explain(("a good film", "a bad book"))
        assert [(x.part, x.text) for x in found.tokens] == [
            *[(0, word) for word in ("a", "good", "film")],
            *[(1, word) for word in ("a", "bad", "book")],
        ]
    whole = explainer(ulmfit, steps=200).explain(("a good film", "a bad book"))
    assert whole.gap is not None and abs(whole.gap) < 0.02


def test_numbers_and_several_labels_are_explained_too() -> None:
    numbers = [replace(s, gold=3.0 + (s.gold == "yes") + i % 3) for i, s in enumerate(SAMPLES)]
    found = explainer(learned("ulmfit", samples=numbers, kind="number"), steps=200).explain(TEXT)
    assert found.label is None and found.probability is None
    assert found.score == pytest.approx(found.answer.value, abs=1e-4)
    assert found.gap is not None and abs(found.gap) < 0.05
    with pytest.raises(UsageError, match="answers with numbers"):
        explainer(learned("wordvectors", samples=numbers, kind="number")).explain(TEXT, label="yes")
    several = [replace(s, gold=(s.gold, "film") if i % 3 else (s.gold,)) for i, s in enumerate(SAMPLES)]
    tagged = explainer(learned("ulmfit", samples=several, kind="many"), steps=200)
    for label in (None, "film"):
        found = tagged.explain(TEXT, label=label)
        assert found.score == pytest.approx(log_odds(found), abs=1e-4)
        assert found.gap is not None and abs(found.gap) < 0.05


def test_a_forward_and_a_backward_model_are_averaged_on_the_same_characters(both: Any) -> None:
    for way in WAYS:
        whole = explainer(both, method=way).explain(TEXT, label="yes")
        members = [explainer(one, method=way).explain(TEXT, label="yes") for one in both.members.values()]
        assert whole.answer == Predictor(both).answer(TEXT)[0]
        for k, token in enumerate(whole.tokens):
            assert token.score == pytest.approx(sum(one.tokens[k].score for one in members) / 2)
            assert (token.start, token.end) == (members[1].tokens[k].start, members[1].tokens[k].end)
        assert whole.score == pytest.approx(sum(one.score for one in members) / 2)
    summed = explainer(both, steps=200).explain(TEXT)
    assert summed.gap is not None and abs(summed.gap) < 0.05


def test_models_that_cut_text_differently_meet_in_its_characters() -> None:
    a = Attributed(2.0, 0.0, {(0, Span(0, 4)): 1.0, (0, Span(4, 6)): 0.5, (0, Span(8, 9)): 0.5})
    b = Attributed(1.0, 0.5, {(0, Span(0, 2)): 0.2, (0, Span(2, 5)): 0.1, (1, Span(0, 3)): 0.2})
    found = average([a, b])
    assert found.units == pytest.approx({(0, Span(0, 6)): 0.9, (0, Span(8, 9)): 0.25, (1, Span(0, 3)): 0.1})
    assert (found.score, found.baseline) == (1.5, 0.25)


def test_a_mark_and_its_word_are_one_unit(ulmfit: TrainedModel) -> None:
    (rows,) = ulmfit.start.codec.encode([sample("Good films").parts])
    units = units_of(rows)
    assert [span for _, span in units] == [Span(0, 4), Span(5, 10)]
    assert [len(tokens) for tokens in units.values()] == [2, 1]


def test_what_a_model_lacks_is_said() -> None:
    elmo = learned("elmo", "features", epochs=1)
    for how in ({"baseline": "unknown"}, {"method": "occlusion", "occlude": "unknown"}):
        with pytest.raises(UsageError, match="elmo has no unknown word"):
            explainer(elmo, **how).explain(TEXT)
    assert explainer(elmo, method="occlusion").explain(TEXT).tokens
    for options in ({"method": "magic"}, {"baseline": "one"}, {"steps": 0}):
        with pytest.raises(UsageError, match=r"magic|one|steps is 0"):
            Explaining(**options)


def test_word_vectors_beside_an_encoder_are_explained_by_occlusion_only(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("".join(f"{word} 1.0 0.{k}\n" for k, word in enumerate(tiny.WORDS)))
    trained = learned("elmo", "features", epochs=2, vectors=str(tmp_path / "v.txt"))
    with pytest.raises(UsageError, match="explain it by occlusion"):
        explainer(trained).explain(TEXT)
    found = explainer(trained, method="occlusion").explain("a good film")
    without = explainer(trained, method="occlusion").explain("a film", label=found.label)
    assert found.tokens[1].score == pytest.approx(found.score - without.score, abs=1e-4)


def test_a_word_that_is_made_unknown_loses_the_vector_beside_it_too(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("".join(f"{word} 1.0 0.{k}\n" for k, word in enumerate(tiny.WORDS)))
    trained = learned("ulmfit", "features", epochs=2, vectors=str(tmp_path / "v.txt"))
    found = explainer(trained, method="occlusion", occlude="unknown").explain("a good film")
    without = explainer(trained, method="occlusion").explain("a zwx film", label=found.label)
    assert found.tokens[1].score == pytest.approx(found.score - without.score, abs=1e-4)


def test_scores_that_begin_far_from_any_answer_or_miss_their_sum_are_pointed_out(
    ulmfit: TrainedModel,
) -> None:
    found = explainer(ulmfit).explain(TEXT)
    assert doubts([found], Explaining()) == []
    (far,) = doubts(
        [
            replace(
                found,
                baseline=found.score - 300,
                tokens=tuple(replace(token, score=300 / len(found.tokens)) for token in found.tokens),
            )
        ],
        Explaining(),
    )
    assert "--method occlusion" in far
    (missed,) = doubts([replace(found, baseline=found.score - 2, tokens=())], Explaining())
    assert "--steps 200 would come nearer" in missed


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag == "p":
            self.open = ["p" if dict(attrs).get("class") == "text" else ""]
            if self.open == ["p"]:
                self.shown.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self.open = []

    def handle_data(self, data: str) -> None:
        if self.open == ["p"]:
            self.shown[-1] += data


def test_the_page_stands_alone_and_shows_the_text_as_it_was(ulmfit: TrainedModel) -> None:
    texts = [
        TEXT,
        "<script>alert(1)</script> good & bad",
        "two\n\nparagraphs  of   film",
        "",
        "a film",
        "bad",
    ]
    found = [explainer(ulmfit, method="gradient").explain(text) for text in texts]
    page = html(found, "stars on <new>.csv")
    tags = Tags()
    tags.feed(page)
    assert tags.shown == texts
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.seen}
    assert all((at.get("href") or "#").startswith("#") for _, at in tags.seen)
    assert "url(" not in page and "@import" not in page and "http" not in page
    assert "prefers-color-scheme: dark" in page and "<new>" not in page
    for one in found:
        assert f"{100 * one.answer.scores['yes']:.1f} %" in page
    ids = [at["id"] for _, at in tags.seen if "id" in at]
    assert len(ids) == len(set(ids)) and {f"text-{k}" for k in range(1, 7)} <= set(ids)


def test_shades_say_more_than_colours(ulmfit: TrainedModel) -> None:
    found = explainer(ulmfit).explain(TEXT)
    page = html([found], "one")
    shaded = {piece.text: piece for piece in pieces(found, 0) if piece.level}
    strongest = found.strongest(1)[0]
    assert abs(shaded[strongest.text].level) == 5
    for token in found.tokens:
        if token.text in shaded:
            assert (shaded[token.text].level > 0) == (token.score > 0)
    assert re.search(rf'<mark class="[fa]5" title="[+−][0-9.e−+]+">{re.escape(strongest.text)}</mark>', page)
    assert "dashed" in page and "solid" in page and f"for {found.label}" in page


def run(*arguments: object, stdin: str | None = None) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, [str(x) for x in arguments], input=stdin)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stdout, found.stderr


def test_the_command_writes_a_page_or_lines(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("review,id\na good film,1\nA very dull one,2\nbad,3\n")
    code, out, err = run("explain", folder, tmp_path / "new.csv", "--out", tmp_path / "x" / "page.html")
    assert code == 0 and out == "" and "3 texts explained in" in err
    assert "stars on new.csv" in (tmp_path / "x" / "page.html").read_text()
    data = tmp_path / "data.jsonl"
    code, _, err = run("explain", folder, tmp_path / "new.csv", "--out", data, "--limit", 2, "--steps", 99)
    assert code == 0, err
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    assert [row["texts"] for row in rows] == [["a good film"], ["A very dull one"]]
    direct = pretune.Explainer.load(folder, Explaining(steps=99), "cpu").explain("a good film")
    assert [x["score"] for x in rows[0]["tokens"]] == pytest.approx(
        [x.score for x in direct.tokens], abs=1e-6
    )
    for row in rows:
        for x in row["tokens"]:
            assert row["texts"][x["part"]][x["start"] : x["end"]] == x["text"]
        assert row["probability"] == row["answer"]["scores"][row["label"]]
    code, out, _ = run("explain", folder, "-", "--method", "occlusion", "--for", "no", stdin="good\nbad\n")
    assert code == 0 and [json.loads(line)["label"] for line in out.splitlines()] == ["no", "no"]


def test_the_command_answers_mistakes_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good film\n")
    tiny_lm = tmp_path / "lm"
    from pretune.runs.starts import save_start

    save_start(tiny.start("ulmfit"), tiny_lm, {})
    asked = (folder, tmp_path / "a.txt")
    for arguments, code, message in (
        ((*asked, "--out", "x.pdf"), 2, "write .html for a page or .jsonl"),
        ((*asked, "--method", "magic"), 2, "--method is 'magic'"),
        ((*asked, "--method", "gradient", "--steps", 5), 2, "--steps is for --method integrated"),
        ((*asked, "--occlude", "removed"), 2, "--occlude is for --method occlusion"),
        ((*asked, "--for", "yess"), 2, "did you mean 'yes'"),
        ((*asked, "--baseline", "one"), 2, "baseline is 'one'"),
        ((tiny_lm, tmp_path / "a.txt"), 1, "knows no task yet"),
        ((folder, tmp_path / "none.txt"), 1, "none.txt"),
    ):
        found = run("explain", *arguments)
        assert found[0] == code, found[2]
        assert message in " ".join(found[2].split())
        assert len([line for line in found[2].splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "x.pdf").exists()


def test_a_baseline_of_words_is_no_network(tmp_path: Path) -> None:
    from pretune.runs import tfidf

    trained, _ = tfidf.fit(Classification.of(SAMPLES), SAMPLES[:16], SAMPLES[16:])
    trained.save(tmp_path / "tfidf", {})
    with pytest.raises(UserError, match="no network that reads word by word"):
        Explainer.load(tmp_path / "tfidf")
