"""Everybody's AWD-LSTMs come in with the same answers, and each file that does not fit is refused by name."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import ulmfit_files as files
from pretune.errors import UsageError, UserError
from pretune.runs.language_model import LanguageModel
from ulmfit_models import COUNT, IDS, WEIGHTS, close, next_logits, split, started, take

LANGUAGE_MODELS = {
    "salesforce": ("salesforce", files.salesforce, "laid out as by salesforce"),
    "salesforce without weight drop": ("salesforce", lambda w: files.salesforce(w, drop=False), ""),
    "0.7": ("v07", files.v07, "by fastai 0.7"),
    "0.7 without weight drop": ("v07", lambda w: files.v07(w, drop=False), ""),
    "1": ("v1", files.v1, "3 stale copies"),
    "2": ("v2", files.v2, "by fastai 2"),
    "2 in parallel": ("v2", lambda w: {f"module.{n}": x for n, x in files.v2(w).items()}, "by fastai 2"),
    "2 with its optimizer": ("v2", lambda w: {"model": files.v2(w), "opt": {"state": []}}, "by fastai 2"),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize("layout", LANGUAGE_MODELS)
def test_a_language_model_of_every_layout_says_what_it_said(
    layout: str, legacy: bool, tmp_path: Path
) -> None:
    generation, make, said = LANGUAGE_MODELS[layout]
    weights = files.lstm(COUNT[generation])
    notes = take(
        *split(files.write(tmp_path, make(weights), files.words(generation), legacy=legacy), tmp_path)
    )
    assert any(said in note for note in notes)
    _, encoder = started(tmp_path / "model")
    wanted = files.next_logits(weights, IDS, bias=generation != "v07")
    assert close(next_logits(encoder)[:, : COUNT[generation]], wanted)


QRNNS = {
    "MultiFiT": lambda weights: files.multifit(weights),
    "MultiFiT of old": lambda weights: files.multifit(weights, "linear"),
    "salesforce": lambda weights: {
        name.removeprefix("0.").removeprefix("1."): x
        for name, x in files.multifit(weights, "linear").items()
        if "encoder_dp" not in name
    },
}


@pytest.mark.parametrize("whose", QRNNS)
def test_a_quasi_recurrent_model_says_what_it_said(whose: str, tmp_path: Path) -> None:
    weights = files.qrnn(COUNT["v1"])
    notes = take(*split(files.write(tmp_path, QRNNS[whose](weights), files.words("v1")), tmp_path))
    assert "3 QRNNs of 8 cells" in notes[0] and any("3 stale copies" in note for note in notes)
    assert ("by salesforce" in notes[0]) == (whose == "salesforce")
    _, encoder = started(tmp_path / "model")
    assert encoder.config.cell == "qrnn"
    assert close(next_logits(encoder), files.next_logits(weights, IDS))


def test_an_encoder_alone_says_the_same_but_for_the_bias(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["v2"])
    for name, whole in (
        ("encoder", files.encoder(files.v2(weights))),
        ("salesforce", {n: x for n, x in files.salesforce(weights).items() if "decoder" not in n}),
        ("classifier", files.classifier(files.v2(weights), files.head(), "v2")),
    ):
        path, vocab = files.write(tmp_path / name, whole, files.words("v2"))
        notes = take(path, tmp_path / name / "model", vocab, encoder_only=name == "classifier")
        assert any("no bias of a decoder; zeros" in note for note in notes)
        _, encoder = started(tmp_path / name / "model")
        assert close(next_logits(encoder), files.next_logits(weights, IDS, bias=False))


@pytest.mark.parametrize(("hidden", "layers"), [(11, 2), (6, 1), (5, 4)])
def test_sizes_come_from_the_shapes(hidden: int, layers: int, tmp_path: Path) -> None:
    weights = files.lstm(COUNT["v2"], hidden=hidden, layers=layers)
    take(*split(files.write(tmp_path, files.v2(weights), files.words("v2")), tmp_path))
    config = started(tmp_path / "model")[1].config
    assert (config.embedding, config.layers) == (files.WIDTH, layers)
    assert layers == 1 or config.hidden == hidden


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    weights = {name: x.half() for name, x in files.lstm(COUNT["v1"]).items()}
    notes = take(*split(files.write(tmp_path, files.v1(weights), files.words("v1")), tmp_path))
    assert any("float16" in note for note in notes)
    _, encoder = started(tmp_path / "model")
    assert torch.equal(encoder.embedding_weight, weights["embedding"].float())


def test_files_of_torch_0_3_are_read(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["v07"])
    tensors = OrderedDict((name, files.Ancient(x)) for name, x in files.v07(weights).items())
    take(*split(files.write(tmp_path, tensors, files.words("v07"), "fwd.h5", legacy=True), tmp_path))
    encoder = started(tmp_path / "model")[1]
    assert close(next_logits(encoder), files.next_logits(weights, IDS, bias=False))


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["v2"])
    save_file({n: x.clone() for n, x in files.v2(weights).items()}, tmp_path / "lstm.safetensors")
    (tmp_path / "itos.json").write_text(json.dumps(files.words("v2")))
    take(tmp_path / "lstm.safetensors", tmp_path / "model", tmp_path / "itos.json")
    assert close(next_logits(started(tmp_path / "model")[1]), files.next_logits(weights, IDS))


class Whole(torch.nn.Linear):
    """A model pickled whole."""


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    """fastai 2's file with some tensors changed, or gone."""
    found = {**files.v2(files.lstm(COUNT["v2"])), **{n: x for n, x in changes.items() if x is not None}}
    return {name: x for name, x in found.items() if name not in changes or changes[name] is not None}


