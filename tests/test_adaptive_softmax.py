"""The adaptive softmax: one distribution over all words, whichever way it is asked."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pretune.data.samples import sample
from pretune.errors import UsageError, UserError
from pretune.layers.adaptive_softmax import AdaptiveSoftmax
from pretune.methods.ulmfit import ULMFIT, AWDLSTMConfig, UlmfitCodec, UlmfitCodecConfig
from pretune.methods.ulmfit.encoder import AWDLSTM
from pretune.methods.ulmfit.pretraining import UlmfitPretraining
from pretune.runs.language_model import LanguageModel
from pretune.runs.starts import Start, save_start
from pretune.tasks.joint import Joint
from pretune.tasks.next_token import NextToken, stream_scores
from pretune.training.loop import Fitting
from pretune.training.model import Model
from test_next_token import stream

WORDS, WIDTH, CUTS = 50, 12, (10, 25)
CONFIG = AWDLSTMConfig(8, 12, 2, bptt=10, max_len=40, cutoffs=CUTS, cutoff_div=2.0)


def made(div: float = 2.0, seed: int = 0) -> tuple[AdaptiveSoftmax, Tensor, Tensor, Tensor, Tensor]:
    """A softmax, hidden states, decoder rows and biases, and targets in every cluster."""
    torch.manual_seed(seed)
    layer = AdaptiveSoftmax(WORDS, WIDTH, CUTS, div)
    nn.init.normal_(layer.cluster_bias)
    hidden = torch.randn(40, WIDTH, requires_grad=True)
    weight, bias = torch.randn(WORDS, WIDTH, requires_grad=True), torch.randn(WORDS, requires_grad=True)
    return layer, hidden, weight, bias, torch.randint(0, WORDS, (40,))


def by_hand(layer: AdaptiveSoftmax, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """log p(w) of every word, one after another: (M, V)."""
    first, K = CUTS[0], len(CUTS)
    head = torch.cat(
        (hidden @ weight[:first].T + bias[:first], hidden @ layer.clusters.T + layer.cluster_bias), 1
    )
    head = head.log_softmax(1)
    columns = [head[:, w] for w in range(first)]
    for i in range(K):
        low, high = (*CUTS, WORDS)[i : i + 2]
        if len(layer.rows):
            logits = (hidden @ layer.projections[i].T) @ layer.rows[i].T + bias[low:high]
        else:
            logits = hidden @ weight[low:high].T + bias[low:high]
        inside = logits.log_softmax(1)
        columns += [head[:, first + i] + inside[:, w] for w in range(high - low)]
    return torch.stack(columns, 1)


@pytest.mark.parametrize("div", [1.0, 2.0, 4.0])
def test_loss_scores_and_distribution_are_those_of_a_loop_over_words(div: float) -> None:
    layer, hidden, weight, bias, targets = made(div)
    whole = by_hand(layer, hidden, weight, bias)
    asked = (hidden, weight, bias, *layer.parameters())
    expected = -whole.gather(1, targets[:, None]).sum()
    torch.testing.assert_close(whole.exp().sum(1), torch.ones(40))
    torch.testing.assert_close(layer.all_log_probabilities(hidden, weight, bias), whole)
    said = layer.log_probabilities(hidden, weight, bias, targets)
    torch.testing.assert_close(said, whole.gather(1, targets[:, None])[:, 0])
    with torch.no_grad():
        torch.testing.assert_close(layer.log_probabilities(hidden, weight, bias, targets), said)
        torch.testing.assert_close(layer(hidden, weight, bias, targets), expected)
    loss = layer(hidden, weight, bias, targets)
    torch.testing.assert_close(loss, expected)
    ours, theirs = torch.autograd.grad(loss, asked), torch.autograd.grad(expected, asked)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_it_is_the_one_of_torch_where_nothing_is_tied() -> None:
    layer, hidden, weight, bias, targets = made(2.0)
    theirs = nn.AdaptiveLogSoftmaxWithLoss(WIDTH, WORDS, list(CUTS), div_value=2.0, head_bias=True)
    with torch.no_grad():
        bias[CUTS[0] :] = 0.0  # torch's clusters have none
        theirs.head.weight.copy_(torch.cat((weight[: CUTS[0]], layer.clusters)))
        theirs.head.bias.copy_(torch.cat((bias[: CUTS[0]], layer.cluster_bias)))
        for i, (project, rows) in enumerate(theirs.tail):  # type: ignore[misc]
            project.weight.copy_(layer.projections[i])
            rows.weight.copy_(layer.rows[i])
    torch.testing.assert_close(
        layer.log_probabilities(hidden, weight, bias, targets), theirs(hidden, targets)[0]
    )


def test_cutoffs_beyond_the_vocabulary_are_left_out() -> None:
    assert AdaptiveSoftmax(20, 4, CUTS, 2.0).ends == (10, 20)
    plain = AdaptiveSoftmax(8, 4, CUTS, 2.0)
    assert plain.ends == (8,) and plain.clusters.shape == (0, 4)
    hidden, weight, bias, targets = (
        torch.randn(3, 4),
        torch.randn(8, 4),
        torch.randn(8),
        torch.tensor([0, 3, 7]),
    )
    expected = nn.functional.cross_entropy(hidden @ weight.T + bias, targets, reduction="sum")
    torch.testing.assert_close(plain(hidden, weight, bias, targets), expected)
    with pytest.raises(UsageError, match="give rising numbers"):
        replace(CONFIG, cutoffs=(20, 10))
    with pytest.raises(UsageError, match="cutoff_div is 0"):
        replace(CONFIG, cutoff_div=0.5)


def test_a_language_model_trains_and_is_scored_with_it() -> None:
    torch.manual_seed(0)
    encoder = AWDLSTM(CONFIG, 30)
    assert {name for name, _ in encoder.named_parameters() if "adaptive" in name} == {
        "embedding.adaptive.clusters",
        "embedding.adaptive.cluster_bias",
        *(f"embedding.adaptive.{kind}.{i}" for kind in ("projections", "rows") for i in range(2)),
    }
    encoder.purpose("language_model")
    model = Model(encoder, NextToken().head(encoder))
    batch = stream(30).batch(0, 0)
    model.train()(batch).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    scores = stream_scores(model.eval(), model.head, stream(30, streams=1, shuffle=False, whole=True))
    output = model(batch)
    logits = model.head.logits(output.scores["hidden"])  # type: ignore[operator]
    expected = nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.gold["next"].flatten(), reduction="sum"
    )
    torch.testing.assert_close(output.reported, expected)
    assert scores["tokens"] == 200 and 2 < scores["loss"] < 5
    copy = deepcopy(model)
    torch.testing.assert_close(copy(batch).reported, output.reported)


def test_the_auxiliary_objective_asks_it_too() -> None:
    from pretune.tasks.classification import Classification

    torch.manual_seed(0)
    encoder = AWDLSTM(CONFIG, 30)
    joint = Joint(Classification(labels=("a", "b")), 1.0).head(encoder)
    batch = stream(30).batch(0, 0)
    top = encoder.eval()(batch).layers[-1]
    said = encoder.adaptive.all_log_probabilities(  # type: ignore[union-attr]
        top[:, :-1], encoder.embedding_weight, encoder.decoder_bias
    )
    expected = -said.gather(2, batch.ids[:, 1:, None])[..., 0].mean(1).sum()
    torch.testing.assert_close(joint.auxiliary({"top": top}, batch), expected)


def documents() -> list[str]:
    phrases = "the cat sat on the mat . a dog ran in the fog . we had no time to climb ."
    return [" ".join([phrases] * 4)] * 20


def test_a_saved_model_scores_substitutes_and_adapts_with_it(tmp_path: Path) -> None:
    codec = UlmfitCodec.learn(documents, UlmfitCodecConfig(min_count=1))
    torch.manual_seed(0)
    config = replace(CONFIG, cutoffs=(12, 20))
    encoder = ULMFIT.build(config, codec)
    setting = UlmfitPretraining(epochs=6, lr=4e-2, streams=8, window=10, drop_mult=0.1)
    scores = setting.run(encoder, codec, documents, documents, Fitting(device="cpu", quiet=True))
    assert scores["perplexity"] < 4
    save_start(Start("", ULMFIT, codec, encoder, config), tmp_path / "lm", {})
    model = LanguageModel.load(tmp_path / "lm", "cpu")
    text = "the cat sat on the mat ."
    (score,) = model.score([text])
    rows = model.task.rows(codec, [sample(text)])
    found = model.substitutes(text, 4, top=3)
    assert found[0].forward == pytest.approx(max(one.forward for one in found))
    read = torch.tensor([rows[0][0].ids])
    encoder.purpose("language_model")
    hidden = encoder.eval()(stream_batch(read)).layers[-1]
    whole = encoder.adaptive.all_log_probabilities(  # type: ignore[union-attr]
        hidden, encoder.embedding_weight, encoder.decoder_bias
    )
    expected = whole[0, :-1].gather(1, read[0, 1:, None])[:, 0]
    assert score.forward == pytest.approx(expected.tolist(), abs=1e-4)


def stream_batch(ids: Tensor) -> object:
    from pretune.tensors.batch import Batch

    return Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids), torch.arange(len(ids)))


def test_words_keep_their_rows_in_a_new_vocabulary_where_their_cluster_is_the_same() -> None:
    old, new = AdaptiveSoftmax(WORDS, WIDTH, CUTS, 2.0), AdaptiveSoftmax(30, WIDTH, CUTS, 2.0)
    before = new.rows[1].clone()
    at = torch.full((30,), -1)
    at[10:13] = torch.tensor(
        [14, 3, 25]
    )  # from the same cluster, from the head, the first of the other cluster
    at[26] = 49
    new.adopt(old, at)
    assert torch.equal(new.rows[0][0], old.rows[0][4])
    for row in (1, 2, 5):
        torch.testing.assert_close(new.rows[0][row], old.rows[0].mean(0))
    assert torch.equal(new.rows[1][1], old.rows[1][24]) and not torch.equal(new.rows[1], before)
    assert torch.equal(new.clusters, old.clusters) and torch.equal(new.projections[0], old.projections[0])
    small = AdaptiveSoftmax(20, WIDTH, CUTS, 2.0)
    small.adopt(old, torch.arange(20))
    assert torch.equal(small.rows[0], old.rows[0][:10]) and len(small.rows) == 1
    large = AdaptiveSoftmax(WORDS, WIDTH, CUTS, 2.0)
    fresh = large.rows[1].clone()
    large.adopt(small, torch.cat((torch.arange(20), torch.full((30,), -1))))
    assert torch.equal(large.rows[1], fresh)


def test_a_language_model_with_it_is_not_exported_as_one_without() -> None:
    from pretune.methods.ulmfit.weights import language_model

    with pytest.raises(UserError, match="no adaptive softmax"):
        language_model(AWDLSTM(CONFIG, 30), torch.arange(30))
