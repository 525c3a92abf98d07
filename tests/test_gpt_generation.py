"""GPT writes and scores text: keys and values kept change nothing, at and past the last position too."""

from __future__ import annotations

from math import exp, isnan
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from gpt_models import CONTEXT, SAYINGS, codec, documents, language_model
from pretune.cli import app
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.methods.gpt.encoder import GPT
from pretune.methods.gpt.language import MARKS
from pretune.methods.gpt.tokens import GPTCodec
from pretune.runs.generation import Generating, generate, stream
from pretune.runs.gpt_scorer import GPTScorer
from pretune.runs.language_model import LanguageModel
from pretune.runs.starts import Start, save_start
from pretune.runs.writers import GPTWriter
from pretune.training.model import Model

PROMPT = "the cat sat"


@pytest.fixture(scope="module")
def text() -> GPTCodec:
    return codec()


@pytest.fixture(scope="module")
def model(text: GPTCodec) -> Model:
    return language_model(text, bolder=30.0)


@pytest.fixture(scope="module")
def writer(model: Model, text: GPTCodec) -> GPTWriter:
    return GPTWriter(model, text)


class Counted:
    """A writer that counts what is read."""

    def __init__(self, writer: Any) -> None:
        self.writer, self.reads = writer, list[tuple[int, ...]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.writer, name)

    def read(self, ids: Tensor, carry: Any) -> tuple[Tensor, Any]:
        self.reads.append(tuple(ids.shape))
        found: tuple[Tensor, Any] = self.writer.read(ids, carry)
        return found


def by_hand(model: Model, ids: list[int]) -> Tensor:
    """Log-probabilities of what follows, all of it read at once: (V - 3,)."""
    encoder = cast(GPT, model.encoder)
    with torch.no_grad():
        top, _ = encoder.read_on(torch.tensor([ids]), None)
        return (top[0, -1] @ encoder.tokens.weight[:-MARKS].t()).log_softmax(0)


