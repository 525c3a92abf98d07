"""LanguageModel: probabilities that add up, both ways; perplexity as published; words in their places."""

from __future__ import annotations

import json
from dataclasses import replace
from math import exp, isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import pretune
import tiny
from pretune.cli import app
from pretune.config import to_dict
from pretune.data.samples import sample
from pretune.errors import UsageError, UserError
from pretune.runs.embedder import Embedder
from pretune.runs.language_model import LanguageModel
from pretune.runs.neighbours import neighbours
from pretune.runs.starts import Start, for_task, save_start
from pretune.runs.trained import answer
from pretune.tasks.both_ways import BothWays

TEXTS = ["It was a good film .", "the book", "", "a dull unheard-of plot", *tiny.texts(5, 3, 8)]


def saved(start: Start, folder: Path) -> Path:
    save_start(start, folder, {})
    return folder


@pytest.fixture(scope="module")
def elmo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny.start("elmo"), tmp_path_factory.mktemp("lm") / "elmo")


@pytest.fixture(scope="module")
def ulmfit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny.start("ulmfit"), tmp_path_factory.mktemp("lm") / "ulmfit")


def by_hand(lm: LanguageModel, words: list[str]) -> tuple[list[float], list[float]]:
    """Of each word and the mark after it: one row at a time through the top layer and a plain softmax."""
    encoder: Any = lm.start.encoder
    embedder = Embedder.of(lm.start)
    ids = lm.start.codec.vocab.ids  # type: ignore[attr-defined]
    D = encoder.config.projection_dim
    said: tuple[list[float], list[float]] = ([], [])
    for way, marks in enumerate((("<S>", "</S>"), ("</S>", "<S>"))):
        row = words if way == 0 else words[::-1]
        for k, word in enumerate([*row, marks[1]]):
            seen = row[:k] if way == 0 else row[:k][::-1]
            if seen:
                top = embedder.embed([seen])[0][-1]  # (k, 2D)
                hidden = torch.from_numpy(top[-1, :D] if way == 0 else top[0, D:])
            else:
                continue
            logits = encoder.softmax.weight @ hidden + encoder.softmax.bias
            said[way].append(float(logits.log_softmax(0)[ids.get(word, ids["<UNK>"])].detach()))
    return said


def test_each_word_is_scored_given_what_stands_before_it_either_way(elmo: Path) -> None:
    lm = LanguageModel.load(elmo, "cpu")
    words = TEXTS[0].split()
    (score,) = lm.score([TEXTS[0]])
    assert score.words == tuple(words)
    assert score.forward is not None and score.backward is not None
    forward, backward = by_hand(lm, words)
    assert np.allclose([*score.forward[1:], score.end], forward, atol=1e-5)
    assert np.allclose([*score.backward[:-1][::-1], score.start], backward, atol=1e-5)


def test_scores_do_not_depend_on_batch_and_keep_their_order(elmo: Path, ulmfit: Path) -> None:
    for folder in (elmo, ulmfit):
        lm = LanguageModel.load(folder, "cpu")
        alone = [lm.score([text])[0] for text in TEXTS]
        for one, many in zip(alone, lm.score(TEXTS, batch_size=4)):
            assert one.words == many.words and one.known == many.known
            assert np.allclose(one.nats, many.nats, atol=1e-4)
            assert one.targets == many.targets


def test_scores_are_what_the_pretraining_task_says(elmo: Path) -> None:
    lm = LanguageModel.load(elmo, "cpu")
    samples = [sample(text) for text in TEXTS if text]
    lm.start.encoder.purpose("language_model")
    answers = answer(lm.model, BothWays(), lm.start.codec, samples, BothWays().rows(lm.start.codec, samples))
    scores = lm.score([text for text in TEXTS if text])
    assert np.allclose(
        [-sum(s.nats) for s in scores], [a.scores["log_probability"] for a in answers], atol=1e-4
    )
    wanted = BothWays().score([], answers)
    found = lm.perplexity(TEXTS)
    assert found.value == pytest.approx(wanted["perplexity"], rel=1e-5)
    assert found.targets == wanted["tokens"]
    assert found.forward and found.backward
    assert found.value == pytest.approx((found.forward * found.backward) ** 0.5, rel=1e-6)
    assert float(found) == found.value


def test_probabilities_of_all_words_add_up_to_one(elmo: Path) -> None:
    lm = LanguageModel.load(elmo, "cpu")
    vocab = lm.start.codec.vocab  # type: ignore[attr-defined]
    total = 0.0
    for word in vocab.words:
        if word not in ("<S>", "</S>"):
            (score,) = lm.score([["a", word if word != "<UNK>" else "unheard-of", "film"]])
            assert score.forward is not None
            total += exp(score.forward[1])
    scorer: Any = lm.scorer
    everything = scorer.log_softmax(scorer.hidden([scorer.read("a")], None)[0]["hidden"][0, 1]).exp()
    marks = float(everything[vocab.ids["<S>"]] + everything[vocab.ids["</S>"]])
    assert total + marks == pytest.approx(1, abs=1e-5)


