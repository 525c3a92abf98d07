"""Streams of text: which tokens stand where, in every epoch, process and direction."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from pretune.errors import UserError
from pretune.tensors.streams import NO_TARGET, Limited, StreamSource


def source(tokens: int = 101, documents: int = 10, **options: Any) -> StreamSource:
    """Ids are 10, 11, 12 ..., so that a token's place in the corpus shows."""
    starts = np.linspace(0, tokens, documents + 1).astype(int)
    return StreamSource(
        np.arange(10, 10 + tokens, dtype=np.int32), starts, **{"streams": 4, "window": 7} | options
    )


def read(of: StreamSource, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [of.batch(epoch, step) for step in range(of.steps(epoch))]
    return torch.cat([b.ids for b in batches], 1), torch.cat([b.gold["next"] for b in batches], 1)


def test_rows_and_targets_are_those_of_fastais_loader() -> None:
    toy = source(shuffle=False)  # 100 targets in 4 streams of 25: windows of 7, 7, 7, 4
    assert [toy.batch(0, step).ids.shape[1] for step in range(toy.steps(0))] == [7, 7, 7, 4]
    ids, following = read(toy)
    assert torch.equal(ids, torch.arange(10, 110).view(4, 25))
    assert torch.equal(following, ids + 1)
    assert toy.batch(0, 1).mask.all() and toy.carries


def test_documents_come_in_a_new_order_every_epoch_and_stay_whole() -> None:
    shuffled = source(documents=20, streams=1)
    first, second = (read(shuffled, epoch)[0][0].tolist() for epoch in (0, 1))
    assert first != second
    assert set(first) | set(second) <= set(range(10, 111)) and len(set(first)) == 100
    breaks = sum(b != a + 1 for a, b in pairwise(first))
    assert 10 < breaks < 20
    assert read(source(documents=20, streams=1), 1)[0][0].tolist() == second
    assert read(source(documents=20, streams=1, seed=1), 1)[0][0].tolist() != second


def test_any_step_of_any_epoch_can_be_asked_for_first() -> None:
    one, other = source(variable=True), source(variable=True)
    read(one, 3)
    assert torch.equal(one.batch(1, 2).ids, other.batch(1, 2).ids)


def test_backward_reverses_each_document() -> None:
    ids, _ = read(source(direction="backward", shuffle=False, streams=1))
    expected = [token for start in range(0, 100, 10) for token in range(start + 19, start + 9, -1)]
    assert ids[0].tolist()[:90] == expected[:90]


def test_windows_of_varying_length_lose_nothing() -> None:
    long = source(5001, variable=True, window=20, streams=1, shuffle=False)
    lengths = [long.batch(0, step).ids.shape[1] for step in range(long.steps(0))]
    ids, following = read(long)
    assert torch.equal(ids[0], torch.arange(10, 5010)) and torch.equal(following, ids + 1)
    assert len(set(lengths)) > 5 and min(lengths[:-1]) >= 5
    other = source(5001, variable=True, window=20, streams=1, seed=1)
    assert lengths != [other.batch(0, step).ids.shape[1] for step in range(other.steps(0))]


def test_processes_read_different_streams_of_equal_length() -> None:
    alone = source(streams=4)
    shares = [source(streams=2, rank=rank, world=2) for rank in range(2)]
    assert [share.steps(0) for share in shares] == [alone.steps(0)] * 2
    together = torch.cat([read(share)[0] for share in shares])
    assert torch.equal(together, read(alone)[0])


@pytest.mark.parametrize("streams", [1, 3, 4, 7, 64])
def test_a_whole_reading_scores_every_token_once(streams: int) -> None:
    ids, following = read(source(streams=streams, whole=True, shuffle=False))
    real = following != NO_TARGET
    assert sorted(following[real].tolist()) == list(range(11, 111))
    assert torch.equal(ids[real] + 1, following[real])
    assert (ids[~real] == 1).all()


def test_small_corpora_get_fewer_streams_and_the_smallest_are_refused() -> None:
    assert source(tokens=11, documents=2, streams=64).streams == 5
    assert source(tokens=2, documents=1, streams=64).streams == 1
    with pytest.raises(UserError, match="1 tokens, too few"):
        source(tokens=1, documents=1)
    with pytest.raises(UserError, match="on 4 processes"):
        source(tokens=4, documents=1, world=4)


def test_empty_documents_are_passed_over() -> None:
    holes = StreamSource(np.arange(20), np.array([0, 0, 5, 5, 5, 20, 20]), 1, shuffle=False)
    assert read(holes)[0][0].tolist() == list(range(19))


def test_a_limit_keeps_the_first_steps() -> None:
    few = Limited(source(), 2)
    assert few.steps(0) == 2 and few.carries
    assert torch.equal(few.batch(0, 1).ids, source().batch(0, 1).ids)
