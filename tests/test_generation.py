"""Generation: each token costs one step and changes nothing; beams find the best; seeds repeat texts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from math import exp, isnan, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.data.vocab import Vocab
from pretune.errors import UsageError, UserError
from pretune.keys import generator
from pretune.methods.ulmfit.rules import SPECIALS
from pretune.runs.generation import Generating, generate
from pretune.runs.language_model import LanguageModel
from pretune.runs.search import Allowed, Sampling, beam_search
from pretune.runs.starts import Start, save_start
from pretune.tasks.classification import Classification
from pretune.training.loop import Fitting

PROMPT = "It was a very good film , and"


def bolder(start: Start, by: float = 8.0) -> Start:
    """With weights that make some words much likelier than others, as training does."""
    encoder: Any = start.encoder
    with torch.no_grad():
        encoder.embedding.weight.mul_(by)
    return start


def saved(start: Start, folder: Path) -> Path:
    save_start(start, folder, {})
    return folder


def turned(start: Start) -> Start:
    codec: Any = start.codec
    return replace(start, codec=type(codec)(replace(codec.config, direction="backward"), codec.vocab))


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(bolder(tiny.start("ulmfit")), tmp_path_factory.mktemp("generation") / "forward")


@pytest.fixture(scope="module")
def backward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(turned(bolder(tiny.start("ulmfit"))), tmp_path_factory.mktemp("generation") / "backward")


class Counted:
    """A writer that counts what is read."""

    def __init__(self, writer: Any) -> None:
        self.writer, self.reads = writer, list[tuple[int, int]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.writer, name)

    def read(self, ids: Tensor, carry: Any) -> tuple[Tensor, Any]:
        self.reads.append((ids.shape[0], ids.shape[1]))
        found: tuple[Tensor, Any] = self.writer.read(ids, carry)
        return found


def run(*arguments: object, stdin: str | None = None) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, [str(x) for x in arguments], input=stdin)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stdout, found.stderr


@pytest.mark.parametrize("encoder", [{}, {"cell": "qrnn"}, {"cutoffs": (12, 20)}], ids=str)
def test_a_step_a_token_writes_what_rereading_all_before_it_would(
    encoder: dict[str, Any], tmp_path: Path
) -> None:
    start = bolder(tiny.start("ulmfit", **encoder))
    lm = LanguageModel.load(saved(start, tmp_path / "model"), "cpu")
    writer = lm.writer()
    ids = writer.prompt(PROMPT)
    barred = {start.codec.vocab.ids[word] for word in ("xxunk", "xxpad", "xxfld")}  # type: ignore[attr-defined]
    marks = {start.codec.vocab.ids[word] for word in ("xxbos", "xxeos")}  # type: ignore[attr-defined]
    wanted, nats = [], []
    while len(wanted) < 30:
        said, _ = writer.read(torch.tensor([[*ids, *wanted]]), None)
        allowed = [i for i in said[0].argsort(descending=True).tolist() if i not in barred | marks]
        wanted.append(allowed[0])
        nats.append(float(said[0, allowed[0]]))
    counted = Counted(writer)
    (found,) = generate(counted, PROMPT, Generating(30, temperature=0, stop=False))  # type: ignore[arg-type]
    assert found.tokens == writer.words(wanted)
    assert found.log_probabilities == pytest.approx(nats, abs=1e-5)
    assert counted.reads == [(1, len(ids))] + [(1, 1)] * 29


def test_a_prompt_of_any_length_is_read_with_its_state(
    forward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = LanguageModel.load(forward, "cpu")
    ids = torch.tensor([lm.writer().prompt(" ".join(tiny.texts(30, 4)))])
    whole, _ = lm.writer().read(ids, None)
    monkeypatch.setattr("pretune.runs.writers.PROMPT_TOKENS", 7)
    parts, _ = lm.writer().read(ids, None)
    assert torch.allclose(whole, parts, atol=1e-5)


def test_probabilities_are_those_that_scoring_gives(forward: Path) -> None:
    lm = LanguageModel.load(forward, "cpu")
    avoid = ("xxrep", "xxwrep", "xxup", "xxmaj", "xxeos")  # marks do not survive being written and read
    (found,) = lm.generate("film", 8, avoid=avoid, seed=3, stop=False)
    (score,) = lm.score([found.whole])
    assert score.forward is not None
    assert found.log_probabilities == pytest.approx(score.forward[1:].tolist(), abs=1e-5)


def test_a_text_depends_on_its_seed_and_number_alone(forward: Path) -> None:
    lm = LanguageModel.load(forward, "cpu")
    five = lm.generate(PROMPT, 25, count=5, seed=7)
    assert len({one.text for one in five}) > 1
    assert [one.tokens for one in lm.generate(PROMPT, 25, count=2, seed=7)] == [
        one.tokens for one in five[:2]
    ]
    shorter = lm.generate(PROMPT, 10, count=5, seed=7)
    assert [one.tokens for one in shorter] == [one.tokens[:10] for one in five]
    torch.manual_seed(99)
    assert [one.tokens for one in lm.generate(PROMPT, 25, count=5, seed=7)] == [one.tokens for one in five]
    assert [one.tokens for one in lm.generate(PROMPT, 25, count=5, seed=8)] != [one.tokens for one in five]


def test_texts_that_end_early_leave_the_others_alone(forward: Path) -> None:
    lm = LanguageModel.load(forward, "cpu")
    many = lm.generate("", 60, count=12, seed=2, temperature=1.5)
    lengths = [len(one.tokens) for one in many]
    assert any(one.ended for one in many) and len(set(lengths)) > 2
    writer, how = lm.writer(), Generating(60, temperature=1.5, seed=2)
    for number, one in enumerate(many):
        alone = _alone(writer, how, number)
        assert alone == one.tokens


def _alone(writer: Any, how: Generating, number: int) -> tuple[str, ...]:
    """Text `number` of a seed, drawn without company."""
    from pretune.runs.search import draw

    allowed = Allowed(writer.ends, (*writer.silent, writer.unknown))
    chance = generator(how.seed, "generate", number)
    drawn = draw(writer, writer.prompt(""), how.max_tokens, allowed, how.sampling, [chance])
    return writer.words([one.token for one in drawn if one.token not in allowed.ends])  # type: ignore[no-any-return]


def test_words_are_drawn_as_often_as_the_model_expects_them() -> None:
    shares = torch.tensor([0.5, 0.25, 0.15, 0.1])
    chance, nats = torch.Generator().manual_seed(0), shares.log()

    def drawn(sampling: Sampling) -> list[float]:
        counts = [0] * 4
        for _ in range(4000):
            counts[sampling.draw(nats, chance)] += 1
        return [count / 4000 for count in counts]

    assert drawn(Sampling()) == pytest.approx(shares.tolist(), abs=0.03)
    hot = shares**0.5 / (shares**0.5).sum()
    assert drawn(Sampling(temperature=2)) == pytest.approx(hot.tolist(), abs=0.03)
    assert drawn(Sampling(temperature=0)) == drawn(Sampling(temperature=1e-320)) == [1, 0, 0, 0]
    assert drawn(Sampling(top_k=2)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.03)
    assert drawn(Sampling(top_p=0.7)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.03)
    assert drawn(Sampling(top_p=0.8)) == pytest.approx([5 / 9, 2.5 / 9, 1.5 / 9, 0], abs=0.03)
    assert drawn(Sampling(min_p=0.25)) == pytest.approx([5 / 9, 2.5 / 9, 1.5 / 9, 0], abs=0.03)
    assert drawn(Sampling(top_p=1e-9)) == [1, 0, 0, 0]


def _all_texts(writer: Any, prompt: list[int], words: list[int], end: int, most: int, penalty: float) -> Any:
    """Every text of at most `most` tokens with its value, the best first."""
    found = []
    for length in range(most + 1):
        for ids in product(words, repeat=length):
            whole = [*ids, end] if length < most else list(ids)
            nats = []
            for k, token in enumerate(whole):
                said, _ = writer.read(torch.tensor([[*prompt, *whole[:k]]]), None)
                nats.append(float(said[0, token]))
            found.append((sum(nats) / len(nats) ** penalty, tuple(whole)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beams_find_the_likeliest_of_all_texts(penalty: float, tmp_path: Path) -> None:
    start = tiny.start("ulmfit")
    codec = start.codec.with_vocab(Vocab([*SPECIALS, "good", "film", "the"]))  # type: ignore[attr-defined]
    tiniest = replace(start, codec=codec, encoder=start.method.build(start.encoder_config, codec))
    lm = LanguageModel.load(saved(bolder(tiniest, 20), tmp_path / "model"), "cpu")
    writer: Any = lm.writer()
    prompt = writer.prompt("the film")
    words = [writer.id_of(word) for word in ("good", "film", "the")]
    end = writer.id_of("xxbos")
    barred = tuple(i for i in range(codec.size) if i not in (*words, end))
    best = _all_texts(writer, prompt, words, end, 3, penalty)
    found = beam_search(writer, prompt, 3, Allowed((end,), barred), 40, penalty)
    assert [one.ids for one in found] == [ids for _, ids in best[:40]]
    for one, (value, _) in zip(found, best, strict=False):
        assert sum(one.nats) / len(one.nats) ** penalty == pytest.approx(value, abs=1e-5)
    narrow = beam_search(writer, prompt, 3, Allowed((end,), barred), 1, penalty)
    assert len(narrow) == 1


def test_one_beam_without_an_end_is_greedy(forward: Path) -> None:
    lm = LanguageModel.load(forward, "cpu")
    (greedy,) = lm.generate(PROMPT, 15, temperature=0, stop=False)
    (beam,) = lm.generate(PROMPT, 15, beams=1, stop=False)
    assert beam.tokens == greedy.tokens
    wide = lm.generate(PROMPT, 15, beams=8, count=3, stop=False)
    sums = [sum(one.log_probabilities) for one in wide]
    assert sums == sorted(sums, reverse=True) and sums[0] >= sum(greedy.log_probabilities) - 1e-6


def test_a_text_ends_where_the_model_ends_the_document(forward: Path) -> None:
    lm = LanguageModel.load(forward, "cpu")
    texts = lm.generate("", 200, count=20, temperature=1.5)
    ended = [one for one in texts if one.ended]
    assert ended and all(isnan(one.end) for one in texts if not one.ended)
    for one in texts:
        assert not {"xxbos", "xxeos", "xxpad", "xxunk", "xxfld"} & set(one.tokens)
        assert one.ended == (len(one.tokens) < 200)
    assert all(len(one.tokens) == 40 for one in lm.generate("", 40, count=20, temperature=1.5, stop=False))


def test_words_that_are_to_be_avoided_are_not_written_and_unknown_only_if_asked(forward: Path) -> None:
    lm = LanguageModel.load(forward, "cpu")
    likeliest = lm.generate(PROMPT, 1, temperature=0, stop=False)[0].tokens[0]
    texts = lm.generate(PROMPT, 50, count=4, stop=False, avoid=[likeliest, "xxmaj"])
    assert not any({likeliest, "xxmaj"} & set(one.tokens) for one in texts)
    texts = lm.generate(PROMPT, 100, count=6, stop=False, unknown=True, temperature=3.0)
    assert any("xxunk" in one.tokens for one in texts)
    with pytest.raises(UsageError, match="avoid names 'unheard-of', which is no word"):
        lm.generate(PROMPT, avoid=["unheard-of"])
    with pytest.raises(UsageError, match="no word is left"):
        lm.generate(PROMPT, avoid=lm.writer().words(range(9, lm.start.codec.size)) + SPECIALS, stop=False)


def test_what_is_written_stands_beside_the_prompt_as_text_does(forward: Path) -> None:
    lm = LanguageModel.load(forward, "cpu")
    for prompt in (PROMPT, "The FILM was GOOOOOD", "unheard-of words (", 'he said "', "", "It was a "):
        for one in lm.generate(prompt, 15, count=4, seed=1):
            assert one.whole.startswith(prompt.rstrip())
            words = lm.start.codec.tokens(one.text)[1:]  # type: ignore[attr-defined]
            if not {"xxrep", "xxwrep", "xxup", "xxmaj"} & set(one.tokens):
                assert tuple(words) == one.tokens
            assert "  " not in one.whole


def test_streaming_gives_the_same_text_in_pieces(forward: Path) -> None:
    lm = LanguageModel.load(forward, "cpu")
    for seed in range(6):
        how = Generating(20, seed=seed)
        pieces = list(lm.stream(PROMPT, how))
        assert len(pieces) > 1
        assert "".join(pieces) == lm.generate(PROMPT, 20, seed=seed)[0].text
    with pytest.raises(UsageError, match="one text, drawn from left to right"):
        next(lm.stream(PROMPT, Generating(count=2)))


def test_a_backward_model_writes_what_stands_before(backward: Path) -> None:
    lm = LanguageModel.load(backward, "cpu")
    prompt = "was a good film"
    marks = ("xxrep", "xxwrep", "xxup", "xxmaj")
    (found,) = lm.generate(prompt, 10, temperature=2, stop=False, avoid=marks)
    assert found.whole.endswith(prompt) and found.whole != prompt
    writer = lm.writer()
    read = [writer.id_of(word) for word in ("xxbos", "film", "good", "a", "was")]
    assert writer.prompt(prompt) == read
    for token, nats in zip(found.tokens[::-1], found.log_probabilities[::-1], strict=True):
        said, _ = writer.read(torch.tensor([read]), None)
        assert float(said[0, writer.id_of(token)]) == pytest.approx(nats, abs=1e-5)
        read.append(writer.id_of(token))
    assert found.text.split() == list(found.tokens)
    with pytest.raises(UsageError, match="one text, drawn from left to right"):
        next(lm.stream(prompt))


def test_marks_that_open_a_text_close_the_one_before(tmp_path: Path) -> None:
    """Version 0.7 opens a text by a line's end, xxbos and xxfld 1; from the right these come last."""
    for turn, marks in ((False, ["\n", "xxbos"]), (True, ["1", "xxfld"])):
        start = tiny.start("ulmfit")
        codec: Any = start.codec
        words = [*codec.vocab.words, "\n", "1"]
        config = replace(codec.config, rules="v07")
        codec = type(codec)(config, Vocab(words))
        start = replace(start, codec=codec, encoder=start.method.build(start.encoder_config, codec))
        start = turned(start) if turn else start
        lm = LanguageModel.load(saved(start, tmp_path / f"{turn}"), "cpu")
        writer: Any = lm.writer()
        opening = [writer.id_of(word) for word in ("\n", "xxbos", "xxfld", "1")]
        film, good = writer.id_of("film"), writer.id_of("good")
        assert writer.prompt("good film") == (
            [*opening[::-1], film, good] if turn else [*opening, good, film]
        )
        scripted = Scripted(writer, [good, *(writer.id_of(mark) for mark in marks)])
        (found,) = generate(scripted, "film", Generating(9, temperature=0))  # type: ignore[arg-type]
        assert found.tokens == ("good",) and found.ended
        assert found.whole == ("good film" if turn else "film good")


