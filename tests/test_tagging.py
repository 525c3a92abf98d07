"""Tagging: spans as conlleval counts them, words found by their characters, files read and answered."""

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
from pretune.data.alignment import nearest_token, tokens_of
from pretune.data.conll import read_conll, sentence
from pretune.data.rows import Row
from pretune.data.samples import Part, Sample, Span, sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.metrics.tagging import Chunk, Scheme, chunks, scheme_of, scores_of, tallies
from pretune.runs.predictor import Predictor, evaluate
from pretune.runs.run import finetune, load_trained
from pretune.runs.trained import Ensemble, TrainedModel, join
from pretune.tasks.tagging import Tagging
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

QUIET = Fitting(device="cpu", quiet=True)


def tagged(*pairs: str, key: str = "") -> Sample:
    """ "Ann/B-PER in/O": words and tags of a sentence."""
    words, tags = zip(*(pair.rsplit("/", 1) for pair in pairs), strict=True)
    return Sample(key, (sentence(words),), tags)


def labelled(count: int, seed: int = 0) -> list[Sample]:
    """Sentences whose words say their tags."""
    chance = Random(seed)
    tags = {word: ("D", "N", "V")[i % 3] for i, word in enumerate(tiny.WORDS)}
    found = []
    for i in range(count):
        words = chance.choices(tiny.WORDS, k=chance.randint(1, 9))
        found.append(Sample(str(i), (sentence(words),), tuple(tags[word] for word in words)))
    return found


# Spans by hand, as conlleval.pl of CoNLL 2003 reads these columns.


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("I-PER I-PER O I-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),  # begun by I
        ("B-PER B-PER I-PER", [(0, 1, "PER"), (1, 3, "PER")]),
        ("B-PER I-LOC", [(0, 1, "PER"), (1, 2, "LOC")]),  # another kind begins
        ("O O", []),
        ("", []),
    ],
)
def test_spans_are_those_of_conlleval(tags: str, found: list[tuple[int, int, str]]) -> None:
    assert chunks(tags.split(), "iob2") == [Chunk(*x) for x in found]


@pytest.mark.parametrize(
    ("scheme", "tags", "strict"),
    [
        ("iob2", "I-PER I-PER O B-LOC", [(3, 4, "LOC")]),
        ("iob1", "I-PER I-PER B-PER O", [(0, 2, "PER"), (2, 3, "PER")]),
        ("iob1", "O B-PER I-PER", []),  # B only between two of a kind
        ("bioes", "B-PER E-PER S-LOC", [(0, 2, "PER"), (2, 3, "LOC")]),
        ("bioes", "B-PER I-PER O S-LOC", [(3, 4, "LOC")]),  # never ended
        ("bioes", "E-PER B-PER I-PER E-PER", [(1, 4, "PER")]),
        ("bmes", "B-ORG M-ORG E-ORG S-ORG", [(0, 3, "ORG"), (3, 4, "ORG")]),
        ("bilou", "B-ORG I-ORG L-ORG U-ORG", [(0, 3, "ORG"), (3, 4, "ORG")]),
    ],
)
def test_strict_spans_are_written_as_their_scheme_has_it(
    scheme: Scheme, tags: str, strict: list[tuple[int, int, str]]
) -> None:
    assert chunks(tags.split(), scheme, strict=True) == [Chunk(*x) for x in strict]


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("B-PER I-PER O", "iob2"),
        ("I-PER O B-PER", "iob1"),
        ("B-PER O B-LOC O I-PER", "iob2"),  # the last begins so by mistake
        ("I-PER B-PER O I-LOC", "iob1"),
        ("B-PER E-PER S-LOC", "bioes"),
        ("B-PER M-PER E-PER", "bmes"),
        ("B-PER L-PER U-LOC", "bilou"),
        ("NOUN VERB", "plain"),
        ("O O", "plain"),
        ("B-PER NOUN", "plain"),
    ],
)
def test_the_scheme_is_found_in_the_tags(tags: str, scheme: str) -> None:
    assert scheme_of([tags.split()]) == scheme


