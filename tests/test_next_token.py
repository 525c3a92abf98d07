"""Next-token prediction: an exact softmax in pieces, a tie that holds, a fair perplexity."""

from __future__ import annotations

from copy import deepcopy
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pretune.data.rows import NOTHING, Row
from pretune.data.samples import sample
from pretune.errors import UsageError
from pretune.layers import softmax
from pretune.layers.regularisation import activation_penalty
from pretune.layers.softmax import log_probabilities, sampled_softmax_loss, softmax_loss
from pretune.methods.ulmfit.encoder import AWDLSTM, AWDLSTMConfig
from pretune.tasks.next_token import NextToken, stream_scores
from pretune.tensors.batch import Batch, collate
from pretune.tensors.streams import NO_TARGET, StreamSource
from pretune.training.model import Model


def language_model(words: int = 30, alpha: float = 0.0, beta: float = 0.0, **options: Any) -> Model:
    torch.manual_seed(0)
    encoder = AWDLSTM(AWDLSTMConfig(8, 12, 2, bptt=5), words)
    encoder.purpose("language_model")
    return Model(encoder, NextToken(**options).head(encoder), alpha, beta)


def stream(words: int = 30, tokens: int = 201, **options: Any) -> StreamSource:
    ids = np.random.default_rng(0).integers(2, words, tokens)
    return StreamSource(ids, np.array([0, tokens // 2, tokens]), **{"streams": 3, "window": 9} | options)


def made_up(rows: int = 40, words: int = 90, width: int = 6) -> tuple[torch.Tensor, ...]:
    chance = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(rows, width, generator=chance), torch.randn(words, width, generator=chance)
    targets = torch.randint(0, words, (rows,), generator=chance)
    bias = torch.randn(words, generator=chance)
    return hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), targets


@pytest.mark.parametrize("held", [100, 3000, 10**9])
def test_the_softmax_in_pieces_is_exact(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "LOGITS_HELD", held)
    hidden, weight, bias, targets = made_up()
    loss = softmax_loss(hidden, weight, bias, targets)
    ours = torch.autograd.grad(loss * 0.3, (hidden, weight, bias))
    whole = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum")
    theirs = torch.autograd.grad(whole * 0.3, (hidden, weight, bias))
    assert torch.allclose(loss, whole, rtol=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(log_probabilities(hidden, weight, bias, targets).sum(), -whole, rtol=1e-5)


def test_the_softmax_gives_no_gradient_where_none_is_asked() -> None:
    hidden, weight, bias, targets = made_up()
    softmax_loss(hidden.detach(), weight, bias.detach(), targets).backward()
    assert weight.grad is not None and hidden.grad is None and bias.grad is None
    assert not softmax_loss(*(x.detach() for x in (hidden, weight, bias)), targets).requires_grad


def test_targets_too_unlikely_for_a_float_cost_what_they_cost() -> None:
    torch.manual_seed(0)
    hidden = (torch.randn(5, 4) * 30).requires_grad_()
    weight, bias = torch.randn(9, 4) * 3, torch.randn(9)
    logits = F.linear(hidden, weight, bias)
    targets = logits.argmin(1)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    assert expected > 5 * 104  # e^-104 is no float32
    (wanted,) = torch.autograd.grad(expected, hidden)
    loss = softmax_loss(hidden, weight, bias, targets)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, hidden, retain_graph=True)[0], wanted)
    with pytest.raises(RuntimeError, match="asked for before"):  # it has been scaled in place
        loss.backward()


def test_the_softmax_runs_in_half_precision_and_sums_in_full() -> None:
    hidden, weight, bias, targets = made_up()
    exact = softmax_loss(hidden, weight, bias, targets)
    with torch.autocast("cpu", torch.bfloat16):
        fast = softmax_loss(hidden, weight, bias, targets)
    fast.backward()
    assert fast.dtype == torch.float32 and weight.grad is not None and weight.grad.dtype == torch.float32
    assert torch.allclose(fast, exact, rtol=2e-2)


def test_a_sampled_softmax_estimates_the_exact_one() -> None:
    hidden, weight, bias, targets = made_up(words=400)
    exact = softmax_loss(hidden, weight, bias, targets)
    (expected,) = torch.autograd.grad(exact, weight)
    torch.manual_seed(0)
    losses = [sampled_softmax_loss(hidden, weight, bias, targets, 300) for _ in range(200)]
    found = torch.stack([torch.autograd.grad(loss, weight)[0] for loss in losses]).mean(0)
    assert torch.allclose(torch.stack(losses).mean(), exact, rtol=1e-2)
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99
    assert torch.equal(sampled_softmax_loss(hidden, weight, bias, targets, 400), exact)


def test_candidates_matter_in_training_only() -> None:
    model, batch = language_model(200, candidates=20), stream(200).batch(0, 0)
    exact = language_model(200)
    torch.manual_seed(0)
    assert model.eval()(batch).reported == exact.eval()(batch).reported
    model.encoder.purpose("language_model", 0)
    exact.encoder.purpose("language_model", 0)
    model.head.dropout = exact.head.dropout = 0.0  # type: ignore[assignment]
    assert model.train()(batch).reported != exact.train()(batch).reported


def test_the_decoder_is_the_embedding_saved_once_and_tied_in_copies() -> None:
    model = language_model()
    assert not list(model.head.parameters())
    assert len(model.state_dict()) == len(set(map(id, model.parameters())))
    copy = deepcopy(model)
    optimizer = torch.optim.SGD(copy.parameters(), 1.0)
    batch = stream().batch(0, 0)
    copy.eval()(batch).loss.backward()
    optimizer.step()
    weight, bias = copy.head.decoder()  # type: ignore[operator]
    assert weight is copy.encoder.embedding.weight and bias is copy.encoder.embedding.decoder_bias  # type: ignore[union-attr]
    assert not torch.equal(weight, model.encoder.embedding_weight)  # type: ignore[arg-type]
    assert not torch.equal(bias, torch.zeros_like(bias))


def test_word_dropout_never_touches_the_decoder() -> None:
    model = language_model().train()
    model.encoder.embedding.word_p = 0.9  # type: ignore[union-attr]
    output = model(stream().batch(0, 0))
    expected = F.cross_entropy(
        model.head.logits(output.scores["hidden"]).flatten(0, 1),  # type: ignore[operator]
        stream().batch(0, 0).gold["next"].flatten(),
        reduction="sum",
    )
    assert torch.allclose(output.reported, expected, rtol=1e-5)


def test_penalties_train_but_are_not_reported() -> None:
    model, batch = language_model(alpha=2.0, beta=1.0).train(), stream().batch(0, 0)
    torch.manual_seed(5)
    output = model(batch)
    torch.manual_seed(5)
    top = model.encoder(batch).layers[-1]
    dropped = output.scores["hidden"]
    assert not torch.equal(top, dropped)  # AR sees the output dropout, TAR does not
    penalty = activation_penalty(dropped, top, batch.mask, 2.0, 1.0)
    assert torch.allclose(output.loss - output.reported, penalty * model.head.targets(batch), rtol=1e-3)
    output = model.eval()(batch)
    assert output.loss == output.reported


def test_gold_never_reaches_the_scores() -> None:
    model, batch = language_model().eval(), stream().batch(0, 0)
    blind = Batch(batch.ids, batch.mask, batch.segments, batch.owner)
    assert torch.equal(model(batch).scores["hidden"], model(blind).scores["hidden"])


class Letters:
    """A codec of letters."""

    pad_id, size = 1, 30

    def encode(self, samples_parts: Any, unordered: bool = False) -> list[list[Row]]:
        made = []
        for (part,) in samples_parts:
            ids = [2, *(ord(letter) - 94 for letter in part.text)]
            made.append([Row(ids, [0] * len(ids), [0] * len(ids), [NOTHING] * len(ids))])
        return made


def test_documents_are_scored_token_by_token_whatever_their_batch() -> None:
    model, task = language_model().eval(), NextToken()
    samples = [sample(text) for text in ("hello", "a", "the longer one".replace(" ", "x"), "")]
    rows = task.rows(Letters(), samples)  # type: ignore[arg-type]
    blind = collate(rows, 1)
    answers = task.decode(model(blind).scores, samples, rows)
    alone = [task.decode(model(collate([row], 1)).scores, [one], [row])[0] for one, row in zip(samples, rows)]
    for ours, expected in zip(answers, alone, strict=True):
        assert ours.scores["log_probability"] == pytest.approx(expected.scores["log_probability"], abs=1e-5)
    assert [answer.scores["tokens"] for answer in answers] == [5, 1, 14, 0]
    batch = collate(rows, 1, gold=task.gold(samples, rows))
    assert model.head.targets(batch) == 20
    nats = float(model(batch).reported)
    assert task.score([None] * 4, answers)["perplexity"] == pytest.approx(exp(nats / 20), rel=1e-5)


def test_perplexity_of_one_stream_does_not_depend_on_the_window() -> None:
    model = language_model().eval()
    found = [
        stream_scores(model, model.head, stream(streams=1, window=window, shuffle=False, whole=True))
        for window in (1, 9, 70, 500)
    ]
    for scores in found:
        assert scores["perplexity"] == pytest.approx(found[0]["perplexity"], rel=1e-5)
        assert scores["tokens"] == 200
    many = stream_scores(model, model.head, stream(streams=8, shuffle=False, whole=True))
    assert many["tokens"] == 200 and many["perplexity"] == pytest.approx(found[0]["perplexity"], rel=0.05)


def test_an_untrained_model_is_about_as_good_as_chance() -> None:
    model = language_model().eval()
    assert stream_scores(model, model.head, stream())["loss"] == pytest.approx(log(30), abs=0.1)


def test_positions_without_a_target_cost_nothing() -> None:
    model, batch = language_model().eval(), stream().batch(0, 0)
    whole = float(model(batch).reported)
    batch.gold["next"][0] = NO_TARGET
    assert float(model(batch).reported) < whole
    assert model.head.targets(batch) == 18


def test_an_encoder_without_an_embedding_is_refused() -> None:
    with pytest.raises(UsageError, match="no embedding to tie"):
        NextToken().head(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_the_softmax_loss_counts_rows_by_their_weights() -> None:
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(7, 4), torch.randn(9, 4), torch.randn(9)
    targets, by = torch.randint(0, 9, (7,)), torch.rand(7)
    gradients = []
    for loss_of in (
        lambda h, w, b: softmax_loss(h, w, b, targets, by),
        lambda h, w, b: (F.cross_entropy(h @ w.T + b, targets, reduction="none") * by).sum(),
    ):
        leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
        loss = loss_of(*leaves)
        loss.backward()
        gradients.append([loss.detach(), *(x.grad for x in leaves)])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert softmax_loss(hidden, weight, bias, targets, by) == pytest.approx(gradients[0][0].item())