class Scripted:
    """A writer whose model says what it is told to."""

    def __init__(self, writer: Any, tokens: list[int]) -> None:
        self.writer, self.tokens = writer, list(tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.writer, name)

    def read(self, ids: Tensor, carry: Any) -> tuple[Tensor, Any]:
        said, carry = self.writer.read(ids, carry)
        said[:, self.tokens.pop(0)] = 9.0
        return said, carry


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": 0.0}, "min_p is 0.0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"count": 3, "beams": 2}, "2 beams find no more than 2"),
        ({"beams": 2, "top_k": 5}, "top_k means nothing beside them"),
        ({"beams": 2, "seed": 5}, "seed means nothing beside them"),
        ({"length_penalty": 1.0}, "give beams as well"),
        ({"length_penalty": nan, "beams": 2}, "length_penalty is nan"),
        ({"temperature": 0.0, "count": 2}, "always the same"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Generating(**options)


def test_models_that_cannot_write_say_so(forward: Path, tmp_path: Path) -> None:
    elmo = saved(tiny.start("elmo"), tmp_path / "elmo")
    with pytest.raises(UserError, match=r"elmo reads sentences both ways.*generate with ulmfit"):
        LanguageModel.load(elmo, "cpu").generate()
    from pretune.runs.run import finetune

    samples = tiny.labelled(8)
    quiet = Fitting(device="cpu", quiet=True)
    task, recipe = Classification.of(samples), tiny.recipe("full")
    trained, _ = finetune(tiny.start("ulmfit"), task, recipe, samples, [], quiet)
    trained.save(tmp_path / "task", {})
    with pytest.raises(UserError, match="is a language model no more"):
        LanguageModel.load(tmp_path / "task", "cpu")
    ways = [tiny.start("ulmfit"), turned(tiny.start("ulmfit"))]
    save_start([replace(one, name=name) for one, name in zip(ways, ("fwd", "bwd"))], tmp_path / "both", {})
    code, _, err = run("generate", tmp_path / "both", "It was")
    assert code == 1 and "choose one of" in err and "bwd" in err


def test_the_command_writes_texts_and_json_lines(forward: Path, tmp_path: Path) -> None:
    code, out, err = run("generate", forward, PROMPT, "--max-tokens", 12, "--seed", 3)
    assert code == 0, err
    (wanted,) = LanguageModel.load(forward, "cpu").generate(PROMPT, 12, seed=3)
    assert out == wanted.whole + "\n"
    assert "of the prompt, 1 word is unknown to the model: ," in err
    file = tmp_path / "texts.jsonl"
    code, out, err = run("generate", forward, "-", "--count", 3, "--out", file, stdin=PROMPT + "\n")
    assert code == 0 and out == "" and "3 texts in" in err
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [PROMPT] * 3
    for row in rows:
        assert row["whole"] == PROMPT + row["text"]
        assert len(row["tokens"]) == len(row["log_probabilities"])
        assert row["ended"] == (row["end"] is not None)
        assert all(0 < exp(x) <= 1 for x in row["log_probabilities"])
    code, out, _ = run("generate", forward, "--count", 2, "--quiet", "--max-tokens", 5)
    assert code == 0 and out.count("\n\n") == 1


def test_the_command_answers_mistakes_in_one_line(forward: Path, tmp_path: Path) -> None:
    for arguments, code, message in (
        ((forward, "x", "--beams", 2, "--temperature", 0.5), 2, "temperature means nothing"),
        ((forward, "x", "--top-p", 3), 2, "top_p is 3"),
        ((tmp_path / "none", "x"), 1, "no such model folder"),
        ((forward, "x", "--avoid", "qqq"), 2, "avoid names 'qqq'"),
    ):
        found = run("generate", *arguments)
        assert found[0] == code and message in found[2].replace("\n", " ")
        assert len([line for line in found[2].splitlines() if line.startswith("error: ")]) == 1