def test_scores_are_those_of_conlleval_counted_by_hand() -> None:
    golds = ["B-PER I-PER O B-LOC".split(), "B-ORG O".split()]
    said = ["B-PER I-PER O B-ORG".split(), "I-ORG O".split()]
    # true: PER LOC ORG; said: PER ORG ORG; right: PER, ORG (which strictly taken is not there)
    figures = scores_of(tallies(golds, said, "iob2").sum(0), "iob2")
    assert figures["span_precision"] == figures["span_recall"] == figures["span_f1"] == pytest.approx(2 / 3)
    assert figures["strict_f1"] == pytest.approx(2 * 1 / (2 + 3))
    assert figures["accuracy"] == pytest.approx(4 / 6)


def test_a_tag_of_another_scheme_is_named() -> None:
    with pytest.raises(UserError, match=r"'S-PER' is not of the scheme iob2, which has O, B-…, I-…"):
        chunks(["S-PER"], "iob2")


# Tokens and words


def row(*spans: tuple[int, int], part: int = 0) -> Row:
    return Row([1] * len(spans), [0] * len(spans), [part] * len(spans), [Span(*span) for span in spans])


def test_tokens_belong_to_the_words_that_they_share_a_character_with() -> None:
    words = [Span(0, 4), Span(5, 6), Span(8, 9)]
    some = row((0, 2), (2, 4), (4, 6), (0, 0))  # the third covers a space too; the fourth stands for nothing
    assert tokens_of(some, 0, words) == [[0, 1], [2], []]
    assert tokens_of(some.reversed(), 0, words) == [[2, 3], [1], []]
    assert tokens_of(row((0, 9), (2, 3)), 0, words) == [[0, 1], [0], [0]]
    assert tokens_of(some, 1, words) == [[], [], []]


def test_a_word_without_a_token_is_read_off_the_one_before_it() -> None:
    assert nearest_token(row((0, 2), (3, 4), (9, 10)), 0, Span(6, 7)) == 1
    assert nearest_token(row((9, 10), (3, 4), (0, 2)), 0, Span(6, 7)) == 1
    assert nearest_token(row((3, 4)), 0, Span(0, 1)) == 0
    assert nearest_token(row((0, 0), part=-1), 0, Span(0, 1)) == 0


def places(token: Any, codec: Any, asked: Sample) -> list[list[int]]:
    """Of each word the tokens that are read."""
    task = Tagging(("x", "y"), token=token)
    found: dict[int, list[int]] = {}
    for _, at, word in task.given([asked], task.rows(codec, [asked]))["tokens"].tolist():
        found.setdefault(word, []).append(at)
    return list(found.values())


def test_marks_of_capitals_belong_to_their_word_whichever_way_it_is_read() -> None:
    start = tiny.start("ulmfit")
    asked = Sample("", (sentence(["Film", "GOOD"]),))  # xxbos xxmaj film xxup good
    assert places("first", start.codec, asked) == [[1], [3]]
    assert places("last", start.codec, asked) == [[2], [4]]
    assert places("mean", start.codec, asked) == [[1, 2], [3, 4]]
    codec: Any = start.codec
    backward = type(codec)(replace(codec.config, direction="backward"), codec.vocab)
    assert places("last", backward, asked) == [[3], [1]]  # good xxup film xxmaj xxbos


@pytest.mark.parametrize("method", METHODS)
def test_each_word_has_one_tag_in_every_method(method: str) -> None:
    asked = [
        sentence(["film", "isn't", "good", "!", "!", "!", "!", "!", "very", "very", "very", "very", "X"]),
        Part("good"),
        Part(""),
        Part("a  \n\n film\t ."),
    ]
    trained = join(tiny.start(method), Tagging(("x", "y")), tiny.recipe("full"), 0)
    said = trained.answers([Sample("", (part,)) for part in asked])
    assert [len(answer.labels or ()) for answer in said] == [13, 1, 0, 3]
    assert [span for span, _ in said[3].spans or ()] == [Span(0, 1), Span(6, 10), Span(12, 13)]


