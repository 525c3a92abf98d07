"""ELMo learns as the original does: batches, losses, gradient norms, weights; and it does learn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from pretune.data.corpus import Corpus
from pretune.data.spelling import spelled
from pretune.data.vocab import Vocab
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.methods.elmo import ELMo, ElmoCodec, ElmoCodecConfig, ELMoConfig, ElmoPretraining, adopt
from pretune.methods.elmo import encoder as network
from pretune.methods.elmo.pretraining import tokens_of
from pretune.runs.run import load_start
from pretune.runs.starts import Start, adopted
from pretune.tasks.both_ways import BothWays
from pretune.tensors.batch import Batch, collate
from pretune.tensors.streams import NO_TARGET
from pretune.tensors.two_ways import TwoWaySource
from pretune.training.devices import detached
from pretune.training.loop import Fitting
from pretune.training.model import Model

# The release's test of its batches: tests/test_data.py of bilm-tf.
WORDS = ["<S>", "</S>", "<UNK>", "the", ".", "Āt"]
LINES = ["the unknown .", "th .", "the"]
BATCHES = [
    ([[0, 3, 2], [0, 2, 4]], [[3, 2, 4], [2, 4, 1]], [[1, 4, 2], [1, 4, 2]], [[4, 2, 3], [4, 2, 0]]),
    ([[4, 0, 3], [0, 3, 2]], [[1, 3, 1], [3, 2, 4]], [[3, 1, 3], [1, 4, 2]], [[0, 3, 0], [4, 2, 3]]),
]


def source(lines: list[str], tmp_path: Path, **settings: Any) -> tuple[TwoWaySource, ElmoCodec]:
    codec = ElmoCodec(ElmoCodecConfig(segmenter="spaces", split="lines", max_characters=5), Vocab(WORDS))
    assert codec.vocab is not None
    encoder = ELMo(ELMoConfig(4, 2, filters=((1, 2),), char_dim=2, max_characters=5, softmax=True), 6)
    made = ElmoPretraining(streams=2, window=3).source(
        encoder, codec, codec.vocab, Corpus.of(lines), tmp_path, 0
    )
    return replace(made, **settings), codec


def test_batches_equal_the_releases(tmp_path: Path) -> None:
    streams, _ = source(LINES * 2, tmp_path, shuffle=False)
    for step, (forward, forward_next, backward, backward_next) in enumerate(BATCHES):
        batch = streams.batch(0, step)
        assert batch.gold["next"].tolist() == forward_next + backward_next
        assert batch.segments[:, 0].tolist() == [0, 0, 1, 1]
        assert batch.words is not None
        known = {tuple(row): i for i, row in enumerate(spelled(WORDS, 5).tolist())}
        read = [[known.get(tuple(batch.words[i].tolist()), 2) for i in row] for row in batch.ids]
        assert read == forward + backward


def test_words_outside_the_vocabulary_are_spelled_as_they_are_written(tmp_path: Path) -> None:
    streams, codec = source(LINES * 2, tmp_path, shuffle=False)
    assert codec.spell is not None
    batch = streams.batch(0, 0)
    assert batch.words is not None
    torch.testing.assert_close(batch.words[batch.ids[0, 2]], codec.spell(["unknown"])[0])


def test_each_way_has_an_order_of_its_own_that_follows_from_seed_and_epoch(tmp_path: Path) -> None:
    streams, _ = source([f"the {'. ' * (n % 4)}" for n in range(40)], tmp_path)

    def said(made: TwoWaySource, epoch: int) -> list[Any]:
        return [made.batch(epoch, step).gold["next"].tolist() for step in range(made.steps(epoch))]

    again = replace(streams)
    assert said(streams, 0) == said(again, 0)
    assert said(streams, 0) != said(streams, 1)
    assert said(streams, 0) != said(replace(streams, seed=1), 0)


def test_evaluation_reads_every_word_whatever_the_streams(tmp_path: Path) -> None:
    lines = [f"the {'. ' * (n % 5)}th" for n in range(23)]
    targets = sum(len(line.split()) + 1 for line in lines)
    for streams in (1, 2, 5):
        made, _ = source(lines, tmp_path, shuffle=False, streams=streams, whole=True)
        batches = [made.batch(0, step) for step in range(made.steps(0))]
        asked = [batch.gold["next"][batch.mask] for batch in batches]
        assert sum(map(len, asked)) == 2 * targets
        assert torch.equal(batches[-1].mask, batches[-1].gold["next"] != NO_TARGET)
    made, _ = source(lines, tmp_path, shuffle=False, streams=5)
    assert sum(made.batch(0, step).mask.sum() for step in range(made.steps(0))) < 2 * targets


def test_streams_are_fewer_where_the_text_is_short(tmp_path: Path) -> None:
    made, _ = source(["the . the . the . th . the ."] * 3, tmp_path, streams=4)
    assert made.steps(0) >= 1 and made.streams < 4


def test_streams_restart_where_the_seed_says(tmp_path: Path) -> None:
    streams, _ = source(["the . th ."] * 80, tmp_path, streams=4, restarts=0.5)
    said = [streams.batch(0, step).given["restart"] for step in range(streams.steps(0))]
    assert all(torch.equal(x, replace(streams).batch(0, k).given["restart"]) for k, x in enumerate(said))
    assert 0.3 < torch.stack(said).float().mean() < 0.7
    halves = [replace(streams, streams=2, world=2, rank=rank) for rank in range(2)]
    parts = [half.batch(0, 3).given["restart"].view(2, 2) for half in halves]
    assert torch.equal(torch.cat(parts, 1).flatten(), said[3])
    assert "restart" not in replace(streams, restarts=0.0).batch(0, 0).given


def test_a_restarted_row_forgets_and_its_neighbours_do_not(tmp_path: Path) -> None:
    streams, codec = source(["the . th ."] * 8, tmp_path)
    assert codec.vocab is not None
    encoder = ELMo(ELMoConfig(4, 2, filters=((1, 2),), char_dim=2, max_characters=5, softmax=True), 6).eval()
    encoder.purpose("language_model")
    batch = streams.batch(0, 0)
    carry = encoder(streams.batch(0, 1)).carry
    alone, carried = encoder(batch).layers[-1], encoder(batch, carry).layers[-1]
    batch.given["restart"] = torch.tensor([True, False, False, True])
    some = encoder(batch, carry).layers[-1]
    torch.testing.assert_close(some[[0, 3]], alone[[0, 3]])
    torch.testing.assert_close(some[[1, 2]], carried[[1, 2]])
    assert not torch.allclose(alone[1], carried[1])


def test_processes_read_different_streams_of_one_plan(tmp_path: Path) -> None:
    lines = [f"the {'. ' * (n % 4)}" for n in range(40)]
    alone, _ = source(lines, tmp_path, streams=4)
    halves = [source(lines, tmp_path, rank=rank, world=2, streams=2)[0] for rank in range(2)]
    for step in range(alone.steps(0)):
        whole = alone.batch(0, step).gold["next"]  # rows: 4 forward, 4 backward
        parts = [half.batch(0, step).gold["next"] for half in halves]  # 2 and 2 each
        assert torch.equal(whole, torch.cat([p[:2] for p in parts] + [p[2:] for p in parts]))


def test_a_killed_run_finds_its_words_again(tmp_path: Path) -> None:
    codec = ElmoCodec(ElmoCodecConfig(segmenter="spaces", split="lines"), Vocab(WORDS))
    assert codec.vocab is not None
    first = tokens_of(Corpus.of(LINES), codec, codec.vocab, tmp_path)
    next(tmp_path.glob("words-*.txt")).unlink()
    again = tokens_of(Corpus.of(LINES), codec, codec.vocab, tmp_path)
    assert again[1] == first[1] == (*WORDS, "unknown", "th")
    assert again[0].ids.tolist() == first[0].ids.tolist()


# The release's own training graph: five steps, all weights known.

TRAINED = ELMoConfig(
    dim=16,
    projection_dim=8,
    filters=((1, 8), (2, 8), (3, 16), (4, 32)),
    char_dim=4,
    max_characters=10,
    softmax=True,
    dropout=0.0,
)


def tensorflow_weights(arrays: Any, when: str) -> dict[str, Tensor]:
    """The graph's variables under our names."""

    def get(name: str) -> Tensor:
        return torch.from_numpy(arrays[f"{when}/lm/{name}:0"])

    def gates(x: Tensor) -> Tensor:
        i, j, f, o = x.chunk(4, -1)
        return torch.cat((i, f, j, o), -1)

    found = {"characters.embedding.weight": torch.cat((torch.zeros(1, 4), get("char_embed")))}
    for k in range(4):
        found[f"characters.convolutions.{k}.weight"] = get(f"CNN/W_cnn_{k}")[0].permute(2, 1, 0)
        found[f"characters.convolutions.{k}.bias"] = get(f"CNN/b_cnn_{k}")
    for k in range(2):
        for part in ("carry", "transform"):
            found[f"characters.highways.{k}.{part}.weight"] = get(f"CNN_high_{k}/W_{part}").t()
            found[f"characters.highways.{k}.{part}.bias"] = get(f"CNN_high_{k}/b_{part}")
    found["characters.projection.weight"] = get("CNN_proj/W_proj").t()
    found["characters.projection.bias"] = get("CNN_proj/b_proj")
    for way, direction in enumerate(("forwards", "backwards")):
        for layer in range(2):
            cell = f"RNN_{way}/rnn/multi_rnn_cell/cell_{layer}/lstm_cell"
            kernel, ours = gates(get(f"{cell}/kernel")), f"rnns.{layer}.{direction}"
            found[f"{ours}.weight_ih"], found[f"{ours}.weight_hh"] = kernel[:8].t(), kernel[8:].t()
            found[f"{ours}.bias"] = gates(get(f"{cell}/bias"))
            found[f"{ours}.weight_proj"] = get(f"{cell}/projection/kernel").t()
    found["softmax.weight"], found["softmax.bias"] = get("softmax/W"), get("softmax/b")
    return found