REFUSED: dict[str, tuple[Any, str]] = {
    "a whole model": (
        Whole(2, 2),
        r"holds an object of .*Whole, whose code would have to run; where it loads",
    ),
    "a model, its criterion, its optimizer": ([Whole(2, 2), None, None], "holds an object of .*Whole"),
    "a list": ([torch.zeros(2)], "holds a list, no weights by name"),
    "settings": ({"lr": 3, "epochs": 2}, "holds a dict of lr, epochs, no weights by name"),
    "another network": (
        {"fc.weight": torch.zeros(2, 2)},
        "no AWD-LSTM: there is no encoder.weight .* fc.weight",
    ),
    "a tensor too many": (
        changed(**{"0.attention.weight": torch.zeros(2)}),
        "an AWD-LSTM has no place for 0.attention.weight",
    ),
    "a tensor too few": (
        changed(**{"0.rnns.1.module.bias_hh_l0": None}),
        "rnns.1.module.bias_hh_l0 is missing",
    ),
    "a layer too few": (changed(**{n: None for n in files.v2(WEIGHTS) if ".1." in n}), "has the layers 0, 2"),
    "two directions": (
        changed(**{"0.rnns.0.module.weight_ih_l0_reverse": torch.zeros(2)}),
        "a bidirectional model",
    ),
    "an untied decoder": (
        changed(**{"1.decoder.weight": WEIGHTS["embedding"] + 1}),
        "the decoder is not tied to the embedding",
    ),
    "two embeddings": (
        changed(**{"0.encoder_dp.emb.weight": WEIGHTS["embedding"] + 1}),
        "encoder.weight and 0.encoder_dp.emb.weight should be equal and are not: damaged",
    ),
    "a wrong shape": (
        changed(**{"0.rnns.1.module.weight_ih_l0": torch.zeros(32, 9)}),
        r"rnns.1.module.weight_ih_l0 is \[32, 9\], expected \[32, 8\]",
    ),
    "values that are none": (
        changed(**{"0.rnns.1.module.bias_hh_l0": torch.full((32,), float("nan"))}),
        "0.rnns.1.module.bias_hh_l0 has values that are not finite",
    ),
    "whole numbers": (changed(**{"1.decoder.bias": torch.ones(COUNT["v2"], dtype=torch.int8)}), "torch.int8"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_weights_that_do_not_fit_are_refused_by_name(what: str, tmp_path: Path) -> None:
    tensors, message = REFUSED[what]
    path, vocab = files.write(tmp_path, tensors, files.words("v2"))
    with pytest.raises(UserError, match=message):
        take(path, tmp_path / "model", vocab)
    assert not (tmp_path / "model").exists()


def test_files_that_hold_no_torch_weights_are_refused(tmp_path: Path) -> None:
    for data, message in (
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5, so weights of Keras; give the .pth of fastai"),
        (b"rubbish", "not a file of torch weights, or damaged"),
        (b"", "not a file of torch weights, or damaged"),
    ):
        (tmp_path / "lstm.h5").write_bytes(data)
        with pytest.raises(UserError, match=message):
            take(tmp_path / "lstm.h5", tmp_path / "model")
    (tmp_path / "lstm.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        take(tmp_path / "lstm.safetensors", tmp_path / "model")
    path, _ = files.write(tmp_path, files.v2(WEIGHTS))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match="not a file of torch weights, or damaged"):
        take(path, tmp_path / "model")


def test_what_the_file_says_cannot_be_set_and_the_rest_can(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path, files.v2(WEIGHTS), files.words("v2"))
    with pytest.raises(UsageError, match=r"encoder.hidden is said by the file"):
        take(path, tmp_path / "model", vocab, encoder={"hidden": 9})
    with pytest.raises(UsageError, match=r"encoder.cutoffs is for a softmax that no published file has"):
        take(path, tmp_path / "model", vocab, encoder={"cutoffs": (5,)})
    take(path, tmp_path / "model", vocab, encoder={"max_len": 99})
    assert started(tmp_path / "model")[1].config.max_len == 99


def test_an_imported_language_model_is_scored_as_torch_scores_it(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path, files.v2(WEIGHTS), files.words("v2"))
    take(path, tmp_path / "model", vocab)
    model = LanguageModel.load(tmp_path / "model", "cpu")
    ids = started(tmp_path / "model")[0].ids(["the film was good"])[0]
    wanted = files.next_logits(WEIGHTS, ids).log_softmax(1)
    nats = [float(wanted[t, after]) for t, after in enumerate(ids[1:])]
    assert model.score(["the film was good"])[0].forward == pytest.approx(nats, rel=1e-4)