def test_words_before_the_pooled_end_of_a_long_text_are_read_too() -> None:
    trained = join(tiny.start("ulmfit", max_len=10), Tagging(("D", "N", "V")), tiny.recipe("full"), 0)
    words = trained.answers([Sample("", (sentence(tiny.WORDS * 5),))])[0].words
    assert words is not None and len({tuple(shares) for _, shares in words[:50]}) == 50


def test_a_batch_loses_as_much_as_its_samples_alone() -> None:
    samples, start = labelled(6), tiny.start("ulmfit")
    task = Tagging.of(samples)
    trained = join(start, task, tiny.recipe("full"), 0)
    trained.model.eval()

    def loss(some: list[Sample]) -> float:
        batch = task_batch(task, start.codec, some, task.rows(start.codec, some), True)
        return float(trained.model(batch).reported)

    assert loss(samples) == pytest.approx(sum(loss([one]) for one in samples), rel=1e-5)
    batch = task_batch(task, start.codec, samples, task.rows(start.codec, samples), True)
    assert trained.model.head.targets(batch) == sum(len(s.gold) for s in samples)


def test_a_tagger_tags_what_it_has_not_seen_and_its_folder_answers_alike(tmp_path: Path) -> None:
    train, test = labelled(60), labelled(20, seed=1)
    task = Tagging.of(train)
    recipe = tiny.recipe("full", epochs=16)
    trained, fitted = finetune(tiny.start("wordvectors"), task, recipe, train, test, QUIET)
    assert fitted.best["accuracy"] > 0.9
    trained.save(tmp_path / "m", {})
    assert load_trained(tmp_path / "m").answers(test) == trained.answers(test)
    assert load_trained(tmp_path / "m").task == task


def test_several_models_average_what_they_say_of_each_word() -> None:
    train = labelled(8)
    members = {
        name: join(tiny.start("wordvectors", seed), Tagging.of(train), tiny.recipe("full"), seed)
        for seed, name in enumerate("ab")
    }
    (both,) = Ensemble(members).answers(train[:1])
    each = [member.answers(train[:1])[0].words or () for member in members.values()]
    assert both.words is not None
    for (span, shares), (_, one), (_, other) in zip(both.words, *each, strict=True):
        assert shares == pytest.approx([(x + y) / 2 for x, y in zip(one, other, strict=True)])
        assert span in train[0].parts[0].words


def test_entities_are_spans_of_the_original_text() -> None:
    task = Tagging.of([tagged("Ann/B-PER", "Lee/I-PER", "in/O", "Rome/B-LOC")])
    asked = sample("Ann  Lee, in Rome")
    logits = torch.full((5, 4), -9.0)
    for word, tag in enumerate(("B-PER", "I-PER", "O", "O", "B-LOC")):
        logits[word, task.labels.index(tag)] = 9.0
    (answer,) = task.decode({"logits": logits}, [asked], [[]])
    assert answer.spans == ((Span(0, 8), "PER"), (Span(13, 17), "LOC"))
    assert answer.to_dict()["spans"][0] == {"start": 0, "end": 8, "label": "PER"}
    assert task.metric == "span_f1"


def test_mistakes_of_golds_are_named() -> None:
    task = Tagging.of([tagged("a/D", "film/N", key="f:1")])
    with pytest.raises(UserError, match=r"'f:2' has 1 tags for 2 words"):
        task.gold([Sample("f:2", (sentence(["a", "film"]),), ("D",))], [[]])
    with pytest.raises(UserError, match=r"'f:3' has the tag 'Z', which the task does not know"):
        task.gold([tagged("a/Z", key="f:3")], [[]])
    with pytest.raises(UserError, match="2 texts; tagging reads one at a time"):
        task.words_of(sample("a", "b"))
    with pytest.raises(UserError, match="at least two are needed"):
        Tagging.of([tagged("a/D")])
    with pytest.raises(UserError, match=r"'D' is not of the scheme iob2"):
        Tagging(("D", "N"), scheme="iob2")
    with pytest.raises(UsageError, match=r"task.token is 'lst'; did you mean 'last'"):
        Tagging(token="lst")  # type: ignore[arg-type]