def golden_batch(arrays: Any, step: int) -> Batch:
    names = ("tokens_characters", "tokens_characters_reverse")
    characters = np.concatenate([arrays[f"batch{step}/{name}"] for name in names]).astype(np.int64) + 1
    words, ids = np.unique(characters.reshape(-1, 10), axis=0, return_inverse=True)
    following = [arrays[f"batch{step}/{name}"] for name in ("next_token_id", "next_token_id_reverse")]
    place = torch.from_numpy(ids.reshape(4, 10))
    return Batch(
        place,
        torch.ones_like(place, dtype=torch.bool),
        torch.tensor([0, 0, 1, 1])[:, None].expand(4, 10),
        torch.arange(4),
        gold={"next": torch.from_numpy(np.concatenate(following).astype(np.int64))},
        words=torch.from_numpy(words),
    )


@pytest.mark.parametrize("lockstep", [False, True])
def test_five_steps_equal_the_releases_training(
    lockstep: bool, shared: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, gradient norms before clipping, states, and weights after the first and the fifth step."""
    monkeypatch.setattr(network, "in_lockstep", lambda table: lockstep)
    window, clip = 10, 1.0
    with np.load(shared("fixtures/elmo/golden_train.npz")) as arrays:
        encoder = ELMo(TRAINED, 32)
        encoder.load_state_dict(tensorflow_weights(arrays, "init"))
        encoder.purpose("language_model")
        model = Model(encoder, BothWays(None, dropout=0.0).head(encoder)).train()
        stage = ElmoPretraining(window=window, clip=clip).stage(encoder, 1)
        optimizer, carry = stage.optimizer.build(stage.optimized()), None
        for step in range(5):
            batch = golden_batch(arrays, step)
            output = model(batch, carry)
            loss = output.loss / model.head.targets(batch)
            assert float(loss.detach()) == pytest.approx(float(arrays[f"step{step}/loss"]), rel=1e-5)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), stage.clip or 0.0)
            assert float(norm) * window == pytest.approx(float(arrays[f"step{step}/gnorm"]), rel=1e-5)
            optimizer.step()
            optimizer.zero_grad()
            carry = detached(output.carry)
            for way in range(2):
                for layer in range(2):
                    for ours, name in zip(carry[layer][way], "hc", strict=True):
                        theirs = torch.from_numpy(arrays[f"step{step}/state/{way}/{layer}/{name}"])
                        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=3e-6)
            if step in (0, 4):
                for name, theirs in tensorflow_weights(arrays, f"after{step}").items():
                    torch.testing.assert_close(encoder.state_dict()[name], theirs, rtol=1e-5, atol=3e-6)


# It learns.

TEXT = [
    "The cat sat on the mat .",
    "A dog lay on the rug , and the cat saw it .",
    "Then the dog ran to the mat .",
    "It was the mat of the cat .",
    "So the cat ran .",
]
SMALL: dict[str, dict[str, Any]] = {
    "words from the left": {"inputs": "words", "directions": "forward"},
    "words, one matrix": {"inputs": "words", "tied": True},
    "characters, both ways": {},
    "no skip connections": {"skip_connections": False},
    "one layer without projection": {"layers": 1, "dim": 8},
}


@pytest.mark.parametrize(
    "variant",
    [
        name if name == "characters, both ways" else pytest.param(name, marks=pytest.mark.slow)
        for name in SMALL
    ],
)
def test_tiny_models_learn_a_tiny_text(variant: str) -> None:
    """As the release's tests/test_training.py: perplexity below 20 after 50 epochs on five sentences."""
    shape = ELMoConfig(
        **{"dim": 16, "projection_dim": 8, "filters": ((1, 8), (2, 8), (3, 16)), "char_dim": 4}
        | {"max_characters": 10, "softmax": True}
        | SMALL[variant]
    )
    texts = Corpus.of(TEXT)
    config = ElmoCodecConfig(min_count=1, max_characters=10, inputs=shape.inputs, split="lines")
    codec = ElmoCodec.learn(texts, config)
    torch.manual_seed(1)
    encoder = ELMo(shape, codec.size)
    learning = ElmoPretraining(epochs=60, streams=2, window=5, candidates=16, clip=1.0)
    many = Corpus.of(TEXT * 4)
    scores = learning.run(encoder, codec, many, texts, Fitting(device="cpu", quiet=True))
    assert scores["perplexity"] < 20 < codec.size
    assert encoder.active == "task"


def test_sampled_and_full_softmax_are_both_evaluated_in_full() -> None:
    start = tiny.start("elmo")
    head = BothWays(candidates=4).head(start.encoder)
    start.encoder.purpose("language_model")
    model = Model(start.encoder, head)
    codec = start.codec
    assert isinstance(codec, ElmoCodec)
    task = BothWays(candidates=4)
    samples = tiny.labelled(3)
    rows = task.rows(codec, samples)
    batch = collate(rows, 0, gold=task.gold(samples, rows), spell=codec.spell)
    nats = float(model.eval()(batch).loss.detach())
    asked = collate(rows, 0, given=task.given(samples, rows), spell=codec.spell)
    answers = task.decode(model(asked).scores, samples, rows)
    assert -sum(a.scores["log_probability"] for a in answers) == pytest.approx(nats, rel=1e-5)
    scores = task.score([None] * 3, answers)
    assert scores["perplexity"] == pytest.approx(exp(nats / head.targets(batch)), rel=1e-5)


def test_a_sentences_score_does_not_depend_on_its_neighbours() -> None:
    start = tiny.start("elmo")
    codec, task = start.codec, BothWays()
    assert isinstance(codec, ElmoCodec)
    start.encoder.purpose("language_model")
    model = Model(start.encoder, task.head(start.encoder)).eval()
    samples = tiny.labelled(5)

    def scores(some: list[Any]) -> list[dict[str, float]]:
        rows = task.rows(codec, some)
        batch = collate(rows, 0, given=task.given(some, rows), spell=codec.spell)
        return [answer.scores for answer in task.decode(model(batch).scores, some, rows)]

    together = scores(samples)
    for sample, mine in zip(samples, together, strict=True):
        assert scores([sample])[0] == pytest.approx(mine, rel=1e-6)


def test_a_model_without_a_softmax_cannot_be_asked_for_words() -> None:
    encoder = tiny.start("elmo", softmax=False).encoder
    with pytest.raises(UsageError, match="no softmax"):
        BothWays().head(encoder)


def test_a_task_model_leaves_the_softmax_behind() -> None:
    start = tiny.start("elmo")
    copy = start.encoder.for_task()
    assert isinstance(copy, ELMo) and isinstance(start.encoder, ELMo)
    assert copy.softmax is None and start.encoder.softmax is not None
    assert not copy.config.softmax and start.encoder.config.softmax
    rest = {name: x for name, x in start.encoder.state_dict().items() if not name.startswith("softmax")}
    assert all(torch.equal(x, copy.state_dict()[name]) for name, x in rest.items())


def test_adopting_keeps_the_layers_and_each_words_place_in_the_softmax() -> None:
    old, new = tiny.start("elmo"), tiny.start("elmo", seed=1)
    assert isinstance(old.codec, ElmoCodec) and old.codec.vocab is not None
    words = [*old.codec.vocab.words[:3], "new", *reversed(old.codec.vocab.words[3:])]
    codec = ElmoCodec(old.codec.config, Vocab(words))
    target = METHODS["elmo"].build(new.encoder_config, codec)
    adopt(old.encoder, old.codec, target, codec)
    ours, theirs = target.state_dict(), old.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if not name.startswith("softmax"))
    assert torch.equal(ours["softmax.weight"][4:].flip(0), theirs["softmax.weight"][3:])
    assert torch.equal(ours["softmax.weight"][3], theirs["softmax.weight"][2])  # as unknown as <UNK>


