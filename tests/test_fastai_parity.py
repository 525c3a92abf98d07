"""The same weights in fastai: one text says the same; a batch does only here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretune.methods.ulmfit.encoder import AWDLSTM, AWDLSTMConfig
from pretune.tasks.classification import Classification
from pretune.tasks.next_token import NextToken, NextTokenHead
from pretune.tensors.batch import Batch
from pretune.training.model import Model

awdlstm = pytest.importorskip("fastai.text.models.awdlstm", reason="fastai is the oracle")
core = pytest.importorskip("fastai.text.models.core", reason="fastai is the oracle")
data = pytest.importorskip("fastai.text.data", reason="fastai is the oracle")

WORDS, BPTT, MAX_LEN = 50, 8, 24
CONFIG = AWDLSTMConfig(12, 20, 3, bptt=BPTT, max_len=MAX_LEN)
SIZES = {"emb_sz": 12, "n_hid": 20, "n_layers": 3}
LABELS = ("no", "perhaps", "yes")


def text(length: int, seed: int = 0) -> Tensor:
    return torch.randint(2, WORDS, (length,), generator=torch.Generator().manual_seed(1000 * seed + length))


def batch_of(rows: Sequence[Tensor]) -> Batch:
    ids = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=1)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return Batch(ids, mask, torch.zeros_like(ids), torch.arange(len(rows)))


def share(ours: AWDLSTM, theirs: Any) -> None:
    """Bold weights, so that differences show, from ours into theirs."""
    with torch.no_grad():
        for weight in ours.parameters():
            weight.copy_(torch.randn_like(weight) * 0.4)
        theirs.encoder.weight.copy_(ours.embedding_weight)
        for mine, their in zip(ours.rnns, theirs.rnns, strict=True):
            their.weight_hh_l0_raw.copy_(mine.lstm.weight_hh)
            for name in ("weight_ih", "bias_ih", "bias_hh"):
                getattr(their.module, f"{name}_l0").copy_(getattr(mine.lstm, name))


def language_models() -> tuple[Model, Any]:
    torch.manual_seed(0)
    encoder = AWDLSTM(CONFIG, WORDS)
    theirs = core.get_language_model(awdlstm.AWD_LSTM, WORDS, awdlstm.awd_lstm_lm_config | SIZES).eval()
    share(encoder, theirs[0])
    with torch.no_grad():
        theirs[1].decoder.bias.copy_(encoder.decoder_bias)
    encoder.purpose("language_model")
    return Model(encoder, NextToken().head(encoder)).eval(), theirs


def classifiers(max_len: int = MAX_LEN) -> tuple[Model, Any]:
    torch.manual_seed(0)
    encoder = AWDLSTM(replace(CONFIG, max_len=max_len), WORDS)
    head = Classification("one", LABELS, head_kind="two_layer").head(encoder)
    config = awdlstm.awd_lstm_clas_config | SIZES
    theirs = core.get_text_classifier(
        awdlstm.AWD_LSTM, WORDS, len(LABELS), seq_len=BPTT, config=config, max_len=MAX_LEN
    ).eval()
    share(encoder, theirs[0].module)
    modules = [module for module in head.layers if isinstance(module, (nn.Linear, nn.BatchNorm1d))]
    wanted = [m for m in theirs[1].modules() if isinstance(m, (nn.Linear, nn.BatchNorm1d))]
    with torch.no_grad():
        for mine, their in zip(modules, wanted, strict=True):
            if isinstance(mine, nn.BatchNorm1d):
                mine.running_mean.normal_()
                mine.running_var.uniform_(0.5, 2)
                their.load_state_dict(mine.state_dict())
            else:
                their.weight.copy_(mine.weight)
                mine.bias.zero_()  # theirs has none
    return Model(encoder, head).eval(), theirs


def logits(model: Model, rows: Sequence[Tensor]) -> Tensor:
    with torch.no_grad():
        return model(batch_of(rows)).scores["logits"]


def their_logits(theirs: Any, rows: Sequence[Tensor]) -> Tensor:
    """Collated by fastai: padding in whole chunks before each text, the rest after it."""
    padded = data.pad_input_chunk([(data.TensorText(row),) for row in rows], pad_idx=1, seq_len=BPTT)
    with torch.no_grad():
        found: Tensor = theirs(torch.stack([torch.Tensor(row).long() for (row,) in padded]))[0]
    return found


def test_language_models_of_equal_weights_give_equal_logits() -> None:
    model, theirs = language_models()
    assert isinstance(model.head, NextTokenHead)
    for length in (1, 7, 8, 9, 40, 90):
        row = text(length)
        theirs.reset()
        with torch.no_grad():
            expected = theirs(row[None])[0]
            found = model.head.logits(model.encoder(batch_of([row])).layers[-1])
        assert expected.abs().max() > 1
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_windows_of_a_stream_carry_the_same_state() -> None:
    model, theirs = language_models()
    assert isinstance(model.head, NextTokenHead)
    streams = torch.stack([text(50, seed) for seed in range(3)])
    theirs.reset()
    carry = None
    for window in streams.split(12, dim=1):
        with torch.no_grad():
            encoded = model.encoder(batch_of(list(window)), carry)
            carry = encoded.carry
            expected = theirs(window)[0]
            torch.testing.assert_close(model.head.logits(encoded.layers[-1]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 5, 8, 9, 16, 23, 24, 32, 40, 64, 96])
def test_classifiers_of_equal_weights_give_one_text_equal_logits(length: int) -> None:
    model, theirs = classifiers()
    expected = their_logits(theirs, [text(length)])
    torch.testing.assert_close(logits(model, [text(length)]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [25, 31, 33, 61])
def test_fastai_pools_whole_chunks_within_max_len_where_we_pool_max_len_tokens(length: int) -> None:
    whole_chunks = length - -(-(length - MAX_LEN) // BPTT) * BPTT
    assert whole_chunks < MAX_LEN
    model, theirs = classifiers(max_len=whole_chunks)
    expected = their_logits(theirs, [text(length)])
    torch.testing.assert_close(logits(model, [text(length)]), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(logits(classifiers()[0], [text(length)]), expected, atol=1e-4)


def test_a_batch_changes_what_fastai_says_of_a_text_but_not_what_we_say() -> None:
    model, theirs = classifiers()
    rows = [text(length) for length in (30, 21, 9, 7, 5, 3)]
    ours_apart = torch.cat([logits(model, [row]) for row in rows])
    torch.testing.assert_close(logits(model, rows), ours_apart, atol=1e-6, rtol=0)
    apart = torch.cat([their_logits(theirs, [row]) for row in rows])
    difference = (their_logits(theirs, rows) - apart).abs().amax(1)
    assert (difference[:4] < 1e-5).all() and (difference[4:] > 1e-3).all()


def test_gradients_of_one_text_are_fastais_too() -> None:
    model, theirs = classifiers()
    row = text(40)
    model(batch_of([row])).scores["logits"][0, 1].backward()
    theirs(row[None])[0][0, 1].backward()
    ours = model.encoder
    assert isinstance(ours, AWDLSTM)
    pairs = [(ours.embedding.weight, theirs[0].module.encoder.weight)]
    for mine, their in zip(ours.rnns, theirs[0].module.rnns, strict=True):
        pairs.append((mine.lstm.weight_hh, their.weight_hh_l0_raw))
        pairs.append((mine.lstm.weight_ih, their.module.weight_ih_l0))
    for mine, their in pairs:
        assert their.grad.abs().max() > 1e-3
        torch.testing.assert_close(mine.grad, their.grad, atol=1e-5, rtol=1e-4)
