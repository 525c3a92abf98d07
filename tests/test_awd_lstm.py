"""AWD-LSTM: its dropouts, its way over long texts, and that no text feels its neighbours."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pretune.layers.dropout import entry_dropout
from pretune.layers.lstm import MANY, WeightDropLSTM, in_one_piece
from pretune.layers.pooling import concat_pool
from pretune.layers.steps import Steps
from pretune.methods.ulmfit.encoder import AWDLSTM, AWDLSTMConfig, Dropouts
from pretune.tensors.batch import Batch

NONE = Dropouts(0, 0, 0, 0, 0)
SMALL = AWDLSTMConfig(12, 20, 3, bptt=10, max_len=40)


def batch_of(rows: list[Tensor]) -> Batch:
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return Batch(ids, mask, torch.zeros_like(ids), torch.arange(len(rows)))


def texts(*lengths: int, words: int = 50) -> list[Tensor]:
    chance = torch.Generator().manual_seed(1)
    return [torch.randint(2, words, (length,), generator=chance) for length in lengths]


def encoder(config: AWDLSTMConfig = SMALL, words: int = 50) -> AWDLSTM:
    torch.manual_seed(0)
    made = AWDLSTM(config, words)
    with torch.no_grad():
        made.embedding.weight.mul_(10)  # outputs far from zero, so that differences show
    return made.eval()


def test_the_base_size_has_the_parameters_of_fastai() -> None:
    with torch.device("meta"):
        base = AWDLSTM(AWDLSTMConfig(), 60_000)
        paper = AWDLSTM(AWDLSTMConfig(hidden=1150), 60_000)
    assert sum(p.numel() for p in base.parameters()) == 44_333_280
    assert sum(p.numel() for p in paper.parameters()) == 44_271_600
    assert base.layer_widths() == (400, 1152, 1152, 400)


def test_every_parameter_is_in_exactly_one_group() -> None:
    made = encoder()
    grouped = [p for group in made.groups() for p in group.parameters()]
    assert len(grouped) == len(set(grouped)) == len(list(made.parameters()))
    assert len(made.groups()) == 4


def test_weight_drop_without_dropping_is_torchs_own_lstm() -> None:
    ours, theirs = WeightDropLSTM(6, 8), nn.LSTM(6, 8, batch_first=True)
    theirs.load_state_dict({f"{name}_l0": p for name, p in ours.state_dict().items()})
    x = torch.randn(3, 7, 6)
    for mode in (True, False):
        y, (h, c) = ours.train(mode)(x, ours.start(3))
        expected, (h2, c2) = theirs(x)
        assert torch.allclose(y, expected, atol=1e-6)
        assert torch.allclose(h, h2, atol=1e-6) and torch.allclose(c, c2, atol=1e-6)


def test_weights_in_one_piece_lie_as_cudnn_wants_them_and_pass_their_gradients() -> None:
    layer = WeightDropLSTM(5, 7)
    own = list(layer.parameters())
    whole = in_one_piece(own)
    at = 0
    for flat, weight in zip(whole, own, strict=True):
        assert torch.equal(flat, weight) and flat.is_contiguous()
        assert flat.storage_offset() == at
        assert flat.untyped_storage().data_ptr() == whole[0].untyped_storage().data_ptr()
        at += weight.numel()
    x, state = torch.randn(4, 6, 5), layer.start(4)
    made = []
    for weights in (tuple(own), whole):
        y = torch.lstm(x, state, weights, True, 1, 0.0, True, False, True)[0]
        made.append(torch.autograd.grad(y.square().sum(), own))
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_copies_no_weights_at_each_call(recwarn: pytest.WarningsRecorder) -> None:
    made = encoder(replace(SMALL, language_model=NONE)).cuda().train()
    made(batch_of(texts(9, 25)).to("cuda")).summary.sum().backward()
    assert not [w for w in recwarn if "contiguous chunk" in str(w.message)]


def test_weight_drop_spares_the_first_step_and_reaches_the_raw_weight() -> None:
    lstm = WeightDropLSTM(6, 8).train()
    x, state = torch.randn(3, 7, 6), lstm.start(3)
    plain, _ = lstm(x, state)
    lstm.p = 0.5
    dropped, _ = lstm(x, state)
    again, _ = lstm(x, state)
    assert torch.allclose(plain[:, 0], dropped[:, 0], atol=1e-6)
    assert not torch.allclose(plain[:, 1], dropped[:, 1], atol=1e-4)
    assert not torch.allclose(again[:, 1], dropped[:, 1], atol=1e-4)
    dropped.sum().backward()
    assert lstm.weight_hh.grad is not None and lstm.weight_hh.grad.abs().sum() > 0
    assert (lstm.weight_hh.grad == 0).float().mean() == pytest.approx(0.5, abs=0.15)
    lstm.eval()
    assert torch.equal(lstm(x, state)[0], lstm(x, state)[0])


def test_embedding_dropout_takes_whole_word_types() -> None:
    made = encoder().train()
    made.embedding.word_p, made.embedding.input_p = 0.5, 0.0
    ids = torch.arange(50).repeat(4, 3)  # every word 12 times
    x = made.embedding(ids).view(12, 50, -1)
    assert torch.equal(x, x[:1].expand_as(x))
    gone = (x[0] == 0).all(-1)
    assert 10 < gone.sum() < 40
    assert torch.allclose(x[0][~gone], made.embedding_weight[~gone] * 2)


def test_locked_dropout_is_one_mask_for_all_time_steps_of_a_row() -> None:
    made = encoder().train()
    made.embedding.word_p, made.embedding.input_p = 0.0, 0.5
    gone = made.embedding(torch.full((6, 9), 3)) == 0
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    assert not torch.equal(gone[0], gone[1])


def test_frozen_blocks_drop_nothing() -> None:
    made = encoder(replace(SMALL, task=Dropouts(0.5, 0.5, 0.5, 0.5, 0.5))).train()
    for block in made.groups():
        block.eval()
    batch = batch_of(texts(30, 12))
    assert torch.equal(made(batch).summary, made(batch).summary)
    made.groups()[2].train()
    assert not torch.equal(made(batch).summary, made(batch).summary)


def test_the_purpose_sets_the_dropouts_of_the_paper() -> None:
    made = encoder(AWDLSTMConfig(8, 8, task_drop_mult=0.5))
    blocks = list(made.rnns)
    assert (made.embedding.word_p, made.embedding.input_p) == (0.025, 0.2)
    assert [block.output_p for block in blocks] == [0.15, 0.15, 0.0]
    made.purpose("language_model")
    assert (made.embedding.word_p, made.embedding.input_p, made.output_p) == (0.02, 0.25, 0.1)
    assert [block.cell.p for block in blocks] == [0.2] * 3
    made.purpose("language_model", drop_mult=0)
    assert made(batch_of(texts(30))).summary.isfinite().all()


def test_reading_in_chunks_equals_reading_at_once() -> None:
    made = encoder(replace(SMALL, max_len=1000))
    batch = batch_of(texts(*range(1, 75, 3)))
    chunked = made(batch)
    made.purpose("language_model")
    whole = made(batch)
    for ours, expected in zip(chunked.layers, whole.layers, strict=True):
        assert torch.allclose(ours, expected, atol=1e-6)
        assert ours.shape[:2] == batch.ids.shape and (ours[~batch.mask] == 0).all()
    assert torch.allclose(chunked.summary, whole.summary, atol=1e-6)
    assert [h.shape[-1] for h in chunked.layers] == list(made.layer_widths())


def test_only_the_end_of_each_long_document_is_pooled() -> None:
    made = encoder()
    rows = texts(25, 95, 40, 41, 60)
    batch = batch_of(rows)
    found = made(batch)
    made.purpose("language_model")
    top = made(batch).layers[-1]
    for n, row in enumerate(rows):
        kept = top[n : n + 1, max(0, len(row) - 40) : len(row)]
        pooled = concat_pool(kept, torch.ones(kept.shape[:2], dtype=torch.bool))
        assert torch.allclose(found.summary[n], pooled[0], atol=1e-6)
    assert torch.allclose(found.layers[-1], top, atol=1e-6)


def test_gradient_reaches_only_the_last_tokens_of_each_document() -> None:
    made = encoder(words=200)
    rows = [torch.arange(2, 97), torch.arange(100, 130)]  # every token its own word
    made(batch_of(rows)).summary.sum().backward()
    grads = made.embedding.weight.grad
    assert grads is not None
    moved = (grads.abs().sum(1) > 0).nonzero()[:, 0].tolist()
    assert moved == [*range(57, 97), *range(100, 130)]


def test_gradient_never_crosses_a_chunk() -> None:
    made = encoder(words=200)
    found = made(batch_of([torch.arange(2, 32)]))
    found.layers[-1][0, 25].sum().backward()  # the third chunk holds tokens 20 to 29
    assert made.embedding.weight.grad is not None
    assert (made.embedding.weight.grad.abs().sum(1) > 0).nonzero()[:, 0].tolist() == list(range(22, 28))


@pytest.mark.parametrize(("chunks", "reached"), [(1, 52), (2, 42), (3, 32), (4, 42), (9, 2)])
def test_gradient_goes_back_to_the_last_of_every_so_many_chunks(chunks: int, reached: int) -> None:
    made = encoder(replace(SMALL, max_len=100, gradient_chunks=chunks), words=200)
    found = made(batch_of([torch.arange(2, 77), torch.arange(100, 104)]))
    found.layers[-1][0, 53].sum().backward()  # the sixth chunk holds tokens 50 to 59
    assert made.embedding.weight.grad is not None
    assert (made.embedding.weight.grad.abs().sum(1) > 0).nonzero()[:, 0].tolist() == list(range(reached, 56))


def test_gradient_through_several_chunks_is_that_of_one_as_long() -> None:
    rows = texts(75, 61, 40, 9)
    several = encoder(replace(SMALL, bptt=10, gradient_chunks=4, max_len=100))
    one = encoder(replace(SMALL, bptt=40, max_len=100))
    for made in (several, one):
        made(batch_of(rows)).summary.square().sum().backward()
    for ours, expected in zip(several.parameters(), one.parameters(), strict=True):
        if expected.grad is not None:
            assert ours.grad is not None and torch.allclose(ours.grad, expected.grad, atol=1e-4)


@pytest.mark.parametrize("compiled", ["0", ""])
@pytest.mark.parametrize("training", [False, True])
def test_many_rows_are_read_as_few_are(
    compiled: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rectangles where there are many rows or no compiled kernels, without them elsewhere."""
    rows = texts(*(99 - n // 3 for n in range(MANY + 6)), 30)
    made, apart = encoder(), encoder()
    monkeypatch.setenv("PRETUNE_COMPILED", compiled)
    with torch.set_grad_enabled(training):
        found = made(batch_of(rows))
    monkeypatch.undo()
    totals = []
    for n, row in enumerate(rows):
        alone = apart(batch_of([row]))
        assert torch.allclose(found.summary[n], alone.summary[0], atol=1e-5)
        for layer, expected in zip(found.layers, alone.layers, strict=True):
            assert torch.allclose(layer[n, : len(row)], expected[0], atol=1e-5)
            assert (layer[n, len(row) :] == 0).all()
        totals.append(alone.summary.square().sum())
    if training:
        found.summary.square().sum().backward()
        torch.stack(totals).sum().backward()
        for ours, expected in zip(made.parameters(), apart.parameters(), strict=True):
            if expected.grad is not None:
                assert ours.grad is not None and torch.allclose(
                    ours.grad, expected.grad, atol=1e-3, rtol=1e-4
                )


def test_devices_own_lstms_read_packed_rows_alike() -> None:
    torch.manual_seed(0)
    lstm, lengths = WeightDropLSTM(5, 8), [9, 9, 4, 1]
    steps = Steps.of(torch.arange(9)[:, None] < torch.tensor(lengths))
    x, state = torch.randn(sum(lengths), 5), (torch.randn(1, 4, 8), torch.randn(1, 4, 8))
    ours = lstm.packed(x, steps, state, lstm.weights())
    theirs = lstm._uneven(x, steps, state, lstm.weights())  # what a GPU is asked
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_one_weight_mask_serves_all_chunks_of_a_batch() -> None:
    made = encoder(replace(SMALL, task=Dropouts(0, 0, 0.5, 0, 0), max_len=1000)).train()
    made(batch_of(texts(95, 60))).summary.sum().backward()
    for block in made.rnns:  # ten masks would leave one entry in a thousand without a gradient
        assert (block.lstm.weight_hh.grad == 0).float().mean() == pytest.approx(0.5, abs=0.1)


def test_entries_are_dropped_at_their_rate_and_the_others_grow() -> None:
    torch.manual_seed(0)
    ones = torch.ones(400, 251, requires_grad=True)
    for p in (0.1, 0.5, 0.999):
        dropped = entry_dropout(ones, p, training=True)
        kept = dropped > 0
        assert kept.float().mean() == pytest.approx(1 - p, abs=0.01)
        assert torch.allclose(dropped[kept], torch.tensor(1 / (1 - p)), rtol=2e-2 if p > 0.9 else 1e-4)
        (grad,) = torch.autograd.grad(dropped.sum(), ones)
        assert torch.equal(grad, dropped.detach())
    assert entry_dropout(ones, 0.5, training=False) is ones
    assert (entry_dropout(ones, 1.0, training=True) == 0).all()


def test_padded_windows_end_in_the_state_of_each_row() -> None:
    made = encoder()
    made.purpose("language_model")
    rows = texts(33, 21, 7)
    with torch.no_grad():
        together = made(batch_of(rows))
        for n, row in enumerate(rows):
            alone = made(batch_of([row]))
            assert torch.allclose(together.layers[-1][n, : len(row)], alone.layers[-1][0], atol=1e-6)
            for ours, expected in zip(together.carry, alone.carry, strict=True):
                for mine, its in zip(ours, expected, strict=True):
                    assert torch.allclose(mine[:, n], its[:, 0], atol=1e-6)


@pytest.mark.parametrize("order", ["as they are", "backwards", "shuffled"])
def test_a_text_does_not_feel_its_neighbours(order: str) -> None:
    made = encoder(AWDLSTMConfig(12, 20, 3, bptt=70, max_len=140))
    lengths = [1, 2, 3, 35, 69, 70, 71, 72, 100, 139, 140, 141, 142, 209, 210, 211, 279, 280, 281, 300]
    rows = texts(*lengths)
    alone = [made(batch_of([row])) for row in rows]
    places = {
        "as they are": list(range(20)),
        "backwards": list(range(19, -1, -1)),
        "shuffled": torch.randperm(20, generator=torch.Generator().manual_seed(2)).tolist(),
    }[order]
    for size in (2, 7, 20):
        for start in range(0, 20, size):
            some = places[start : start + size]
            found = made(batch_of([rows[i] for i in some]))
            for n, i in enumerate(some):
                assert torch.allclose(found.summary[n], alone[i].summary[0], atol=1e-5)
                for layer, expected in zip(found.layers, alone[i].layers, strict=True):
                    assert torch.allclose(layer[n, : lengths[i]], expected[0], atol=1e-5)


def test_gradients_do_not_feel_the_batch_either() -> None:
    rows = texts(3, 10, 11, 39, 40, 41, 77)
    together, apart = encoder(), encoder()
    together(batch_of(rows)).summary.square().sum().backward()
    for row in rows:
        apart(batch_of([row])).summary.square().sum().backward()
    for ours, expected in zip(together.parameters(), apart.parameters(), strict=True):
        if ours.grad is not None:
            assert expected.grad is not None
            assert torch.allclose(ours.grad, expected.grad, atol=1e-4)


def test_carried_state_joins_windows() -> None:
    made = encoder()
    made.purpose("language_model")
    (row,) = texts(33)
    whole = made(batch_of([row]))
    carry, parts = None, []
    for window in row.split(7):
        found = made(batch_of([window]), carry)
        carry = found.carry
        parts.append(found.layers[-1])
    assert torch.allclose(torch.cat(parts, 1), whole.layers[-1], atol=1e-6)
    made.purpose("task")
    again = made(batch_of([row]))
    for (h, c), (h2, c2) in zip(carry, again.carry, strict=True):
        assert torch.allclose(h, h2, atol=1e-6) and torch.allclose(c, c2, atol=1e-6)
    assert made(batch_of(texts(4, 3))).carry is None  # a row's state after padding means nothing


def test_copies_and_pickles_answer_alike_even_after_training_steps() -> None:
    made = encoder(replace(SMALL, task=Dropouts())).train()
    made(batch_of(texts(30, 4))).summary.sum().backward()
    batch = batch_of(texts(25, 9))
    expected = made.eval()(batch).summary
    for copy in (deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(copy(batch).summary, expected)
    fresh = AWDLSTM(made.config, 50).eval()
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh(batch).summary, expected)


def test_the_lstm_can_be_traced_for_export_after_training_with_weight_drop() -> None:
    lstm = WeightDropLSTM(3, 4)
    lstm.p = 0.5
    lstm(torch.randn(2, 5, 3), lstm.start(2))[0].sum().backward()
    lstm.eval()
    traced = torch.jit.trace(lstm, (torch.randn(2, 5, 3), lstm.start(2)), check_trace=False)
    for rows, tokens in ((2, 5), (3, 9)):  # the shape traced at, and another
        x = torch.randn(rows, tokens, 3)
        torch.testing.assert_close(traced(x, lstm.start(rows))[0], lstm(x, lstm.start(rows))[0])


def test_the_lstm_stays_in_float32_under_autocast_on_a_cpu() -> None:
    made = encoder()
    batch = batch_of(texts(15, 8))
    with torch.autocast("cpu", torch.bfloat16):
        found = made(batch)
    assert found.summary.dtype == torch.float32
    assert torch.allclose(found.summary, made(batch).summary, atol=1e-6)
