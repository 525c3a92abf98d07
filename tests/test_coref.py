"""Coreference: files, rows, spans and clusters of every method, and the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.data.documents import document, read_documents, write_documents
from pretune.data.samples import Part, Sample, Span, sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.runs.predictor import Predictor, evaluate
from pretune.runs.run import finetune
from pretune.runs.trained import join, task_config, task_from
from pretune.tasks.coref import Coref
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

QUIET = Fitting(device="cpu", quiet=True)
SMALL: dict[str, Any] = {"max_width": 3, "hidden": 8, "feature": 4, "dropout": 0.0}


def story(key: str, *sentences: str) -> Sample:
    """Words with the cluster of each behind a slash: `film/1 was good`."""
    lists = [[word.partition("/")[0] for word in line.split()] for line in sentences]
    clusters: dict[str, list[list[int]]] = {}
    at = 0
    for line in sentences:
        for word in line.split():
            if name := word.partition("/")[2]:
                clusters.setdefault(name, []).append([at, at])
            at += 1
    made = document({"key": key, "sentences": lists, "clusters": [*clusters.values()]}, key, labelled=True)
    return replace(made, key=key)


def stories(count: int, seed: int = 0) -> list[Sample]:
    """Documents in which each of `film`, `book` and `plot` is one thing throughout."""
    chance, made = Random(seed), []
    for number in range(count):
        lines = []
        for _ in range(3):
            first, second = chance.sample(("film", "book", "plot"), 2)
            lines.append(f"the {first}/{first} was {chance.choice(tiny.WORDS[6:13])} not {second}/{second}")
        made.append(story(f"d{number}/0", *lines))
    return made


# Files


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def columns(*words: str, name: str = "a/b", part: int = 0) -> str:
    """Lines of CoNLL 2012 from `word brackets`; an empty word ends a sentence."""
    lines, at = [f"#begin document ({name}); part {part:03d}"], 0
    for word in words:
        form, _, cell = word.partition(" ")
        lines.append(f"{name}   {part}   {at}   {form}   NN   *   {cell or '-'}" if form else "")
        at = at + 1 if form else 0
    return "\n".join([*lines, "", "#end document", ""])


def said(one: Sample) -> list[list[str]]:
    return [[one.texts[0][a:b] for a, b in cluster] for cluster in one.gold]


def test_brackets_nested_and_crossing_are_clusters_of_spans(tmp_path: Path) -> None:
    text = columns(
        "Her (1|(0)", "sister 1)", "met", "Ann (0)", ".", "", "a (7", "b (3", "c 7)", "d 3)", "c (7)"
    )
    text += columns("only", "words", name="a/b", part=1)
    found = read_documents(write(tmp_path, "x.conll", text))
    one, other = found.samples
    assert (one.key, other.key) == ("a/b/0", "a/b/1")
    assert one.texts[0] == "Her sister met Ann . a b c d c"
    assert said(one) == [["Her", "Ann"], ["Her sister"], ["a b c", "c"], ["b c d"]]
    assert [one.texts[0][a:b] for a, b in one.marks] == ["Her sister met Ann .", "a b c d c"]
    assert other.gold == ()
    assert found.notes == ["x.conll: 2 documents, 6 mentions in 4 clusters, 2 of one mention"]
    bare = read_documents(tmp_path / "x.conll", labelled=False).samples[0]
    assert bare.gold is None and bare.parts == one.parts


def test_a_mention_within_one_of_its_own_cluster_closes_first(tmp_path: Path) -> None:
    found = read_documents(write(tmp_path, "x.conll", columns("a (0", "b (0", "c 0)", "d 0)")))
    assert said(found.samples[0]) == [["a b c d", "b c"]]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    text = columns("Her (1|(0)", "sister 1)", "met", "(", ".", "", "a (7", "b (3", "c 7)", "d 3)")
    (one,) = read_documents(write(tmp_path, "x.conll", text)).samples
    written = write_documents([(one, one.parts[0].words, one.gold)] * 2)
    again = read_documents(write(tmp_path, "y.conll", written)).samples
    assert again == [one, one]


def test_lines_of_json_count_characters_or_words(tmp_path: Path) -> None:
    lines = [
        {"text": "Ann said she won.", "clusters": [[[9, 12], [0, 3]]]},
        {"words": ["Ann", "said", "she", "won"], "clusters": [[[0, 1], [2, 3]], [[2, 4]]]},
        {"sentences": [["Ann", "won"], ["she", "did"]], "clusters": [[[0, 0], [2, 3]]], "doc_key": "nw/1"},
    ]
    path = write(tmp_path, "x.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    text, words, sentences = read_documents(path).samples
    assert said(text) == [["Ann", "she"]] and text.key == "x.jsonl:1" and not text.parts[0].words
    assert said(words) == [["Ann", "she"], ["she won"]] and not words.marks
    assert said(sentences) == [["Ann", "she did"]] and sentences.key == "nw/1"
    assert len(sentences.marks) == 2
    bare = read_documents(path, labelled=False).samples
    assert [s.gold for s in bare] == [None] * 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.conll", columns("a (0", "b 1)"), r"a.conll:3: 1\) closes a mention that nothing has opened"),
        ("a.conll", columns("a (0", "b"), r"a.conll:2: \(0 opens a mention that nothing closes"),
        ("a.conll", columns("a 0|(1)"), r"a.conll:2: '0\|\(1\)' in the last column; a mention's brackets"),
        ("a.conll", "a b c\n", r"a.conll:1: 'a b c'; document, part, number, word and, last, brackets"),
        ("a.conll", "\n", r"a.conll: holds no document"),
        ("a.csv", "a,b\n", r"a.csv: documents are read from CoNLL's columns or JSON lines"),
        ("a.txt", "Ann won.\n", r"a.txt: a text alone has no clusters"),
        ("a.jsonl", '{"clusters": []}', r'a.jsonl:1: give one of "text", "words" and "sentences"'),
        (
            "a.jsonl",
            '{"text": "a", "clusters": [[0, 1]]}',
            r'a.jsonl:1: "clusters" is a list of lists of \[start',
        ),
        ("a.jsonl", '{"text": "a"}', r'a.jsonl:1: "clusters" is a list of lists of'),
        (
            "a.jsonl",
            '{"text": "ab", "clusters": [[[0, 3]]]}',
            r"from 0 to 3 \(exclusive\) in a text of 2 char",
        ),
        ("a.jsonl", '{"words": ["a", 3], "clusters": []}', r'a.jsonl:1: "words" is a list of words'),
        (
            "a.jsonl",
            '{"words": ["a"], "clusters": [[[1, 1]]]}',
            r"from 1 to 1 \(exclusive\) in a text of 1 words",
        ),
    ],
)
def test_mistakes_of_files_name_the_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_documents(write(tmp_path, name, text))


def test_columns_cannot_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.conll", columns("a (0)"))
    with pytest.raises(UsageError, match="--text and --label name columns"):
        read_documents(path, label=["3"])
    with pytest.raises(UsageError, match="--format is 'conl'; did you mean 'conll'"):
        read_documents(path, format="conl")


def test_litbank_is_read_as_it_lies(shared: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shared("data/litbank-coref")
    found = read_documents(folder)
    assert len(found.samples) == 100 and len({s.key for s in found.samples}) == 100
    assert sum(len(cluster) for s in found.samples for cluster in s.gold) == 29_103
    alice = next(s for s in found.samples if s.key.startswith("11_alices"))
    assert {"Alice", "her", "she"} <= set(max(said(alice), key=len))
    written = write_documents([(alice, alice.parts[0].words, alice.gold)])
    assert read_documents(write(tmp_path, "x.conll", written)).samples == [alice]


# Rows


def test_encoders_without_a_limit_read_documents_whole_and_elmo_sentences() -> None:
    asked, task = stories(2), Coref(**SMALL)
    for method, rows in (("wordvectors", [1, 1]), ("ulmfit", [1, 1]), ("elmo", [3, 3])):
        assert [len(x) for x in task.rows(tiny.start(method).codec, asked)] == rows
    by_sentence = replace(task, reading="sentences")
    assert [len(x) for x in by_sentence.rows(tiny.start("ulmfit").codec, asked)] == [3, 3]
    whole = replace(task, reading="document")
    assert [len(x) for x in whole.rows(tiny.start("elmo").codec, asked)] == [1, 1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("segment", [None, 12])
def test_every_word_is_read_in_rows_of_whole_sentences(method: str, segment: int | None) -> None:
    lines = [" ".join(tiny.WORDS[k : k + 4]) for k in range(0, 20, 4)] * 6
    asked = story("long/0", *lines, " ".join(tiny.WORDS * 3))  # the last sentence fits into no short row
    codec: Any = tiny.start(method).codec
    task = Coref(**SMALL, segment=segment)
    rows = task.rows(codec, [asked])[0]
    text, room = asked.texts[0], getattr(codec.config, "context", None)
    limit = min((x for x in (room, segment) if x is not None), default=None)
    assert limit is None or max(map(len, rows)) <= limit
    read = sorted({at for row in rows for p, span in zip(row.part, row.chars, strict=True) if p == 0
                   for at in range(*span)})  # fmt: skip
    assert [text[at] for at in read] == [sign for sign in text if sign != " "]
    for row in rows[:-1]:  # a row ends where a sentence does, but within the long one
        end = max(span.end for p, span in zip(row.part, row.chars, strict=True) if p == 0)
        assert end in {mark.end for mark in asked.marks} or end > asked.marks[-1].start
    if limit == 12:
        assert len(rows) > 5


def test_line_breaks_between_sentences_push_no_word_out_of_a_row() -> None:
    text = "\n\n\n".join(" ".join(tiny.WORDS[k : k + 4]) + " ." for k in range(0, 20, 4) for _ in range(8))
    asked = document({"text": text, "clusters": []}, "blank", labelled=False)
    start = tiny.start("gpt")
    rows = Coref(**SMALL, segment=20).rows(start.codec, [asked])[0]
    assert max(map(len, rows)) <= 20
    read = {
        at
        for row in rows
        for p, span in zip(row.part, row.chars, strict=True)
        if p == 0
        for at in range(*span)
    }
    assert all(at in read for at, sign in enumerate(text) if not sign.isspace())


def test_sentences_of_a_plain_text_are_found() -> None:
    task, asked = Coref(), sample("Ann won. She cried!  Then Bob came")
    words = task.words_of(asked)
    found = [[asked.texts[0][slice(*words[w])] for w in range(*some)] for some in task.sentences_of(asked)]
    assert [" ".join(x) for x in found] == ["Ann won .", "She cried !", "Then Bob came"]
    assert task.sentences_of(sample("")) == []


def test_mentions_take_the_words_that_they_share_characters_with() -> None:
    text = "Ann's mother said she won."
    gold = ((Span(0, 3), Span(18, 21)), (Span(0, 12),), (Span(3, 4), Span(5, 5 + 1)))
    asked = Sample(
        "k", (Part(text, tuple(Span(a, b) for a, b in ((0, 3), (3, 5), (6, 12), (13, 17), (18, 21)))),), gold
    )
    mentions = Coref().gold([asked, asked], [])["mentions"].tolist()
    assert mentions[:4] == [[0, 0, 1], [4, 4, 1], [0, 2, 2], [1, 1, 3]]  # a space alone is no word
    assert mentions[4:] == [[first + 5, last + 5, cluster + 3] for first, last, cluster in mentions[:4]]


# Models


def scores_of(trained: Any, some: list[Sample], gold: bool = False) -> Any:
    batch = task_batch(trained.task, trained.start.codec, some, trained.rows(some), gold)
    trained.model.eval()
    return trained.model(batch).scores


@pytest.mark.parametrize(("method", "recipe"), [("elmo", "features"), ("ulmfit", "full"), ("bert", "full")])
def test_answers_do_not_depend_on_batch_or_order(method: str, recipe: str) -> None:
    samples = [
        *stories(3),
        story("long/0", *["the film was good but the book is bad"] * 12),
        sample("", key="none"),
    ]
    trained = join(tiny.start(method), Coref(**SMALL, singletons=True), tiny.recipe(recipe), 0)
    torch.nn.init.ones_(trained.model.head.spans.scorer.last.bias)  # so that there are links
    alone = [trained.answers([one])[0].clusters for one in samples]
    assert any(alone) and alone[-1] == ()
    for size in (2, 5):
        assert [x.clusters for x in trained.answers(samples[::-1], size)][::-1] == alone
    with torch.no_grad():
        together, first = scores_of(trained, samples), scores_of(trained, samples[:1])
    own = len(first["candidate_scores"])
    torch.testing.assert_close(
        together["candidate_scores"][:own], first["candidate_scores"], atol=1e-5, rtol=0
    )
    kept, most = first["scores"].shape
    torch.testing.assert_close(together["scores"][:kept, :most], first["scores"], atol=1e-4, rtol=0)
    assert torch.equal(together["antecedents"][:kept, :most], first["antecedents"])


def test_a_batch_loses_as_much_as_its_samples_alone() -> None:
    samples = stories(4)
    for singletons in (False, True):
        trained = join(tiny.start("elmo"), Coref(**SMALL, singletons=singletons), tiny.recipe("full"), 0)
        trained.model.eval()

        def loss(some: list[Sample], trained: Any = trained) -> float:
            batch = task_batch(trained.task, trained.start.codec, some, trained.rows(some), True)
            assert trained.model.head.targets(batch) == sum(len(s.parts[0].words) for s in some)
            return float(trained.model(batch).reported)

        assert loss(samples) == pytest.approx(sum(loss([one]) for one in samples), rel=1e-4)


def test_mention_scores_are_learned_beside_links_as_much_as_asked_for() -> None:
    samples = stories(2)
    losses = []
    for weight in (0.0, 1.0, 3.0):
        trained = join(tiny.start("gpt"), Coref(**SMALL, mention_weight=weight), tiny.recipe("full"), 0)
        trained.model.eval()
        batch = task_batch(trained.task, trained.start.codec, samples, trained.rows(samples), True)
        output = trained.model(batch)
        losses.append(float(output.reported))
    mentions = {(first, last) for first, last, _ in batch.gold["mentions"].tolist()}
    said = zip(output.scores["candidates"].tolist(), output.scores["candidate_scores"].tolist(), strict=True)
    signed = torch.tensor([x if tuple(span) in mentions else -x for span, x in said])
    assert losses[1] - losses[0] == pytest.approx(float(-signed.sigmoid().log().sum()), rel=1e-4)
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)


def learned(method: str, recipe: str, train: list[Sample], epochs: int, **changes: Any) -> tuple[Any, Any]:
    """A model that has read these documents so often, and how its training went."""
    calm = {"task_drop_mult": 0.0} if method == "ulmfit" else {}
    made = tiny.recipe(recipe, **{"epochs": epochs, "batch_size": len(train), "lr": 0.04, **changes})
    task = Coref.of(train, **SMALL, spans_per_word=0.6)
    return finetune(tiny.start(method, **calm), task, made, train, [], QUIET)


def score(trained: Any, some: list[Sample]) -> dict[str, float]:
    found: dict[str, float] = trained.task.score([s.gold for s in some], trained.answers(some))
    return found


def test_a_frozen_encoder_is_learned_from_through_a_bilstm() -> None:
    before = tiny.start("elmo")
    trained, fitted = learned("elmo", "features", stories(2), 30, lr=0.02, bilstm=24, dropout=0.0)
    assert fitted.history[-1]["loss"] < 0.5 * fitted.history[0]["loss"]
    frozen = trained.model.encoder.encoder.state_dict()
    for name, weight in before.encoder.for_task().state_dict().items():
        assert torch.equal(weight, frozen[name]), name


def test_singletons_are_answered_only_where_they_were_learned() -> None:
    train = [
        story(f"s{k}/0", f"the film/1 was {w} not book", f"the film/1 is {w}") for k, w in enumerate("ab")
    ]
    alone = [story(f"s{k}/0", f"the film/1 was {w} not book/2", f"a plot is {w}") for k, w in enumerate("ab")]
    assert not Coref.of(train).singletons and Coref.of([*train, *alone]).singletons
    trained, _ = learned("wordvectors", "full", [*train, *alone], 60)
    found = [x.clusters or () for x in trained.answers(alone)]
    assert all(len(cluster) == 1 for clusters in found for cluster in clusters)
    assert all(found) and score(trained, [*train, *alone])["mention_f1"] > 0.6
    trained.task = trained.learned = replace(trained.task, singletons=False)
    assert [x.clusters for x in trained.answers(alone)] == [()] * 2


def test_links_make_clusters_and_the_dummy_none() -> None:
    asked = story("k/0", "a b c d e")
    inf = float("inf")
    scores = {
        "spans": torch.tensor([[0, 0], [1, 1], [2, 3], [4, 4]]),
        "mention": torch.tensor([1.0, -1.0, 2.0, 3.0]),
        "antecedents": torch.tensor([[-1, -1], [0, -1], [0, 1], [2, 1]]),
        "scores": torch.tensor([[-inf, -inf], [-0.1, -inf], [0.5, 0.2], [1.0, 2.0]]),
    }
    words = [asked.texts[0].index(x) for x in "abcde"]
    a, b, cd, e = (
        Span(0, 1),
        Span(words[1], words[1] + 1),
        Span(words[2], words[3] + 1),
        Span(words[4], words[4] + 1),
    )
    assert Coref().decode(scores, [asked], [[]])[0].clusters == ((a, cd), (b, e))
    scores["scores"][3] = -1.0
    assert Coref(singletons=True).decode(scores, [asked], [[]])[0].clusters == ((a, cd), (e,))
    assert Coref().decode(scores, [asked], [[]])[0].to_dict()["clusters"] == (((0, 1), (4, 7)),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 3}, "task.order is 3"),
        ({"singletons": True, "mention_weight": 0.0}, "task.mention_weight is 0.0"),
        ({"mention_weight": -1.0}, "task.mention_weight is -1.0"),
        ({"max_width": 0}, "task.max_width is 0"),
        ({"spans_per_word": 0.0}, "task.spans_per_word is 0.0"),
        ({"dropout": 1.0}, "task.dropout is 1.0"),
        ({"segment": 3}, "task.segment is 3"),
        ({"reading": "sentence"}, "task.reading is 'sentence'; did you mean 'sentences'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Coref(**settings)


def test_mistakes_of_golds_are_named() -> None:
    with pytest.raises(UserError, match="no training document has a cluster of two mentions"):
        Coref.of([story("k/0", "a/1 b/2")])
    with pytest.raises(UserError, match=r"'k' has a mention from 0 to 9 in a text of 3 characters"):
        Coref().gold([Sample("k", (Part("abc"),), ((Span(0, 9),),))], [])
    with pytest.raises(UserError, match=r"'k' has no clusters to learn from"):
        Coref().gold([sample("abc", key="k")], [])
    with pytest.raises(UserError, match="2 texts; coreference reads one at a time"):
        Coref().words_of(sample("a", "b"))
    task = Coref(order=2, segment=128)
    assert task_from(task_config(task)) == task


# The commands


def run(*arguments: object, stdin: str | None = None) -> str:
    done = CliRunner().invoke(app, [str(x) for x in arguments], input=stdin)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_the_commands_train_score_and_answer(tmp_path: Path) -> None:
    train, dev = stories(8), stories(4, seed=1)
    files = []
    for name, some in (("train", train), ("dev", dev)):
        text = write_documents([(s, s.parts[0].words, s.gold) for s in some])
        files.append(write(tmp_path, f"{name}.conll", text))
    model, lines, written = tmp_path / "model", tmp_path / "said.jsonl", tmp_path / "said.conll"
    settings = ["--method", "wordvectors", "codec.min_count=1", "recipe.epochs=15", "recipe.lr=0.02"]
    settings += ["task.max_width=2", "task.hidden=12", "task.spans_per_word=0.6", "task.dropout=0"]
    out = ["--out", model, "--device", "cpu", "--quiet"]
    assert run("finetune", "coref", files[0], "--valid", files[1], *settings, *out).startswith(
        "validation: conll_f1"
    )
    assert json.loads((model / "run.json").read_text())["config"]["recipe"]["batch_size"] == 1
    scores = tmp_path / "scores.json"
    assert "ceaf_e_f1" in run("evaluate", model, files[1], "--out", scores, "--quiet")
    found = json.loads(scores.read_text())
    assert found["samples"] == 4 and found["scores"]["conll_f1"] > 0.8
    assert found["labels"]["mention"]["golds"] == sum(len(c) for s in dev for c in s.gold)
    assert found["labels"]["muc"]["golds"] == sum(len(c) - 1 for s in dev for c in s.gold)
    low, high = found["intervals"]["conll_f1"]
    assert low <= found["scores"]["conll_f1"] <= high
    assert evaluate(model, files[1], device="cpu").scores == found["scores"]

    run("predict", model, files[1], "--out", lines, "--quiet")
    answers = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    predictor = Predictor.load(model, "cpu")
    own = [answer.clusters or () for answer in predictor.answer(dev)]
    assert [[[Span(*m) for m in c] for c in x["clusters"]] for x in answers] == [
        [[*c] for c in x] for x in own
    ]
    assert [x["key"] for x in answers] == ["d0/0", "d1/0", "d2/0", "d3/0"]
    assert read_documents(lines).samples[0].gold == own[0]  # what is said may be learned from
    run("predict", model, files[1], "--out", written, "--quiet")
    assert [s.gold for s in read_documents(written).samples] == own

    plain = "The film was good.\nThe film is bad, the book fine.\n"
    (one,) = map(json.loads, run("predict", model, "-", stdin=plain).splitlines())
    assert one["text"] == plain and ["film", "film"] in [[plain[a:b] for a, b in c] for c in one["clusters"]]
    assert predictor.answer(plain)[0].clusters == predictor.answer({"text": plain})[0].clusters
    words = [dev[0].texts[0][a:b] for a, b in dev[0].parts[0].words]
    assert predictor.answer([words])[0] == predictor.answer({"words": words})[0]
    with pytest.raises(UserError, match="a document is a text, words, or a dict"):
        predictor.answer([3])  # type: ignore[list-item]


def test_wrong_options_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.conll", columns("a (0)", "b (0)"))
    for options, message in (
        (["--kind", "one"], "--kind and --label-separator are for classification"),
        (["--label", "3"], "--text and --label name columns"),
    ):
        done = CliRunner().invoke(
            app, ["finetune", "coref", str(path), "--out", str(tmp_path / "m"), *options]
        )
        assert done.exit_code == 2 and message in " ".join(done.stderr.split())


def test_people_read_clusters_in_brackets() -> None:
    from pretune.cli.clusters import bracketed

    text = "her sister saw her"
    clusters = ((Span(0, 3), Span(15, 18)), (Span(0, 10),))
    assert bracketed(text, clusters).plain == "[2 [1 her] sister] saw [1 her]"
