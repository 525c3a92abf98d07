"""GPT's published weights come in exactly, from every layout, and go out again bit by bit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pretune.data.rows import NOTHING, Row
from pretune.errors import UsageError, UserError
from pretune.methods.gpt.encoder import GPT
from pretune.methods.gpt.importing import Imported, import_gpt
from pretune.methods.gpt.weights import read_arrays, write_arrays, write_transformers
from pretune.tensors.batch import collate
from transformers_files import (
    Arrays,
    hf_gpt,
    numpy_gpt,
    openai_folder,
    save_gpt,
    write_gpt_vocabulary,
)

HF: dict[str, Any] = {"pretokenizer": "hf"}


def rows_of(ids: np.ndarray[Any, Any]) -> list[Row]:
    return [Row(list(map(int, x)), [0] * len(x), [0] * len(x), [NOTHING] * len(x)) for x in ids]


@torch.no_grad()
def top(encoder: GPT, ids: np.ndarray[Any, Any]) -> torch.Tensor:
    encoder.eval().purpose("language_model")
    return encoder(collate([[row] for row in rows_of(ids)], 0)).layers[-1]


def some_ids(size: int, length: int = 14) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, size, (3, length))


def test_arrays_in_uneven_pieces_give_the_releases_own_numbers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder, arrays = openai_folder(tmp_path / "model", heads=2, layers=3)
    read = import_gpt(folder, HF, {})
    words = len(arrays[1])
    assert read.codec.size == words + 3 and read.encoder.config.heads == 2
    ids = some_ids(words)
    hidden, logits = numpy_gpt(arrays, ids, 2)
    found = top(read.encoder, ids)
    assert np.abs(found.numpy() - hidden).max() < 1e-4 * max(1, np.abs(hidden).max())
    ours = (found @ read.encoder.embedding_weight[:words].T).detach().numpy()
    assert np.abs(ours - logits).max() < 1e-4 * max(1, np.abs(logits).max())
    theirs = hf_gpt(n_embd=128, n_layer=3, n_head=2, n_positions=16)
    state = {f"transformer.{x}": y for x, y in write_transformers(read.encoder, False).items()}
    state["transformer.tokens_embed.weight"] = state["transformer.tokens_embed.weight"][:words]
    theirs.load_state_dict({**state, "lm_head.weight": state["transformer.tokens_embed.weight"]})
    with torch.no_grad():
        said = theirs(torch.from_numpy(ids)).logits.numpy()
    assert np.abs(said - logits).max() < 1e-4 * max(1, np.abs(logits).max())


def test_openais_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    folder, arrays = openai_folder(tmp_path / "model")
    read = import_gpt(folder.parent, HF, {})  # the folder above `model` will do
    out = tmp_path / "out"
    out.mkdir()
    write_arrays(read.encoder, out)
    values = np.concatenate([np.load(out / f"params_{n}.npy") for n in range(10)])
    assert np.array_equal(values, np.concatenate([x.reshape(-1) for x in arrays]))
    assert json.loads((out / "params_shapes.json").read_text()) == [list(x.shape) for x in arrays]
    assert read_arrays(out).keys() == read_arrays(folder).keys()


def test_new_special_tokens_are_a_function_of_the_seed(tmp_path: Path) -> None:
    folder, _ = openai_folder(tmp_path)
    first, again = import_gpt(folder, HF, {}), import_gpt(folder, HF, {})
    other = import_gpt(folder, HF, {}, seed=1)
    weight = first.encoder.tokens.weight
    assert torch.equal(weight, again.encoder.tokens.weight)
    assert torch.equal(weight[:-3], other.encoder.tokens.weight[:-3])
    assert not torch.equal(weight[-3:], other.encoder.tokens.weight[-3:])
    assert 0.01 < float(weight[-3:].detach().std()) < 0.03
    assert any("_start_, _delimiter_, _classify_ are new (seed 0)" in note for note in first.notes)


def test_an_original_layout_is_read_by_the_original_pretokenizer(tmp_path: Path) -> None:
    pytest.importorskip("ftfy"), pytest.importorskip("spacy")
    folder, _ = openai_folder(tmp_path)
    read = import_gpt(folder, {}, {})
    assert read.codec.config.pretokenizer == "original"
    assert "words are found by the pretokenizer 'original', as by OpenAI" in read.notes[1]


def test_fewer_positions_can_be_wanted(tmp_path: Path) -> None:
    folder, arrays = openai_folder(tmp_path)
    read = import_gpt(folder, HF, {"context": 9})
    assert torch.equal(read.encoder.positions.weight, torch.from_numpy(arrays[0][:9]))
    assert read.codec.config.context == 9
    with pytest.raises(UsageError, match="context is 17; the weights have 16 positions"):
        import_gpt(folder, HF, {"context": 17})
    with pytest.raises(UsageError, match=r"encoder.width is said by the file"):
        import_gpt(folder, HF, {"width": 9})


def test_what_the_release_saves_after_training_can_be_brought_as_npz(tmp_path: Path) -> None:
    folder, arrays = openai_folder(tmp_path)
    specials = np.ones((3, 64), "<f4") * np.array([[1], [2], [3]], "<f4")
    we = np.concatenate([arrays[1], specials, arrays[0][:11]])
    saved: Arrays = [we, *arrays[2:], np.ones((64, 1), "<f4"), np.zeros(1, "<f4")]
    np.savez(folder / "best_params.npz", *saved)
    read = import_gpt(folder / "best_params.npz", HF, {})
    assert torch.equal(read.encoder.tokens.weight[-3:], torch.from_numpy(specials))
    assert torch.equal(read.encoder.positions.weight, torch.from_numpy(arrays[0][:11]))
    assert "the head of choices (clf) is left out" in read.notes


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    write_gpt_vocabulary(tmp_path)
    (tmp_path / "best_params.jl").write_bytes(pickle.dumps([1]))
    for source in (tmp_path, tmp_path / "best_params.jl"):
        with pytest.raises(UserError, match=r"numpy.savez\('best_params.npz', \*joblib.load"):
            import_gpt(source, HF, {})


@pytest.mark.parametrize("kind", ["OpenAIGPTModel", "OpenAIGPTLMHeadModel", "OpenAIGPTDoubleHeadsModel"])
@pytest.mark.parametrize("safe", [True, False])
def test_every_model_of_transformers_is_read(tmp_path: Path, kind: str, safe: bool) -> None:
    pytest.importorskip("transformers")
    model = hf_gpt(kind)
    folder = save_gpt(model, tmp_path)
    saved = load_file(folder / "model.safetensors")
    if kind == "OpenAIGPTDoubleHeadsModel":  # tied the other way round
        assert "lm_head.weight" in saved and "transformer.tokens_embed.weight" not in saved
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(saved, folder / "pytorch_model.bin")
    read = import_gpt(folder, {}, {})
    assert read.codec.config.pretokenizer == "hf" and read.layout == "transformers"
    _same_as_transformers(read, model)
    if kind == "OpenAIGPTDoubleHeadsModel":
        assert set(read.head) == {"multiple_choice_head.summary.weight", "multiple_choice_head.summary.bias"}


def _same_as_transformers(read: Imported, model: Any) -> None:
    ids = some_ids(read.codec.size - 3)
    with torch.no_grad():
        base = model.transformer if hasattr(model, "transformer") else model
        theirs = base(torch.from_numpy(ids)).last_hidden_state
    assert (top(read.encoder, ids) - theirs).abs().max() < 1e-5


def test_masks_and_an_equal_decoder_are_dropped(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = hf_gpt()
    folder = save_gpt(model, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    for number in range(2):
        tensors[f"transformer.h.{number}.attn.bias"] = torch.ones(1, 1, 24, 24).tril()
    tensors["lm_head.weight"] = tensors["transformer.tokens_embed.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    _same_as_transformers(import_gpt(folder, {}, {}), model)
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="should be equal and are not; GPT ties them"):
        import_gpt(folder, {}, {})


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = save_gpt(hf_gpt(), tmp_path)
    whole = load_file(folder / "model.safetensors")
    bias = "transformer.h.1.mlp.c_proj.bias"

    def refused(changes: dict[str, Any], message: str) -> None:
        tensors = {name: x for name, x in {**whole, **changes}.items() if x is not None}
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(UserError, match=message):
            import_gpt(folder, {}, {})

    refused({bias: None}, r"h.1.mlp.c_proj.bias \[12\] is missing")
    refused({bias: torch.zeros(13)}, r"h.1.mlp.c_proj.bias is \[13\], expected \[12\]")
    refused({bias: torch.full((12,), torch.nan)}, "c_proj.bias has values that are not finite")
    refused({"transformer.new": torch.zeros(1)}, r"new \[1\] is not expected")
    refused({bias: torch.zeros(12, dtype=torch.int32)}, "weights are floating-point numbers")
    config = json.loads((folder / "config.json").read_text())
    save_file(whole, folder / "model.safetensors")
    for name, value, message in (
        ("n_layer", 3, "n_layer is 3, but the weights have 2"),
        ("afn", "relu", "afn is 'relu'; known are gelu"),
        ("model_type", "gpt2", "model_type is 'gpt2', not openai-gpt"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(UserError, match=message):
            import_gpt(folder, {}, {})
    (folder / "config.json").write_text(
        json.dumps({**config, "n_ctx": 24, "n_special": 0, "predict_special_tokens": True})
    )
    assert import_gpt(folder, {}, {}).encoder.config.context == 24


def test_chunks_that_are_damaged_or_missing_are_named(tmp_path: Path) -> None:
    folder, _ = openai_folder(tmp_path)
    (folder / "params_6.npy").rename(folder / "kept")
    with pytest.raises(UserError, match=r"6 files of params have .* values, params_shapes.json wants"):
        import_gpt(folder, HF, {})
    (folder / "kept").rename(folder / "params_7.npy")
    with pytest.raises(UserError, match=r"each once; found \[0, 1, 2, 3, 4, 5, 7\]"):
        import_gpt(folder, HF, {})
    (folder / "params_7.npy").rename(folder / "params_6.npy")
    (folder / "params_1.npy").write_bytes(b"no numbers")
    with pytest.raises(UserError, match=r"params_1.npy: not a file of numpy numbers"):
        import_gpt(folder, HF, {})


def test_rows_of_added_tokens_are_left_out_and_own_special_tokens_kept(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = hf_gpt(extra_rows=3)
    folder = save_gpt(model, tmp_path)
    weight = model.transformer.tokens_embed.weight
    read = import_gpt(folder, {}, {})
    assert torch.equal(read.encoder.tokens.weight[:-3], weight[:-3])
    assert "3 rows that no piece of the vocabulary has are left out" in read.notes
    size = len(weight) - 3
    names = ("_start_", "_delimiter_", "_classify_")
    (folder / "added_tokens.json").write_text(json.dumps({x: size + n for n, x in enumerate(names)}))
    assert torch.equal(import_gpt(folder, {}, {}).encoder.tokens.weight, weight)