# Files


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_columns_are_read_sentence_by_sentence(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n. . O\n\n\nPeter NNP B-PER\n"
    found = read_conll(write(tmp_path, "a.conll", text))
    assert [s.texts[0] for s in found.samples] == ["EU rejects .", "Peter"]
    assert [s.gold for s in found.samples] == [("B-ORG", "O", "O"), ("B-PER",)]
    assert [s.key for s in found.samples] == ["a.conll:3", "a.conll:8"]
    second = read_conll(tmp_path / "a.conll", label=["1"]).samples
    assert second[0].gold == ("NNP", "VBZ", ".")
    bare = read_conll(tmp_path / "a.conll", labelled=False).samples
    assert bare[0].gold is None and bare[0].parts == found.samples[0].parts


def test_a_word_may_hold_a_space_where_columns_are_between_tabs(tmp_path: Path) -> None:
    (one,) = read_conll(write(tmp_path, "a.bio", "New York\tB-LOC\n#\tO\n")).samples
    assert [one.texts[0][a:b] for a, b in one.parts[0].words] == ["New York", "#"]


def test_other_white_space_than_separates_columns_belongs_to_words(tmp_path: Path) -> None:
    (one,) = read_conll(write(tmp_path, "a.conll", "10\u00a0000 O\n\u00a0 O\nMary  B-PER \n")).samples
    assert [one.texts[0][a:b] for a, b in one.parts[0].words] == ["10\u00a0000", "\u00a0", "Mary"]
    assert one.gold == ("O", "O", "B-PER")


def test_chinese_is_written_without_spaces(tmp_path: Path) -> None:
    (one,) = read_conll(write(tmp_path, "a.bmes", "高 B-N\n勇 E-N\n， O\n2 O\n0 O\nIBM O\n")).samples
    assert one.texts[0] == "高勇，2 0 IBM"
    assert [one.texts[0][a:b] for a, b in one.parts[0].words] == ["高", "勇", "，", "2", "0", "IBM"]


def conllu(*lines: str) -> str:
    """Lines "id form upos misc" as CoNLL-U."""
    rows = []
    for line in lines:
        number, form, upos, misc = line.split(" ")
        rows.append("\t".join([number, form, "_", upos, "_", "_", "_", "_", "_", misc]))
    return "\n".join(rows) + "\n\n"


def test_conllu_is_written_as_its_text_was(tmp_path: Path) -> None:
    english = conllu(
        "1 He PRON _", "2-3 didn't _ SpaceAfter=No", "2 did AUX _", "3 n't PART _", "4 . PUNCT _"
    )
    german = conllu("1-2 zum _ _", "1 zu ADP _", "2 dem DET _", "2.1 left _ _", "3 Haus NOUN _")
    path = write(tmp_path, "a.conllu", "# text = He didn't.\n" + english + german)
    one, other = read_conll(path).samples
    assert one.texts[0] == "He didn't." and one.gold == ("PRON", "AUX", "PART", "PUNCT")
    assert [one.texts[0][a:b] for a, b in one.parts[0].words] == ["He", "did", "n't", "."]
    assert other.texts[0] == "zum Haus" and other.gold == ("ADP", "DET", "NOUN")
    assert [other.texts[0][a:b] for a, b in other.parts[0].words] == ["zum", "zum", "Haus"]
    assert read_conll(path, label=["form"]).samples[0].gold == ("He", "did", "n't", ".")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.conll", "EU NNP\nrejects\n", r"a.conll:2: 'rejects' has one column"),
        ("a.conll", "EU\tNNP\nrejects\t\n", r"a.conll:2: column -1 is empty"),
        ("a.conll", "\n\n", r"a.conll: holds no word"),
        ("a.conllu", "1\tHe\n", r"a.conllu:1: 2 columns between tabs; CoNLL-U has 10"),
        ("a.conllu", conllu("x He PRON _"), r"a.conllu:1: 'x' is no number of a word"),
        ("a.csv", "a,b\n", r"a.csv: tags are read from CoNLL's columns"),
    ],
)
def test_mistakes_of_files_name_the_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_conll(write(tmp_path, name, text))


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.conll", "EU NNP\n")
    with pytest.raises(UserError, match=r"a.conll:1: no column 3, there are 2"):
        read_conll(path, label=["3"])
    with pytest.raises(UsageError, match=r"--label is 'upos'; give the column's number"):
        read_conll(path, label=["upos"])
    with pytest.raises(UsageError, match=r"--label is 'upo'; did you mean 'upos'"):
        read_conll(path, label=["upo"], format="conllu")