def test_an_unknown_word_is_scored_as_such_and_said_to_be(elmo: Path) -> None:
    lm = LanguageModel.load(elmo, "cpu")
    (score,) = lm.score([["a", "dull", "unheard-of", "plot"]])
    assert score.known == (True, True, False, True)
    (other,) = lm.score([["a", "dull", "never-seen", "plot"]])
    assert score.forward is not None and other.forward is not None
    assert np.allclose(score.forward[:3], other.forward[:3], atol=1e-6)  # its own score
    assert not np.allclose(score.forward[3], other.forward[3], atol=1e-5)  # but it is read as it is spelled


def test_an_empty_text_has_marks_alone(elmo: Path) -> None:
    (score,) = LanguageModel.load(elmo, "cpu").score([""])
    assert score.words == () and score.targets == (1, 1)
    assert not isnan(score.end) and not isnan(score.start)


def test_carried_perplexity_goes_on_from_the_sentence_before(elmo: Path) -> None:
    lm = LanguageModel.load(elmo, "cpu")
    texts = [text for text in tiny.texts(40, 8, 9) if text]
    alone = lm.perplexity(texts, "carry", batch_size=1)
    halves = [lm.perplexity(half, "carry", batch_size=1) for half in (texts[:20], texts[20:])]
    both = lm.perplexity(texts, "carry", batch_size=2)
    nats = sum(np.log(half.value) * half.targets for half in halves)
    assert both.value == pytest.approx(exp(nats / both.targets), rel=1e-5)
    assert alone.targets == both.targets == lm.perplexity(texts).targets
    assert alone.value != pytest.approx(lm.perplexity(texts).value, rel=1e-6)
    with pytest.raises(UsageError, match="state is 'warm'"):
        lm.perplexity(texts, "warm")  # type: ignore[arg-type]


