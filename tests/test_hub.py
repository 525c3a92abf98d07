"""Guests: models of transformers in our tasks, recipes and comparison, with nothing looked up."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import tiny
from guest_models import KINDS, saved, tokenizer, transformers
from pretune.data.rows import Row
from pretune.data.samples import Part, sample
from pretune.errors import UsageError, UserError
from pretune.methods import GUESTS
from pretune.methods.hub import Guest, HubCodec, HubCodecConfig, load
from pretune.runs import guests
from pretune.runs.embedder import Embedder
from pretune.runs.importing import import_published
from pretune.runs.published import Published
from pretune.runs.run import adapt, finetune, load_start, load_trained, pretrain
from pretune.runs.starts import Start, for_task, fresh, scratch
from pretune.runs.trained import evaluating
from pretune.tasks.classification import Classification
from pretune.tensors.batch import Batch, collate
from pretune.training.loop import Fitting

QUIET = Fitting(device="cpu", quiet=True)
SAMPLES = tiny.labelled(12)
TASK = Classification.of(SAMPLES)
LENGTHS = (1, 2, 9, 4, 9, 30, 7)


def texts(lengths: Sequence[int] = LENGTHS) -> list[str]:
    chance = Random(0)
    return [" ".join(chance.choices(tiny.WORDS, k=length)) for length in lengths]


def rows_of(codec: HubCodec, some: Sequence[str]) -> list[list[Row]]:
    return codec.encode([(Part(text),) for text in some])


def batch_of(codec: HubCodec, some: Sequence[str]) -> Batch:
    return collate(rows_of(codec, some), codec.pad_id)


def started(kind: str, folder: Path) -> Start:
    start = load_start(saved(kind, folder / kind))
    assert isinstance(start, Start)
    return start


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_read_alike_alone_and_beside_longer_ones(kind: str, tmp_path: Path) -> None:
    codec, encoder = load(saved(kind, tmp_path / kind))
    with torch.no_grad():
        together = encoder(batch_of(codec, texts()))
        for n, text in enumerate(texts()):
            alone = encoder(batch_of(codec, [text]))
            length = alone.mask.shape[1]
            assert torch.allclose(alone.summary[0], together.summary[n], atol=1e-5)
            for one, all_ in zip(alone.layers, together.layers, strict=True):
                assert torch.allclose(one[0], all_[n, :length], atol=1e-5)
                assert not all_[n, length:].any()
        assert tuple(h.shape[-1] for h in together.layers) == encoder.layer_widths()


def test_models_that_feel_padding_are_found_out(tmp_path: Path) -> None:
    padded = {kind: load(saved(kind, tmp_path / kind))[1].config.padded for kind in KINDS}
    assert padded == {kind: kind not in ("fnet", "convbert") for kind in KINDS}


@pytest.mark.parametrize("kind", ["bert", "gpt2", "openai-gpt", "distilbert", "roberta"])
def test_layers_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / kind)
    codec, encoder = load(folder)
    words = tokenizer(KINDS[kind][0])
    model = transformers.AutoModel.from_pretrained(folder).eval()
    for text in texts((1, 8)):
        theirs = words(text, return_tensors="pt")
        with torch.no_grad():
            out = model(**theirs, output_hidden_states=True)
            ours = encoder(batch_of(codec, [text]))
        assert torch.equal(theirs["input_ids"], batch_of(codec, [text]).ids)
        for one, other in zip(ours.layers, out.hidden_states, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("bert", "pooler"), ("distilbert", "first"), ("gpt2", "last"), ("openai-gpt", "last"), ("t5", "mean")],
)
def test_the_summary_suits_the_kind_of_model(kind: str, pooling: str, tmp_path: Path) -> None:
    codec, encoder = load(saved(kind, tmp_path / kind))
    assert encoder.config.pooling == pooling
    batch = batch_of(codec, texts())
    with torch.no_grad():
        read = encoder(batch)
    top = read.layers[-1]
    ends = batch.lengths - 1
    if pooling == "pooler":
        wanted = encoder.model.pooler(top)  # type: ignore[operator]
    elif pooling == "last":
        wanted = top[torch.arange(len(top)), ends]
    else:
        wanted = top[:, 0] if pooling == "first" else top.sum(1) / batch.lengths[:, None]
    assert torch.allclose(read.summary, wanted, atol=1e-6)


def test_sentence_transformers_say_their_pooling_and_limit_beside_the_model(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    said = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 11}')
    codec, encoder = load(folder)
    assert encoder.config.pooling == "mean"
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    assert len(rows_of(codec, texts((30,)))[0][0]) == 11


def test_a_pooler_that_was_never_trained_is_not_read(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    assert load(folder)[1].config.pooling == "first"


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_in_one_group_and_every_layer_is_a_group(kind: str, tmp_path: Path) -> None:
    encoder = load(saved(kind, tmp_path / kind))[1]
    held = [id(p) for group in encoder.groups() for p in group.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == set(map(id, encoder.parameters()))
    assert len(encoder.groups()) == 3


def test_tokens_know_their_characters_and_their_text(tmp_path: Path) -> None:
    codec, _ = load(saved("bert", tmp_path / "bert"))
    one, other = "  a good\u3000 film ", "the dull book"
    ((row,),) = codec.encode([(Part(one), Part(other))])
    words = [(one, other)[p][slice(*span)] for p, span in zip(row.part, row.chars, strict=True) if p >= 0]
    assert words == ["a", "good", "film", "the", "dull", "book"]
    assert row.part == [-1, 0, 0, 0, -1, 1, 1, 1, -1]
    assert row.segments == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert rows_of(codec, ["a \ud800 film"])[0][0].ids == rows_of(codec, ["a ? film"])[0][0].ids


def test_token_types_reach_a_model_that_has_them_and_no_other(tmp_path: Path) -> None:
    for kind, told in (("bert", True), ("distilbert", False), ("roberta", False), ("gpt2", False)):
        codec, encoder = load(saved(kind, tmp_path / kind))
        batch = collate(codec.encode([(Part("a film"), Part("a book"))]), codec.pad_id)
        same = replace(batch, segments=torch.zeros_like(batch.segments))
        with torch.no_grad():
            differs = not torch.equal(encoder(batch).layers[-1], encoder(same).layers[-1])
        assert differs == told == encoder.config.token_types


def test_long_pairs_are_cut_as_transformers_does(tmp_path: Path) -> None:
    codec, _ = load(saved("bert", tmp_path / "bert"))
    one, other = texts((50, 20))
    theirs = tokenizer("bert")(one, other, truncation=True, max_length=40)["input_ids"]
    ((row,),) = codec.encode([(Part(one), Part(other))])
    assert row.ids == theirs
    with pytest.raises(UsageError, match="this sample has 3 texts"):
        codec.encode([(Part("a"), Part("b"), Part("c"))])


def test_where_a_template_puts_nothing_between_two_texts_an_end_stands_there(tmp_path: Path) -> None:
    codec, _ = load(saved("gpt2", tmp_path / "gpt2"))
    ((row,),) = codec.encode([(Part("a film"), Part("a book"))])
    assert row.part == [0, 0, -1, 1, 1]
    assert row.ids[2] == 1
    assert [len(r[0]) for r in codec.encode([(Part(texts((60,))[0]), Part(texts((60,))[0]))])] == [40]
    assert rows_of(codec, [""])[0][0].ids == [1]


def test_a_codec_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    codec, _ = load(saved("bert", tmp_path / "bert"))
    codec.save(tmp_path)
    again = HubCodec.load(tmp_path)
    assert again.config == codec.config
    assert rows_of(again, texts()) == rows_of(codec, texts())


@pytest.mark.parametrize(("kind", "recipe"), [("bert", "features"), ("gpt2", "full"), ("t5", "gradual")])
def test_a_saved_model_answers_as_before_without_the_guests_folder(
    kind: str, recipe: str, tmp_path: Path
) -> None:
    model, _ = finetune(started(kind, tmp_path), TASK, tiny.recipe(recipe), SAMPLES, [], QUIET)
    model.save(tmp_path / "model", {})
    shutil.rmtree(tmp_path / kind)
    again = load_trained(tmp_path / "model")
    assert again.answers(SAMPLES) == model.answers(SAMPLES)
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"config.json", "run.json", "model.safetensors", "codec.json", "tokenizer.json"}
    further = load_start(tmp_path / "model")
    assert isinstance(further, Start) and further.method is GUESTS["hub"]


@pytest.mark.parametrize(("kind", "recipe"), [("gpt2", "gradual"), ("fnet", "full")])
def test_two_samples_are_learned_by_heart(kind: str, recipe: str, tmp_path: Path) -> None:
    two = [sample("good film", gold="yes"), sample("a dull book", gold="no")]
    task = Classification.of(two, dropout=0.0)
    way = tiny.recipe(recipe, epochs=40, lr=0.05 if recipe == "gradual" else 0.02, alpha=0.0, beta=0.0)
    model, _ = finetune(started(kind, tmp_path), task, way, two, [], QUIET)
    assert [answer.label for answer in model.answers(two)] == ["yes", "no"]


def test_fresh_weights_are_a_function_of_the_seed(tmp_path: Path) -> None:
    start = started("bert", tmp_path)
    made = [fresh(start.method, start.encoder_config, start.codec, seed) for seed in (1, 1, 2)]
    one, same, other = (model.groups()[0].word_embeddings.weight for model in made)  # type: ignore[union-attr]
    assert torch.equal(one, same)  # type: ignore[arg-type]
    assert not torch.equal(one, other)  # type: ignore[arg-type]
    known = start.encoder.state_dict()
    assert {name: x.shape for name, x in made[0].state_dict().items()} == {
        n: x.shape for n, x in known.items()
    }


def test_reading_from_vectors_is_reading(tmp_path: Path) -> None:
    for kind in ("bert", "gpt2", "roberta", "fnet"):
        start = for_task(started(kind, tmp_path))
        assert isinstance(start.codec, HubCodec)
        batch = batch_of(start.codec, texts())
        with torch.no_grad(), evaluating(start.encoder):
            read = start.encoder.read_vectors(start.encoder.vectors(batch), batch)
            assert torch.allclose(read.summary, start.encoder(batch).summary, atol=1e-6)


def test_guests_embed_words_of_texts(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    embedder = Embedder.load(folder, align="words")
    (found,) = embedder.stream(["a good film!"], "all")
    assert found.words == ["a", "good", "film", "!"]
    assert found.vectors.shape == (3, 4, 16)  # type: ignore[union-attr]


def test_nothing_is_looked_up_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("bert", tmp_path / "bert")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("somebody asks the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    load(folder)


def test_weights_of_torch_are_read_too_but_no_pickle_is_run(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    one = load(folder)[1].state_dict()
    state = transformers.AutoModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    other = load(folder)[1].state_dict()
    assert all(torch.equal(x, other[name]) for name, x in one.items())
    torch.save({"model": Path()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="a pickle with more in it than tensors"):
        load(folder)


def test_what_a_folder_lacks_is_said(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved("bert", tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.0.output.dense.weight"))
    save_file({n: x for n, x in weights.items() if n != name}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"weights are missing: {name}"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot read it"):
        load(folder)


def test_a_mistyped_folder_is_answered_with_the_nearest(tmp_path: Path) -> None:
    saved("bert", tmp_path / "bert-base")
    with pytest.raises(UserError, match=r"no such model folder; nearest: .*bert-base"):
        load_start(tmp_path / "bert-bsae")


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('run')")
    with pytest.raises(UserError, match="cannot read it"):
        load(folder)


def test_slow_tokenizers_are_refused(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    for path in folder.glob("token*"):
        path.unlink()
    config = {"tokenizer_class": "CanineTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="a slow one"):
        load(folder)


def test_guests_are_neither_pretrained_nor_adapted_here(tmp_path: Path) -> None:
    start = started("bert", tmp_path)
    for fail in (
        lambda: scratch(GUESTS["hub"], "small", tiny.corpus, 0),
        lambda: pretrain(GUESTS["hub"], tiny.corpus, None, tmp_path / "out", fitting=QUIET),
        lambda: adapt(tmp_path / "bert", tiny.corpus, None, tmp_path / "out", fitting=QUIET),
    ):
        with pytest.raises(UsageError, match="guests come pretrained"):
            fail()
    assert start.name == "bert"


def test_a_guest_is_imported_with_another_pooling_and_limit(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    settings = {"codec": {"context": 12}, "encoder": {"pooling": "mean"}}
    import_published("hub", Published(source=folder, **settings), tmp_path / "ours")  # type: ignore[arg-type]
    shutil.rmtree(folder)
    start = load_start(tmp_path / "ours")
    assert isinstance(start, Start) and isinstance(start.codec, HubCodec)
    batch = batch_of(start.codec, texts())
    with torch.no_grad(), evaluating(start.encoder):
        read = start.encoder(batch)
    assert batch.ids.shape[1] == 12
    assert torch.allclose(read.summary, read.layers[-1].sum(1) / batch.lengths[:, None], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"codec": {"context": 41}}, "reads up to 40 tokens"),
        ({"codec": {"pad_id": 3}}, r"codec\.pad_id is fixed by the guest"),
        ({"encoder": {"pooling": "cls"}}, r"encoder\.pooling is 'cls'"),
        ({"encoder": {"pooling": "pooler"}}, "has no trained one"),
    ],
)
def test_settings_that_a_guest_cannot_have_are_refused(
    settings: dict[str, dict[str, Any]], said: str, tmp_path: Path
) -> None:
    folder = saved("distilbert", tmp_path / "distilbert")
    with pytest.raises(UsageError, match=said):
        load(folder, **settings)


def in_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with one model."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    guests._fetched.cache_clear()
    repository = cache / "models--somebody--tiny-bert"
    saved("bert", repository / "snapshots" / "0123456789")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123456789")
    return cache


def test_a_model_of_the_hub_is_named_and_found_in_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_cache(tmp_path, monkeypatch)
    start = load_start(Path("hf:somebody/tiny-bert"))
    assert isinstance(start, Start) and isinstance(start.encoder, Guest)
    assert start.name == "tiny-bert"


def test_a_model_that_cannot_be_fetched_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_cache(tmp_path, monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hf:somebody/other is not in .* HF_HUB_OFFLINE forbids"):
        load_start(Path("hf:somebody/other"))
    with pytest.raises(UsageError, match="no name of the hub"):
        load_start(Path("hf:not a name"))


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("bert", tmp_path / "bert")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'pretune\[hf\]'"):
        load(folder)


def test_methods_are_known_without_transformers() -> None:
    code = "import sys, pretune, pretune.methods; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match=r"codec\.context is 3"):
        HubCodecConfig(context=3)


def test_a_guest_is_compared_and_no_language_model_is_asked_of_it(tmp_path: Path) -> None:
    from pretune.runs.compare import compare

    saved("distilbert", tmp_path / "distilbert")
    found = compare(
        tiny.labelled(60),
        methods=["tfidf", "hub"],
        sizes=[30],
        seeds=1,
        jobs=1,
        from_=[tmp_path / "distilbert"],
        settings={"hub": {"recipe": {"epochs": 1, "least_steps": 0}}},
        out=tmp_path / "out",
    )
    starts = {(one.method, one.start) for one in found.contenders}
    assert {("hub", "distilbert"), ("hub", "scratch")} <= starts
    with pytest.raises(UsageError, match="give the guest's folder with --from"):
        compare(tiny.labelled(60), methods=["hub"], sizes=[30], seeds=1, out=tmp_path / "none")
