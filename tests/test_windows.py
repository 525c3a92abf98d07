"""Windows of documents: every token is a target, none is read across a border, and cuts move."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pretune.errors import UserError
from pretune.tensors.batch import Batch
from pretune.tensors.streams import NO_TARGET
from pretune.tensors.windows import RandomWindows, ScoredWindows, overlapping

LENGTHS = [1, 40, 7, 0, 8, 9, 95, 2]  # of documents; a window has 8 tokens
DOCUMENT = np.repeat(np.arange(len(LENGTHS)), LENGTHS)


def windows(**options: Any) -> RandomWindows:
    """Ids are 10, 11, 12 ..., so that a token's place in the corpus shows."""
    starts = np.cumsum([0, *LENGTHS])
    ids = np.arange(10, 10 + starts[-1], dtype=np.uint16)
    return RandomWindows(ids, starts, **{"context": 8, "rows": 2, "seed": 1} | options)


def batches(of: RandomWindows | ScoredWindows, epoch: int = 0) -> list[Batch]:
    return [of.batch(epoch, step) for step in range(of.steps(epoch))]


def targets(some: list[Batch]) -> Counter[int]:
    return Counter(x for batch in some for x in batch.gold["next"].flatten().tolist() if x != NO_TARGET)


def test_every_token_but_the_first_of_a_document_is_a_target_once_an_epoch() -> None:
    wanted = {10 + i for i in range(1, len(DOCUMENT)) if DOCUMENT[i] == DOCUMENT[i - 1]}
    for epoch in range(5):
        whole = windows(rows=1000)
        assert targets(batches(whole, epoch)) == Counter(wanted)


def test_what_an_epoch_leaves_out_is_less_than_a_batch_and_falls_on_all_tokens_alike() -> None:
    some = windows(rows=3)
    seen: Counter[int] = Counter()
    for epoch in range(400):
        found = targets(batches(some, epoch))
        assert set(found.values()) == {1} and len(found) > some.targets - some.tokens
        seen += found
    share = np.array(list(seen.values())) / 400
    assert len(share) == some.targets and share.min() > 0.8 * share.max()


def test_a_row_is_a_stretch_of_one_document_and_its_targets_are_what_follows() -> None:
    for batch in batches(windows()):
        for ids, mask, following in zip(batch.ids, batch.mask, batch.gold["next"], strict=True):
            length = int(mask.sum())
            assert mask[:length].all() and not ids[length:].any()
            assert torch.equal(ids[:length], torch.arange(int(ids[0]), int(ids[0]) + length))
            assert torch.equal(following[:length], ids[:length] + 1)
            assert (following[length:] == NO_TARGET).all()
            assert len({*DOCUMENT[ids[:length].numpy() - 10], DOCUMENT[following[length - 1] - 10]}) == 1


def test_cuts_move_evenly_and_full_windows_fill_a_batch() -> None:
    long = RandomWindows(np.arange(1000), np.array([0, 1000]), context=10, rows=4)
    begins: Counter[int] = Counter()
    for epoch in range(200):
        cut, lengths = long._cut(epoch)
        assert sorted(lengths[1:-1].tolist()) == [10] * (len(lengths) - 2)
        begins[int(cut[1]) % 10] += 1
        for batch in batches(long, epoch):
            assert 4 <= len(batch.ids) <= 6  # more where the short first or last one is among them
            assert int(batch.mask.sum()) < 40 + 10
    assert len(begins) == 10 and min(begins.values()) > 8
    assert long.steps(0) == 999 // 40


def test_any_step_can_be_asked_for_first_and_follows_from_the_seed() -> None:
    one, other = windows(), windows()
    batches(one, 3)
    assert torch.equal(one.batch(1, 2).ids, other.batch(1, 2).ids)
    assert targets([one.batch(0, 0)]) != targets([one.batch(1, 0)])
    assert targets([one.batch(0, 0)]) != targets([windows(seed=2).batch(0, 0)])


def test_processes_share_the_rows_of_one_plan() -> None:
    alone = windows(rows=4)
    halves = [windows(rows=2, rank=rank, world=2) for rank in range(2)]
    for step in range(alone.steps(0)):
        parts = [half.batch(0, step) for half in halves]
        assert all(len(part.ids) for part in parts)
        assert targets([alone.batch(0, step)]) == targets(parts[:1]) + targets(parts[1:])


def test_too_little_text_is_said_to_be() -> None:
    with pytest.raises(UserError, match="has 1 tokens, too few for a language model; give more text"):
        RandomWindows(np.arange(1), np.array([0, 1]), context=8, rows=2)
    with pytest.raises(UserError, match="too few for a language model on 3 processes"):
        RandomWindows(np.arange(5), np.array([0, 5]), context=8, rows=2, world=3)
    with pytest.raises(UserError, match="hold out more"):
        ScoredWindows(np.arange(2), np.array([0, 1, 2]), context=8, rows=2)


@pytest.mark.parametrize(("context", "overlap"), [(8, 0), (8, 4), (8, 7), (1, 0)])
def test_scoring_asks_for_every_token_once_with_enough_before_it(context: int, overlap: int) -> None:
    for tokens in range(40):
        asked: list[int] = []
        for begin, end, scored in overlapping(tokens, context, overlap):
            assert 0 <= begin <= scored < end <= tokens and end - begin <= context
            assert scored - begin >= min(overlap, scored)
            asked += range(scored, end)
        assert asked == list(range(tokens))


def test_evaluation_asks_for_every_token_once_whatever_the_batches() -> None:
    wanted = targets(batches(windows(rows=1000)))
    for rows in (1, 3, 100):
        scored = ScoredWindows(windows().ids, windows().starts, 8, rows, overlap=4)
        found = batches(scored)
        assert targets(found) == wanted
        assert all((batch.gold["next"] != NO_TARGET).sum() <= batch.mask.sum() for batch in found)
    assert sum(len(batch.ids) for batch in batches(replace(scored, overlap=0))) < len(found[0].ids)