def visible(ids: list[int], prompt: int) -> list[int]:
    """What stands at the positions once `ids` are written: the later half goes on whenever they are full."""
    there = ids[:prompt][-CONTEXT:]
    for token in ids[prompt:]:
        there = [*there, token]
        there = there if len(there) <= CONTEXT else there[-(CONTEXT // 2) :]
    return there


@pytest.mark.parametrize("prompt", [PROMPT, " ".join(documents(1, 5, 12))])
def test_a_step_a_token_writes_what_rereading_all_that_is_visible_would(
    model: Model, writer: GPTWriter, prompt: str
) -> None:
    ids = writer.prompt(prompt)
    wanted, nats = list(ids), []
    for _ in range(3 * CONTEXT):
        said = by_hand(model, visible(wanted, len(ids)))
        said[cast(int, writer.unknown)] = -torch.inf
        wanted.append(int(said.argmax()))
        nats.append(float(said.max()))
    counted = Counted(writer)
    (found,) = generate(counted, prompt, Generating(3 * CONTEXT, temperature=0))
    assert found.tokens == writer.words(wanted[len(ids) :])
    assert found.log_probabilities == pytest.approx(nats, abs=1e-4)
    assert counted.reads == [(1, len(ids))] + [(1, 1)] * (3 * CONTEXT - 1)
    assert not found.ended and isnan(found.end)


def test_probabilities_of_what_is_written_are_those_that_scoring_gives(
    model: Model, text: GPTCodec, writer: GPTWriter
) -> None:
    ids = writer.prompt("the")
    (found,) = generate(writer, "the", Generating(CONTEXT - len(ids), seed=3))
    read = [*ids, *(text.vocab.ids[piece] for piece in found.tokens)]
    (scored,) = GPTScorer(model, text).reader.nats([read])
    assert found.log_probabilities == pytest.approx(scored[len(ids) :].tolist(), abs=1e-4)


def test_a_text_does_not_depend_on_how_many_are_written_beside_it(writer: GPTWriter) -> None:
    many = generate(writer, PROMPT, Generating(40, count=4, seed=7))
    assert len({one.text for one in many}) > 1
    few = generate(writer, PROMPT, Generating(40, count=2, seed=7))
    assert [one.tokens for one in few] == [one.tokens for one in many[:2]]
    assert generate(writer, PROMPT, Generating(40, seed=7))[0].tokens == many[0].tokens


def test_beams_find_no_worse_than_the_likeliest_step_by_step(writer: GPTWriter) -> None:
    (greedy,) = generate(writer, PROMPT, Generating(24, temperature=0))
    best = generate(writer, PROMPT, Generating(24, beams=4, count=4))
    sums = [sum(one.log_probabilities) for one in best]
    assert sums == sorted(sums, reverse=True) and sums[0] >= sum(greedy.log_probabilities) - 1e-4
    again = generate(writer, PROMPT, Generating(24, beams=1))
    assert again[0].tokens == greedy.tokens


def test_neither_marks_nor_the_unknown_piece_are_written(text: GPTCodec, writer: GPTWriter) -> None:
    said = writer.read(torch.tensor([writer.prompt(PROMPT)]), None)[0]
    assert said.shape == (1, text.size - MARKS) and said.exp().sum() == pytest.approx(1, abs=1e-5)
    for one in generate(writer, PROMPT, Generating(60, temperature=50.0, count=3)):
        assert not {"_start_", "_delimiter_", "_classify_", "<unk>"} & set(one.tokens)
    for mark in ("_start_", "_classify_"):
        with pytest.raises(UsageError, match="no word of the vocabulary"):
            generate(writer, PROMPT, Generating(5, avoid=(mark,)))
    (without,) = generate(writer, PROMPT, Generating(60, temperature=50.0, avoid=("cat", "the</w>")))
    assert not {"cat</w>", "the</w>"} & set(without.tokens)


def test_a_text_is_streamed_as_it_is_written_whole(writer: GPTWriter) -> None:
    (whole,) = generate(writer, PROMPT, Generating(30, seed=2))
    assert "".join(stream(writer, PROMPT, Generating(30, seed=2))) == whole.text
    assert whole.whole.startswith(PROMPT)


def test_a_prompt_is_needed_and_its_unknown_words_are_named(writer: GPTWriter) -> None:
    for prompt in ("", "  \n"):
        with pytest.raises(UsageError, match="no mark for the beginning of a text; give a prompt"):
            generate(writer, prompt, Generating(5))
    assert writer.unknown_words("the cat quizzed 貓") == ["quizzed", "貓"]


def test_scores_do_not_depend_on_the_batch_and_reach_over_windows(model: Model, text: GPTCodec) -> None:
    scorer = GPTScorer(model, text)
    texts = [*documents(5, 8), "", "the", *SAYINGS]
    alone = [scorer.score([one], 64)[0] for one in texts]
    for one, many in zip(alone, scorer.score(texts, 3), strict=True):
        assert one.words == many.words and one.forward is not None and many.forward is not None
        np.testing.assert_allclose(one.forward, many.forward, atol=1e-4)
    assert alone[5].targets == alone[6].targets == (0, 0) and alone[6].words == ("the</w>",)
    long = max(alone, key=lambda one: len(one.words))
    ids = [text.vocab.ids[word] for word in long.words]
    assert len(ids) > 2 * CONTEXT and long.forward is not None and isnan(long.forward[0])
    assert np.isnan(long.forward).sum() == 1
    for t in range(1, CONTEXT + 1):
        assert long.forward[t] == pytest.approx(float(by_hand(model, ids[:t])[ids[t]]), abs=1e-4)
    t = CONTEXT + 1  # the first of the second window, which reaches back half a context
    reread = float(by_hand(model, ids[t - 1 - CONTEXT // 2 : t])[ids[t]])
    assert long.forward[t] == pytest.approx(reread, abs=1e-4)


def test_a_piece_could_stand_where_the_left_says_so(model: Model, text: GPTCodec) -> None:
    scorer = GPTScorer(model, text)
    (score,) = scorer.score([SAYINGS[0]], 8)
    found = {x.word: x for x in scorer.substitutes(SAYINGS[0], 2, 1000)}
    assert score.forward is not None
    assert found[score.words[2]].forward == pytest.approx(score.forward[2], abs=1e-4)
    assert sum(x.probability for x in found.values()) == pytest.approx(1, abs=1e-5)
    assert "<unk>" not in found and "_start_" not in found
    with pytest.raises(UsageError, match="begins to read at this word"):
        scorer.substitutes(SAYINGS[0], 0, 3)
    with pytest.raises(UserError, match="carries nothing from text to text"):
        scorer.carried(["a"], 1)
    assert exp(-score.mean) > 1


def test_a_folder_writes_scores_and_is_evaluated(model: Model, text: GPTCodec, tmp_path: Path) -> None:
    encoder = cast(GPT, model.encoder)
    save_start(Start("gpt", METHODS["gpt"], text, encoder, encoder.config), tmp_path / "gpt", {})
    lm = LanguageModel.load(tmp_path / "gpt", "cpu")
    (wanted,) = generate(GPTWriter(model, text), PROMPT, Generating(2 * CONTEXT, seed=4))
    assert lm.generate(PROMPT, 2 * CONTEXT, seed=4)[0].tokens == wanted.tokens
    run = CliRunner()
    said = run.invoke(app, ["generate", str(tmp_path / "gpt"), PROMPT, "--max-tokens", "32", "--seed", "4"])
    assert said.exit_code == 0 and said.stdout == wanted.whole + "\n"
    said = run.invoke(app, ["generate", str(tmp_path / "gpt")])
    assert said.exit_code == 2 and "give a prompt" in said.stderr
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(SAYINGS) + "\n")
    found = lm.perplexity(SAYINGS)
    assert found.targets == sum(len(ids) - 1 for ids in text.ids(SAYINGS)) and found.backward is None
    said = run.invoke(app, ["evaluate", str(tmp_path / "gpt"), str(lines)])
    assert said.exit_code == 0 and f"{found.value:.4g}" in said.stdout
    said = run.invoke(app, ["evaluate", str(tmp_path / "gpt"), str(lines), "--state", "carry"])
    assert said.exit_code == 2 and "carries nothing" in said.stderr