def test_the_text_of_universal_dependencies_comes_out_as_it_was(shared: Callable[[str], Path]) -> None:
    from pretune.data.files import read_text

    path = shared("data/ud-english-ewt/en_ewt-ud-dev.conllu.xz")
    lines = read_text(path).split("\n")
    texts = [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]
    assert [s.texts[0] for s in read_conll(path).samples] == texts


# The commands


def run(*arguments: object, stdin: str | None = None) -> str:
    done = CliRunner().invoke(app, [str(x) for x in arguments], input=stdin)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def lines_of(samples: list[Sample]) -> str:
    blocks = []
    for one in samples:
        words = [one.texts[0][a:b] for a, b in one.parts[0].words]
        blocks.append("".join(f"{w} {t}\n" for w, t in zip(words, one.gold, strict=True)))
    return "\n".join(blocks)


def test_the_commands_train_score_and_answer(tmp_path: Path) -> None:
    names = {"D": "O", "N": "B-X", "V": "I-X"}
    entities = [replace(s, gold=tuple(names[tag] for tag in s.gold)) for s in labelled(50)]
    train = write(tmp_path, "train.conll", lines_of(entities))
    model = tmp_path / "model"
    settings = ["--method", "wordvectors", "codec.min_count=1", "recipe.epochs=30", "task.token=first"]
    said = run("finetune", "tagging", train, *settings, "--out", model, "--device", "cpu", "--quiet")
    assert said.startswith("validation: span_f1")
    scores = tmp_path / "scores.json"
    assert "span_f1" in run("evaluate", model, train, "--out", scores, "--quiet")
    found = json.loads(scores.read_text())
    assert found["samples"] == 50 and found["scores"]["span_f1"] > 0.9
    assert found["labels"]["X"]["golds"] == sum(len(chunks(s.gold, "iob1")) for s in entities)
    low, high = found["intervals"]["span_f1"]
    assert low <= found["scores"]["span_f1"] <= high

    (answer,) = map(json.loads, run("predict", model, "-", stdin="the film, good\n").splitlines())
    assert answer["text"] == "the film, good" and len(answer["labels"]) == 4
    by_file = [json.loads(line) for line in run("predict", model, train, "--quiet").splitlines()]
    predictor = Predictor.load(model, "cpu")
    assert [tuple(x["labels"]) for x in by_file] == [a.labels for a in predictor.answer(entities)]
    table = write(tmp_path, "new.csv", "id,text\n1,the film\n2,good\n")
    lines = write(tmp_path, "new.txt", "the film\n")
    told = CliRunner().invoke(app, ["predict", str(model), str(lines)]).stderr
    assert "read as a text a line; give --format conll" in " ".join(told.split())
    by_table = run("predict", model, table, "--quiet").splitlines()
    assert [json.loads(line)["text"] for line in by_table] == ["the film", "good"]
    words = [entities[0].texts[0][a:b] for a, b in entities[0].parts[0].words]
    for question in ([words], [{"words": words}], tuple(words)):
        assert predictor.answer(question)[0].labels == tuple(by_file[0]["labels"])
    with pytest.raises(UserError, match="a sample is a text, words"):
        predictor.answer([3])  # type: ignore[list-item]
    again = evaluate(model, train, device="cpu")
    assert again.scores == found["scores"]
    loaded = load_trained(model)
    assert isinstance(loaded, TrainedModel) and isinstance(loaded.task, Tagging)
    assert loaded.task.token == "first"
