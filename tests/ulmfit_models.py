"""Made-up ULMFiT files taken in, and what the models in the folders answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ulmfit_files as files
from pretune.data.rows import NOTHING, Row
from pretune.methods.ulmfit import AWDLSTM, UlmfitCodec
from pretune.runs.importing import import_published
from pretune.runs.published import Published
from pretune.runs.run import load_start, load_trained
from pretune.runs.starts import Start
from pretune.runs.trained import TrainedModel
from pretune.tasks.next_token import NextToken, NextTokenHead
from pretune.tensors.batch import Batch, collate

COUNT = {generation: len(files.words(generation)) for generation in files.SPECIALS}
IDS = [2, 11, 9, 14, 20, 0, 17]
WEIGHTS = files.lstm(COUNT["v2"])


def take(source: Path, out: Path, vocab: Path | None = None, **more: Any) -> list[str]:
    return import_published("ulmfit", Published(source=source, vocab=vocab, **more), out)


def started(folder: Path) -> tuple[UlmfitCodec, AWDLSTM]:
    start = load_start(folder)
    assert isinstance(start, Start) and isinstance(start.encoder, AWDLSTM)
    assert isinstance(start.codec, UlmfitCodec)
    return start.codec, start.encoder


def batch_of(ids: Sequence[int]) -> Batch:
    row = Row(list(ids), [0] * len(ids), [0] * len(ids), [NOTHING] * len(ids))
    return collate([[row]], 1)


def next_logits(encoder: AWDLSTM, ids: Sequence[int] = IDS) -> Tensor:
    head = NextToken().head(encoder)
    assert isinstance(head, NextTokenHead)
    with torch.no_grad():
        return head.logits(encoder.eval()(batch_of(ids)).layers[-1][0])  # (T, V)


def label_logits(folder: Path, ids: Sequence[int] = IDS) -> Tensor:
    trained = load_trained(folder)
    assert isinstance(trained, TrainedModel)
    with torch.no_grad():
        return trained.model.eval()(batch_of(ids)).scores["logits"][0]  # (C,)


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def split(written: tuple[Path, Path], folder: Path) -> tuple[Path, Path, Path]:
    return written[0], folder / "model", written[1]


def release(folder: Path, **models: Mapping[str, Tensor]) -> Path:
    """Files by their names as keywords: fwd__lstm is fwd/lstm.pth."""
    for name, tensors in models.items():
        path = folder / f"{name.replace('__', '/')}.pth"
        files.write(path.parent, tensors, files.words("v2"), path.name)
    return folder