def test_text_that_is_too_short_for_a_window_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are too few for 1 streams of 3"):
        source(["the"], tmp_path)


def test_adaptation_keeps_the_words_that_the_model_predicts(tmp_path: Path) -> None:
    old = tiny.start("elmo")
    new = adopted(old, Corpus.of(["unheard unheard unheard of"]), None, 0)
    assert new.codec is old.codec
    ours, theirs = new.encoder.state_dict(), old.encoder.state_dict()
    assert all(torch.equal(x, ours[name]) for name, x in theirs.items())


def test_a_model_without_a_softmax_learns_one_of_the_texts_words() -> None:
    old = tiny.start("elmo", softmax=False)
    assert isinstance(old.codec, ElmoCodec)
    bare = replace(old, codec=ElmoCodec(old.codec.config))
    texts = Corpus.of(["a film of the book", "the book of a film"] * 8)
    new = adopted(bare, texts, None, 0)
    assert isinstance(new.encoder, ELMo) and isinstance(new.codec, ElmoCodec)
    assert new.encoder.config.softmax and new.codec.vocab is not None and "film" in new.codec.vocab
    rest = {name: x for name, x in new.encoder.state_dict().items() if not name.startswith("softmax")}
    assert all(torch.equal(x, old.encoder.state_dict()[name]) for name, x in rest.items())
    learning = ElmoPretraining(epochs=4, streams=2, window=5, optimizer="adamw", lr=0.05)
    fitting = Fitting(device="cpu", quiet=True)
    before = learning.run(deepcopy(new.encoder), new.codec, texts, texts, replace(fitting, seed=1))
    assert before["perplexity"] < new.codec.size