def test_carried_rows_that_end_early_leave_the_others_alone(elmo: Path) -> None:
    lm = LanguageModel.load(elmo, "cpu")
    texts = [text for text in tiny.texts(17, 8, 9) if text][:17]
    streams = [texts[: len(texts) // 2], texts[len(texts) // 2 :]]
    halves = [lm.perplexity(half, "carry", batch_size=1) for half in streams]
    both = lm.perplexity(texts, "carry", batch_size=2)
    nats = sum(np.log(half.value) * half.targets for half in halves)
    assert both.value == pytest.approx(exp(nats / both.targets), rel=1e-5)


def test_ulmfit_scores_what_comes_next(ulmfit: Path) -> None:
    lm = LanguageModel.load(ulmfit, "cpu")
    (score,) = lm.score(["It was a good film"])
    assert score.words == ("xxmaj", "it", "was", "a", "good", "film")
    assert score.forward is not None and score.forward.shape == (6,)
    assert score.backward is None and isnan(score.end)
    found = lm.perplexity(TEXTS)
    assert found.backward is None and found.forward == found.value
    samples = [sample(text) for text in TEXTS if text]
    rows = lm.task.rows(lm.start.codec, samples)
    wanted = lm.task.score([], answer(lm.model, lm.task, lm.start.codec, samples, rows))
    assert found.value == pytest.approx(wanted["perplexity"], rel=1e-5)
    with pytest.raises(UsageError, match="state carry is for elmo"):
        lm.perplexity(TEXTS, "carry")


def test_a_backward_ulmfit_scores_from_the_right(tmp_path: Path) -> None:
    start = tiny.start("ulmfit")
    codec: Any = start.codec
    backward = type(codec)(replace(codec.config, direction="backward"), codec.vocab)
    folder = saved(replace(start, codec=backward), tmp_path / "backward")
    (score,) = LanguageModel.load(folder, "cpu").score(["a good film"])
    assert score.forward is None and score.backward is not None
    assert np.isnan(score.backward).tolist() == [False, False, True]  # nothing stands after the last word
    assert score.targets == (0, 3)


def test_substitutes_are_likely_on_both_sides(elmo: Path) -> None:
    lm = LanguageModel.load(elmo, "cpu")
    words = "it was a good film".split()
    vocab = lm.start.codec.vocab  # type: ignore[attr-defined]
    found = lm.substitutes(" ".join(words), 3, top=100)
    assert {x.word for x in found} == set(vocab.words) - {"<S>", "</S>", "<UNK>"}
    assert sum(x.probability for x in found) == pytest.approx(1, abs=1e-5)
    assert [x.probability for x in found] == sorted((x.probability for x in found), reverse=True)
    for x in found:
        (score,) = lm.score([[*words[:3], x.word, *words[4:]]])
        assert score.forward is not None and score.backward is not None
        assert score.forward[3] == pytest.approx(x.forward, abs=1e-5)
        assert score.backward[3] == pytest.approx(x.backward, abs=1e-5)
    a, b = found[0], found[-1]
    ratio = exp(a.forward + a.backward - b.forward - b.backward)
    assert a.probability / b.probability == pytest.approx(ratio, rel=1e-4)
    for bad in (-1, 5):
        with pytest.raises(UsageError, match="the text has 5 words"):
            lm.substitutes(words, bad)


def test_substitutes_of_ulmfit_look_at_the_left(ulmfit: Path) -> None:
    lm = LanguageModel.load(ulmfit, "cpu")
    found = lm.substitutes("it was a good film", 3, top=100)
    assert not any(x.word.startswith("xx") for x in found)
    (score,) = lm.score(["it was a good film"])
    said = {x.word: x for x in found}["good"]
    assert score.forward is not None
    assert said.forward == pytest.approx(score.forward[3], abs=1e-5)
    assert isnan(said.backward)


def test_neighbours_are_the_nearest_of_all_words_of_the_corpus(elmo: Path) -> None:
    lm = LanguageModel.load(elmo, "cpu")
    embedder = Embedder.load(elmo, device="cpu")
    corpus = tiny.texts(30, 9, 8)
    asked = "it was a good film"
    for layer in (0, 1, 2):
        query = embedder.embed([asked])[0][layer][3]
        everything = []
        for text in corpus:
            vectors = embedder.embed([text])[0][layer]
            cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
            everything += [(cosine, word, text) for cosine, word in zip(cosines, text.split())]
        everything.sort(reverse=True)
        found = lm.neighbours(iter(corpus), "good", asked, top=4, layer=layer)
        assert np.allclose([x.similarity for x in found], [x[0] for x in everything[:4]], atol=1e-5)
        for x in found:
            assert x.sentence.split()[x.position] == x.word
    only = neighbours(embedder, corpus, "good", asked, top=3, same_word=True)
    assert {x.word for x in only} == {"good"}


def test_neighbours_leave_the_sentence_itself_out_and_check_the_word(elmo: Path) -> None:
    embedder = Embedder.load(elmo, device="cpu")
    found = neighbours(embedder, ["a good film", "a bad film"], "good", "a good film", top=10)
    assert {x.sentence for x in found} == {"a bad film"}
    twice = neighbours(embedder, ["a bad film"], "a", "a film and a book", position=3)
    assert twice[0].similarity != neighbours(embedder, ["a bad film"], "a", "a film and a book")[0].similarity
    with pytest.raises(UsageError, match="'plot' is no word of the sentence"):
        neighbours(embedder, [], "plot", "a good film")
    with pytest.raises(UsageError, match="has 'film', not 'good'"):
        neighbours(embedder, [], "good", "a good film", position=2)
    with pytest.raises(UsageError, match="layers 0 to 2"):
        neighbours(embedder, [], "good", "a good film", layer=3)


def test_a_folder_that_predicts_nothing_says_how_to_get_there(elmo: Path, tmp_path: Path) -> None:
    bare = saved(for_task(tiny.start("elmo")), tmp_path / "bare")
    assert "softmax" in to_dict(tiny.start("elmo").encoder_config)
    with pytest.raises(UserError, match=r"has no softmax.*--softmax and --vocab.*pretune adapt"):
        LanguageModel.load(bare)
    assert neighbours(Embedder.load(bare, device="cpu"), ["a film"], "good", "a good film")
    with pytest.raises(UserError, match="predicts no words"):
        LanguageModel.load(saved(tiny.start("wordvectors"), tmp_path / "vectors"))
    with pytest.raises(UserError, match="no text to score"):
        LanguageModel.load(elmo, "cpu").perplexity(["", " "])
    assert pretune.LanguageModel is LanguageModel


def test_evaluate_prints_the_perplexity_of_a_pretrained_folder(elmo: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS) + "\n")
    said = CliRunner().invoke(app, ["evaluate", str(elmo), str(text), "--out", str(tmp_path / "x.json")])
    assert said.exit_code == 0, said.stderr
    found = LanguageModel.load(elmo, "cpu").perplexity(TEXTS)
    assert f"{found.value:.4g}" in said.stdout and f"{found.backward:.4g}" in said.stdout
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["perplexity"]["value"] == pytest.approx(found.value, rel=1e-4)
    wrong = CliRunner().invoke(app, ["evaluate", str(elmo), str(text), "--label", "x"])
    assert wrong.exit_code == 2 and "knows no labels" in wrong.stderr
    wrong = CliRunner().invoke(app, ["evaluate", str(elmo), str(text), "--state", "foo"])
    assert wrong.exit_code == 2 and "--state is 'foo'" in wrong.stderr
