"""The continuous cache: exact, carried over windows and documents, good for texts that repeat themselves."""

from __future__ import annotations

from math import exp, log
from pathlib import Path
from random import Random

import pytest
import torch

from pretune.errors import UsageError, UserError
from pretune.layers.continuous_cache import ContinuousCache
from pretune.methods.ulmfit import ULMFIT, AWDLSTMConfig, UlmfitCodec, UlmfitCodecConfig
from pretune.runs.starts import Start, save_start
from pretune.runs.stream_perplexity import stream_perplexity
from pretune.tasks.cached import cached_scores
from pretune.tasks.next_token import stream_scores
from pretune.tensors.streams import NO_TARGET
from test_next_token import language_model, stream
from tiny import start


def by_hand(
    said: list[float], hidden: torch.Tensor, targets: list[int], cache: ContinuousCache
) -> list[float]:
    """One stream, one word after another."""
    found = []
    for t, target in enumerate(targets):
        past = [i for i in range(max(0, t - cache.window), t) if targets[i] != NO_TARGET]
        if not past:
            found.append(said[t])
            continue
        weights = [exp(cache.theta * float(hidden[t] @ hidden[i])) for i in past]
        same = sum(w for w, i in zip(weights, past, strict=True) if targets[i] == target)
        p = (1 - cache.weight) * exp(said[t]) + cache.weight * same / sum(weights)
        found.append(log(p))
    return found


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_the_mixture_is_that_of_a_loop_over_the_past(window: int) -> None:
    cache = ContinuousCache(window, 0.2, 0.7)
    chance = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 30, 5, generator=chance)
    targets = torch.randint(0, 6, (2, 30), generator=chance)
    targets[1, 9:] = NO_TARGET  # a stream that is over
    said = -torch.rand(2, 30, generator=chance) * 4
    mixed, memory = [], None
    for begin, end in ((0, 4), (4, 5), (5, 20), (20, 30)):
        part, memory = cache.mixed(said[:, begin:end], hidden[:, begin:end], targets[:, begin:end], memory)
        mixed.append(part)
    assert memory is not None and memory[1].shape[1] == min(window, 30)
    for row in range(2):
        expected = by_hand(said[row].tolist(), hidden[row], targets[row].tolist(), cache)
        real = targets[row] != NO_TARGET
        found = torch.cat(mixed, 1)[row]
        torch.testing.assert_close(found[real], torch.tensor(expected)[real], rtol=1e-4, atol=1e-5)


def test_perplexity_with_a_cache_does_not_depend_on_the_window_of_reading() -> None:
    model, cache = language_model().eval(), ContinuousCache(40, 0.1, 1.0)
    found = [
        cached_scores(
            model.encoder, model.head, stream(streams=1, window=w, shuffle=False, whole=True), cache
        )  # type: ignore[arg-type]
        for w in (3, 9, 200)
    ]
    for scores in found:
        assert scores["tokens"] == 200
        assert scores["perplexity"] == pytest.approx(found[0]["perplexity"], rel=1e-4)
    plain = stream_scores(model, model.head, stream(streams=1, shuffle=False, whole=True))
    assert found[0]["perplexity"] != pytest.approx(plain["perplexity"], rel=1e-4)


def texts(seed: int, count: int) -> list[str]:
    """Documents that each keep to a few words of their own, drawn from many."""
    chance = Random(seed)
    letters = "abcdefghij"
    words = [a + b for a in letters for b in letters]
    return [" ".join(chance.choices(chance.sample(words, 3), k=30)) for _ in range(count)]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_it_helps_on_texts_that_repeat_themselves(direction: str, tmp_path: Path) -> None:
    codec = UlmfitCodec.learn(lambda: texts(0, 60), UlmfitCodecConfig(min_count=1, direction=direction))  # type: ignore[arg-type]
    torch.manual_seed(0)
    config = AWDLSTMConfig(8, 12, 1)
    save_start(Start("", ULMFIT, codec, ULMFIT.build(config, codec), config), tmp_path / "lm", {})
    held_out = texts(1, 20)
    plain = stream_perplexity(tmp_path / "lm", held_out, device="cpu")
    cached = stream_perplexity(tmp_path / "lm", held_out, ContinuousCache(30, 0.3, 1.0), device="cpu")
    assert plain.targets == cached.targets == sum(map(len, codec.ids(held_out))) - 1
    assert cached.value < plain.value / 2
    assert (cached.forward is None) == (direction == "backward")


def test_what_a_cache_cannot_do_is_said(tmp_path: Path) -> None:
    for mistake in ({"window": 0}, {"weight": 0.0}, {"weight": 1.0}):
        with pytest.raises(UsageError, match="cache"):
            ContinuousCache(**mistake)  # type: ignore[arg-type]
    save_start(start("elmo"), tmp_path / "elmo", {})
    with pytest.raises(UserError, match="read by ulmfit"):
        stream_perplexity(tmp_path / "elmo", ["a text"], ContinuousCache(), device="cpu")
    save_start(start("ulmfit"), tmp_path / "ulmfit", {})
    with pytest.raises(UserError, match="nothing but blank lines"):
        stream_perplexity(tmp_path / "ulmfit", ["", " "], device="cpu")
