"""ULMFiT whole: learning from raw text, its settings, and taking weights over to a new vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from pretune.errors import UsageError, UserError
from pretune.methods.raw_text import budget
from pretune.methods.ulmfit import ULMFIT, AWDLSTMConfig, UlmfitCodec, UlmfitCodecConfig
from pretune.methods.ulmfit.encoder import AWDLSTM
from pretune.methods.ulmfit.pretraining import ADAPTATION, UlmfitPretraining
from pretune.tasks.next_token import NextToken
from pretune.training.loop import Fitting
from pretune.training.schedules import OneCycle, SlantedTriangular

QUIET = Fitting(device="cpu", quiet=True)
TINY = AWDLSTMConfig(16, 32, 2, bptt=10, max_len=40)
QUICK = UlmfitPretraining(epochs=4, lr=2e-2, streams=8, window=10, drop_mult=0.1)


def rhymes(seed: int, lines: int = 60) -> list[str]:
    """Texts of fixed phrases in drawn order: much to learn, quickly."""
    phrases = ["the cat sat on the mat .", "a dog ran in the fog .", "we had no time to climb ."]
    chance = Random(seed)
    return [" ".join(chance.choice(phrases) for _ in range(4)) for _ in range(lines)]


def corpus() -> Iterable[str]:
    return iter(rhymes(0))


def held_out() -> Iterable[str]:
    return iter(rhymes(1, 12))


def start(config: AWDLSTMConfig = TINY, **codec: Any) -> tuple[AWDLSTM, UlmfitCodec]:
    made = UlmfitCodec.learn(corpus, UlmfitCodecConfig(**codec))
    torch.manual_seed(0)
    encoder = ULMFIT.build(config, made)
    assert isinstance(encoder, AWDLSTM)
    return encoder, made


def test_pretraining_learns_what_a_repetitive_corpus_repeats() -> None:
    encoder, codec = start()
    scores = QUICK.run(encoder, codec, corpus, held_out, QUIET)
    assert scores["perplexity"] < 3 < codec.size / 3
    assert scores["tokens"] > 300
    assert encoder.active == "task" and not encoder.embedding.decoder_bias.eq(0).all()


@pytest.mark.parametrize("candidates", [6, None])
def test_the_same_seed_gives_the_same_weights(candidates: int | None) -> None:
    brief = replace(QUICK, epochs=1, candidates=candidates, variable_windows=True)
    runs = []
    for _ in range(2):
        encoder, codec = start()
        brief.run(encoder, codec, corpus, None, QUIET)
        runs.append(encoder.state_dict())
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_a_backward_model_reads_documents_from_right_to_left(tmp_path: Path) -> None:
    encoder, codec = start(direction="backward")
    scores = replace(QUICK, epochs=2).run(encoder, codec, corpus, held_out, QUIET)
    assert scores["perplexity"] < codec.size / 2
    read = QUICK._held_out(codec, held_out, tmp_path)
    (first,) = codec.ids([next(iter(held_out()))])
    assert read.batch(0, 0).ids[0, :5].tolist() == first[::-1][:5]


def test_without_held_out_text_it_tells_the_training_loss() -> None:
    encoder, codec = start()
    scores = replace(QUICK, epochs=1).run(encoder, codec, corpus, None, QUIET)
    assert set(scores) == {"train_loss", "train_perplexity", "trained_tokens"}


def test_the_budget_shortens_epochs_and_schedule_alike() -> None:
    assert budget(10, 100, 250) == (3, 83)
    assert budget(10, 1000, 250) == (1, 250)
    assert budget(10, 20, 250) == (10, 20)
    assert budget(2, 30, None) == (2, 30)
    encoder, codec = start()
    scores = replace(QUICK, max_steps=5).run(encoder, codec, corpus, None, QUIET)
    assert scores["trained_tokens"] == 5 * 8 * 10


def test_stages_follow_the_settings() -> None:
    encoder, _ = start()
    head = NextToken().head(encoder)
    (only,) = UlmfitPretraining().stages(encoder, head, 7)
    assert only.epochs == 7 and isinstance(only.schedule, OneCycle)
    assert [group.lr for group in only.groups] == [5e-3] * 3
    first, then = ADAPTATION.stages(encoder, head, 10)
    assert [group.name for group in first.groups] == ["embedding"] and first.epochs == 1
    assert first.groups[0].modules == (encoder.embedding, head)
    assert len(then.groups) == 3
    release = UlmfitPretraining(lr=0.006, divisors=(2, 3, 1), schedule="slanted_triangular")
    (only,) = release.stages(encoder, head, 1)
    assert [group.lr for group in only.groups] == [0.003, 0.002, 0.006]
    assert isinstance(only.schedule, SlantedTriangular)
    with pytest.raises(UsageError, match="4 numbers, the encoder 3 groups: embedding, rnn 0, rnn 1"):
        UlmfitPretraining(divisors=(2, 6, 3, 1)).stages(encoder, head, 1)


def test_frozen_layers_stay_while_the_embedding_moves() -> None:
    encoder, codec = start()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    setting = replace(QUICK, epochs=1, lr=1e-30, weight_decay=0.0, frozen_epochs=1)
    setting.run(encoder, codec, corpus, None, QUIET)
    after = encoder.state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("rnns"), name


def test_small_corpora_get_fewer_streams_for_more_steps(tmp_path: Path) -> None:
    _, codec = start()
    assert replace(QUICK, streams=64, window=5)._source(codec, corpus, tmp_path, 0).streams == 8
    assert replace(QUICK, streams=64, least_steps=1)._source(codec, corpus, tmp_path, 0).streams == 64


def test_a_new_vocabulary_keeps_known_words_and_takes_the_mean_for_others() -> None:
    old, old_codec = start()
    replace(QUICK, epochs=1).run(old, old_codec, corpus, None, QUIET)
    new_codec = UlmfitCodec.learn(lambda: ["the zebra sat on the zebra ."] * 5, UlmfitCodecConfig())
    new = ULMFIT.build(TINY, new_codec)
    ULMFIT.adopt(old, old_codec, new, new_codec)
    assert isinstance(new, AWDLSTM)
    theirs, ours = old_codec.vocab.ids, new_codec.vocab.ids
    for word in ("the", "sat", "xxbos", "xxmaj", "."):
        assert torch.equal(new.embedding_weight[ours[word]], old.embedding_weight[theirs[word]])
        assert new.decoder_bias[ours[word]] == old.decoder_bias[theirs[word]]
    assert torch.allclose(new.embedding_weight[ours["zebra"]], old.embedding_weight.mean(0))
    assert torch.allclose(new.decoder_bias[ours["zebra"]], old.decoder_bias.mean())
    assert all(torch.equal(a, b) for a, b in zip(old.rnns.parameters(), new.rnns.parameters(), strict=True))
    assert NextToken().head(new).decoder()[0] is new.embedding.weight
    with pytest.raises(UserError, match="do not fit"):
        ULMFIT.adopt(old, old_codec, ULMFIT.build(replace(TINY, hidden=40), new_codec), new_codec)


def test_adaptation_continues_from_what_was_learned() -> None:
    encoder, codec = start()
    learned = QUICK.run(encoder, codec, corpus, held_out, QUIET)["perplexity"]
    again, new_codec = start(min_count=1)
    ULMFIT.adopt(encoder, codec, again, new_codec)
    brief = replace(ADAPTATION, epochs=1, lr=1e-6, frozen_lr=1e-6)
    assert brief.run(again, new_codec, corpus, held_out, QUIET)["perplexity"] == pytest.approx(
        learned, rel=0.05
    )


@pytest.mark.parametrize("size", ULMFIT.sizes)
def test_every_size_builds(size: str) -> None:
    _, codec = start()
    with torch.device("meta"):
        encoder = ULMFIT.build(ULMFIT.sizes[size], codec)
    assert encoder.summary_width == 3 * encoder.width


@pytest.mark.parametrize("name", ["epochs", "streams", "window", "max_steps", "candidates"])
def test_settings_below_one_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"pretraining.{name} is 0"):
        replace(QUICK, **{name: 0})
