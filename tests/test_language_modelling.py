"""Held-out text costs what it costs, in any tokens: by hand, by the scores of the models, in any batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import gpt_models
import tiny
from pretune.cli import app
from pretune.data.text_units import count_words
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.metrics.spelling_model import SpellingModel
from pretune.runs.gpt_scorer import GPTScorer
from pretune.runs.language_model import LanguageModel
from pretune.runs.language_modelling import HeldOut, Reading, held_out
from pretune.runs.starts import Start, save_start
from pretune.runs.surfaces import vocabulary

DOCUMENTS = ["The film was a great plot", "the book", "It was unheard-of", *tiny.texts(6, 3, 8)]
METHODS_THAT_PREDICT = ("elmo", "ulmfit", "gpt", "bert")


def model(method: str, uniform: bool = False) -> Start:
    start = tiny.start(method, **({"pretraining_heads": True} if method == "bert" else {}))
    with torch.no_grad():
        for parameter in start.encoder.parameters() if uniform else ():
            parameter.zero_()
    return start


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for method in METHODS_THAT_PREDICT:
        save_start(model(method), folder / method, {})
        save_start(model(method, uniform=True), folder / f"uniform-{method}", {})
    return {path.name: path for path in folder.iterdir()}


def measure(folder: Path, documents: Sequence[str | list[str]], **how: Any) -> HeldOut:
    return held_out([folder], lambda: documents, device="cpu", **how)


def only(found: HeldOut) -> Reading:
    (reading,) = found.readings
    return reading


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary(folders: dict[str, Path]) -> None:
    found = measure(folders["uniform-ulmfit"], ["The film  was zxz", "a\tbook"])
    codec: Any = model("ulmfit").codec
    words, sizes = list(vocabulary(codec)), log(codec.size)
    reading = only(found)
    assert reading.predicted == pytest.approx([5 * sizes, 2 * sizes])  # xxmaj is a token
    assert (reading.tokens, reading.unknown, reading.changed) == (7, 1, 0)
    assert reading.first.sum() == reading.capitals.sum() == 0
    # z and x are in no word that is known: at the beginning two histories give way, after them there is none
    letters = [*"".join(words)]
    n, t = len(letters) + len(words), len(set(letters)) + 1
    firsts = len({word[0] for word in words})
    z, end = t / 1114113 / (n + t), (len(words) + t / 1114113) / (n + t)
    spelled = -log((firsts / (len(words) + firsts)) ** 2 * z**3 * end)
    assert reading.spelling == pytest.approx([spelled, 0])
    nats = 7 * sizes + spelled
    assert found.characters.tolist() == [16, 6] and found.words.tolist() == [4, 2]
    row = found.figures(reading)
    assert row["nats"] == pytest.approx(nats) and row["bits"] == pytest.approx(nats / log(2))
    assert row["bits_per_character"] == pytest.approx(nats / log(2) / 22)
    assert row["perplexity_per_word"] == pytest.approx(exp(nats / 6))
    assert row["perplexity_per_character"] == pytest.approx(exp(nats / 22))
    assert row["perplexity_per_token"] == pytest.approx(codec.size, rel=1e-5)
    assert row["unknown_share"] == pytest.approx(1 / 7) and not row["pseudo"]


def test_the_first_piece_of_gpt_and_its_capitals_are_charged(folders: dict[str, Path]) -> None:
    reading = only(measure(folders["uniform-gpt"], ["The film", "the film"]))
    codec: Any = model("gpt").codec
    pieces = len(codec.ids(["the film"])[0])
    one = log(codec.size - 3)  # marks of tasks are never predicted
    assert reading.predicted == pytest.approx([(pieces - 1) * one] * 2)
    assert reading.first == pytest.approx([one] * 2)
    assert reading.capitals == pytest.approx([log(2)] * 2)  # one of two beginnings is a capital
    assert reading.spelling.sum() == 0


def test_elmo_reads_sentence_after_sentence_both_ways(folders: dict[str, Path]) -> None:
    found = measure(folders["uniform-elmo"], ["It was good . It was bad .", "a film"])
    assert [reading.way for reading in found.readings] == ["forward", "backward", "mean"]
    codec: Any = model("elmo").codec
    for reading in found.readings:  # It twice unknown; the end of the first sentence counts, of the last not
        assert reading.predicted == pytest.approx([9 * log(codec.size), 2 * log(codec.size)])
        assert (reading.tokens, reading.unknown) == (10, 4)
    costs = SpellingModel(vocabulary(codec))
    assert reading.spelling == pytest.approx([2 * costs.nats("It") + 2 * costs.nats("."), 0])


def test_elmo_carries_its_state_from_sentence_to_sentence(folders: dict[str, Path]) -> None:
    lm = LanguageModel.load(folders["elmo"], "cpu")
    sentences = ["it was good .", "It was bad .", "A film"]
    carried = lm.perplexity(sentences, "carry", batch_size=1)
    found = measure(folders["elmo"], [" ".join(sentences)])
    assert found.own[0] == carried
    forward, backward, mean = (reading.predicted for reading in found.readings)
    assert mean == pytest.approx((forward + backward) / 2)
    assert (
        found.readings[0].perplexity == carried.forward and found.readings[1].perplexity == carried.backward
    )


@pytest.mark.parametrize("method", METHODS_THAT_PREDICT)
def test_costs_are_the_sums_of_the_scores(method: str, folders: dict[str, Path]) -> None:
    found = measure(folders[method], DOCUMENTS)
    lm = LanguageModel.load(folders[method], "cpu")
    scores = lm.score(DOCUMENTS)
    sides: dict[str, list[float]] = {
        "forward": [-float(np.nansum(s.forward)) for s in scores if s.forward is not None],
        "backward": [-float(np.nansum(s.backward)) for s in scores if s.backward is not None],
        "masked": [-float(np.nansum(s.around)) for s in scores if s.around is not None],
    }
    for reading in found.readings:
        if reading.way != "mean":
            assert reading.predicted == pytest.approx(sides[reading.way], abs=1e-3)
    assert found.own[0].value == pytest.approx(lm.perplexity(DOCUMENTS).value, rel=1e-5)
    assert found.readings[0].pseudo == (method == "bert")
    assert sum(len(s.words) for s in scores) == found.readings[0].tokens
    assert sum(s.known.count(False) for s in scores) == found.readings[0].unknown


@pytest.mark.parametrize("method", METHODS_THAT_PREDICT)
def test_neither_batch_nor_order_matters(method: str, folders: dict[str, Path]) -> None:
    whole = measure(folders[method], DOCUMENTS, batch_size=64)
    alone = measure(folders[method], DOCUMENTS[::-1], batch_size=1)
    for one, other in zip(whole.readings, alone.readings, strict=True):
        assert one.nats == pytest.approx(other.nats[::-1], abs=1e-3)
    assert whole.characters.tolist() == alone.characters[::-1].tolist()


def test_words_that_are_given_stay_words(folders: dict[str, Path]) -> None:
    found = measure(folders["uniform-elmo"], [["good.bad", "a", "film"]])
    assert found.readings[0].tokens == 3 and found.words.tolist() == [3]


def test_windows_of_a_gpt_score_every_piece_once_whatever_the_stride(tmp_path: Path) -> None:
    codec = gpt_models.codec()
    lm = gpt_models.language_model(codec, bolder=10.0)
    encoder: Any = lm.encoder
    save_start(Start("gpt", METHODS["gpt"], codec, encoder, encoder.config), tmp_path / "gpt", {})
    (long,) = gpt_models.documents(1, 5, most=12)
    long = " ".join([long] * 8)
    short = "the cat sat on the mat"
    size = gpt_models.CONTEXT
    assert len(codec.ids([short])[0]) <= size < len(codec.ids([long])[0])
    found = {s: only(measure(tmp_path / "gpt", [short, long], stride=s)) for s in (None, 1, size // 2, size)}
    half = GPTScorer(lm, codec).score([short, long], 8)
    wanted = [-float(np.nansum(score.forward)) for score in half if score.forward is not None]
    assert found[None].predicted == pytest.approx(wanted, rel=1e-5)
    assert found[size // 2].predicted == pytest.approx(found[None].predicted, rel=1e-9)
    for reading in found.values():
        assert reading.predicted[0] == pytest.approx(wanted[0], rel=1e-6)  # within the context
    ids = codec.ids([long])[0]
    chunks = [ids[at : at + size + 1] for at in range(0, len(ids) - 1 - size, size)]
    sums = sum(float(np.nansum(nats)) for nats in GPTScorer(lm, codec).reader.nats(chunks))
    (first,) = GPTScorer(lm, codec, stride=size).reader.nats([ids])
    assert float(np.nansum(first[: len(chunks) * size + 1])) == pytest.approx(sums, rel=1e-5)
    assert found[1].predicted[1] != pytest.approx(found[size].predicted[1], rel=1e-4)
    with pytest.raises(UsageError, match=f"so give 1 to {size}"):
        measure(tmp_path / "gpt", [short], stride=size + 1)


def test_chinese_is_counted_in_characters(folders: dict[str, Path]) -> None:
    text = "电影很好，我喜欢。"
    found = measure(folders["uniform-ulmfit"], [text])
    assert found.characters.tolist() == [9] and found.words.tolist() == [7] == [count_words(text)]


def test_intervals_draw_documents(folders: dict[str, Path]) -> None:
    found = held_out([folders["ulmfit"], folders["gpt"]], lambda: DOCUMENTS, device="cpu")
    ulmfit, gpt = found.readings
    for reading in found.readings:
        low, high = found.interval(reading) or (0, 0)
        assert low < found.per_character(reading) < high
    more, sure = found.beyond_first(gpt)
    assert more == pytest.approx(found.per_character(gpt) - found.per_character(ulmfit))
    assert sure and sure[0] < more < sure[1]
    assert found.beyond_first(ulmfit) == (0, (0, 0))
    same = [DOCUMENTS[0]] * 5
    alike = measure(folders["gpt"], same)
    assert alike.interval(only(alike)) == pytest.approx([alike.per_character(only(alike))] * 2)
    assert (
        measure(folders["gpt"], DOCUMENTS[:1]).figures(only(measure(folders["gpt"], DOCUMENTS[:1])))[
            "interval"
        ]
        is None
    )


def test_what_cannot_be_measured_is_said(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="no text to score"):
        measure(folders["gpt"], ["", " \n"])
    with pytest.raises(UsageError, match="leave --stride out"):
        measure(folders["elmo"], DOCUMENTS, stride=4)


def run(*arguments: object, code: int = 0) -> str:
    said = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert said.exit_code == code, said.output
    return said.stdout if code == 0 else " ".join(said.stderr.split())


def test_evaluate_sets_models_side_by_side(folders: dict[str, Path], tmp_path: Path) -> None:
    text, out = tmp_path / "held.txt", tmp_path / "found.json"
    text.write_text("\n".join(DOCUMENTS) + "\n")
    others = [x for name in ("elmo", "bert") for x in ("--beside", folders[name])]
    shown = run("evaluate", folders["gpt"], text, *others, "--out", out, "--device", "cpu", "--quiet")
    found = json.loads(out.read_text())
    rows = {(row["model"], row["way"]): row for row in found["readings"]}
    assert list(rows) == [
        ("gpt", "forward"),
        *(("elmo", way) for way in ("forward", "backward", "mean")),
        ("bert", "masked"),
    ]
    for row in rows.values():
        assert f"{row['bits_per_character']:.4f}" in shown and f"{row['perplexity_per_token']:.4g}" in shown
        assert sum(row["nats_of"].values()) == pytest.approx(row["nats"])
    assert rows["bert", "masked"]["pseudo"] and "masked *" in shown
    assert found["documents"] == len(DOCUMENTS) and "code points" in found["units"]
    assert found["perplexity"]["value"] == pytest.approx(rows["gpt", "forward"]["perplexity_per_token"])
    one = run("evaluate", folders["gpt"], text, "--batch-size", 2, "--device", "cpu", "--quiet")
    assert f"{rows['gpt', 'forward']['bits_per_character']:.4f}" in one and "more than" not in one


def test_evaluate_reads_what_a_corpus_may_be(folders: dict[str, Path], tmp_path: Path) -> None:
    import lzma

    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt.xz").write_bytes(lzma.compress(b"the film\n\nwas good\nand great\n"))
    (tmp_path / "texts" / "b.jsonl").write_text('{"review": "a book"}\n')

    def documents(*arguments: object) -> Any:
        out = tmp_path / "found.json"
        run("evaluate", folders["uniform-ulmfit"], *arguments, "--out", out, "--device", "cpu", "-q")
        found = json.loads(out.read_text())
        return found["documents"], found["words"]

    packed, table = tmp_path / "texts" / "a.txt.xz", tmp_path / "texts" / "b.jsonl"
    assert documents(packed) == (3, 6)
    assert documents(packed, "--documents", "blank") == (2, 6)
    assert documents(packed, "--documents", "file") == (1, 6)
    assert documents(tmp_path / "texts", "--text", "review") == (2, 8)
    assert documents(table, "--text", "review") == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--documents", "page"], "--documents is 'page'"),
        (["--stride", 8], "none is given; leave --stride out"),
        (["--beside", "nowhere"], "nowhere: no such model folder"),
        (["--state", "carry", "--documents", "line"], "--documents is for texts that are read alone"),
        (["--cache", 20, "--beside", "x"], "--beside is for texts that are read alone"),
        (["--documents", "line", "--format", "csv"], "leave it or --documents out"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: list[object], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    text = tmp_path / "held.txt"
    text.write_text("the film\n")
    arguments = ["evaluate", folders["ulmfit"], text, *options, "--device", "cpu"]
    said = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert said.exit_code in (1, 2) and message in " ".join(said.stderr.split()), said.output