@pytest.mark.parametrize("cut", ["characters", "jieba"])
def test_chinese_is_read_in_bytes_and_learned(cut: str) -> None:
    if cut == "jieba":
        pytest.importorskip("jieba")
    text = "我们在北京看了一部电影。这部电影很好看！北京的秋天很美。我们喜欢看电影。"
    codec = ElmoCodec.learn(Corpus.of([text]), ElmoCodecConfig("zh", cut, min_count=1))
    assert list(codec.sentences(text))[1] == "这部电影很好看！"
    assert ("电影" in codec.words(text)) == (cut == "jieba")
    assert codec.spell is not None
    spelt = codec.spell(["电影"])[0].tolist()
    assert bytes(c - 1 for c in spelt[1:7]).decode() == "电影" and spelt[7] == 260
    torch.manual_seed(0)
    shape = ELMoConfig(16, 8, filters=((1, 8), (3, 16)), char_dim=4, softmax=True)
    encoder = ELMo(shape, codec.size)
    learning = ElmoPretraining(epochs=30, streams=2, window=5, optimizer="adamw", lr=0.02, candidates=None)
    scores = learning.run(
        encoder, codec, Corpus.of([text] * 4), Corpus.of([text] * 2), Fitting(device="cpu", quiet=True)
    )
    assert scores["perplexity"] < codec.size / 2


@pytest.mark.slow
def test_two_processes_pretrain_one_model(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TEXT * 40), encoding="utf-8")
    shape = [
        "encoder.dim=16",
        "encoder.projection_dim=8",
        "encoder.filters=[[1,8],[2,8]]",
        "encoder.highways=1",
    ]
    learning = ["pretraining.streams=4", "pretraining.epochs=2", "pretraining.candidates=8"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "pretune"]
    command += ["pretrain", "elmo", "text.txt", "--documents", "line", "--size", "tiny", "--out", "model"]
    run = subprocess.run(
        [*command, *shape, *learning], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert run.returncode == 0, run.stderr
    start = load_start(tmp_path / "model")
    assert isinstance(start, Start) and isinstance(start.encoder, ELMo)
    assert start.encoder.softmax_weight is not None
