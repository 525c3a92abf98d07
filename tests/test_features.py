"""Frozen features: where the mixes stand, lambda, word vectors beside them, and each text read once."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.data.samples import sample
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.recipes.beside import VECTORS, BesideVectors, Vectors
from pretune.recipes.characters import BesideCharacters
from pretune.recipes.features import Features
from pretune.recipes.frozen import LAYERS, FrozenFeatures
from pretune.recipes.remembered import Remembered, megabytes, remembering
from pretune.runs.compare import compare
from pretune.runs.embedder import Embedder
from pretune.runs.mixes import mix_lines
from pretune.runs.run import finetune, load_trained
from pretune.runs.trained import Ensemble, TrainedModel, join, mixes_of
from pretune.tasks.classification import Classification
from pretune.tensors.batch import Batch
from pretune.training.loop import Fitting, Interrupted
from pretune.training.sources import SampleSource, task_batch

SAMPLES = tiny.labelled(12)
TASK = Classification.of(SAMPLES)
QUIET = Fitting(device="cpu", quiet=True)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Three numbers for each word but "dull"; one only in capitals."""
    file = tmp_path / "glove.txt"
    known = [word for word in tiny.WORDS if word != "dull"]
    lines = [f"{word} {i}.5 -{i} 0.25" for i, word in enumerate([*known, "Paris"], start=1)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def joined(recipe: Features, method: str = "ulmfit") -> TrainedModel:
    return join(tiny.start(method), TASK, recipe, 0)


def features(model: TrainedModel) -> FrozenFeatures:
    assert isinstance(model.model.encoder, FrozenFeatures)
    return model.model.encoder


def batch_of(model: TrainedModel, gold: bool = False) -> Batch:
    rows = model.learned.rows(model.start.codec, SAMPLES)
    return task_batch(model.learned, model.start.codec, SAMPLES, rows, gold)


def tuned(recipe: Features, method: str = "ulmfit", fitting: Fitting = QUIET) -> TrainedModel:
    model, _ = finetune(tiny.start(method), TASK, recipe, SAMPLES, SAMPLES[:4], fitting)
    assert isinstance(model, TrainedModel)
    return model


def weights(model: TrainedModel) -> dict[str, Tensor]:
    return model.model.state_dict()


def count_runs(encoder: Encoder) -> list[int]:
    runs: list[int] = []
    encoder.register_forward_hook(lambda *_: runs.append(1))
    return runs


def test_the_defaults_are_the_papers():
    recipe = Features()
    assert (recipe.placement, recipe.dropout, recipe.lambda_) == ("input", 0.5, 0.001)
    assert (recipe.layer_norm, recipe.mix, recipe.mix_gamma) == (False, "learned", 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("placement", "beside", "seen", "top"),
    [
        ("input", False, "D", "2H"),
        ("input", True, "D+3", "2H"),
        ("output", True, "3", "2H+D"),
        ("both", False, "D", "2H+D"),
        ("both", True, "D+3", "2H+D"),
    ],
)
def test_the_mix_stands_where_it_is_asked_for(method, placement, beside, seen, top, vectors):
    model = joined(Features(placement=placement, bilstm=4, vectors=vectors if beside else None), method)
    wrapped = features(model)
    runs = count_runs(wrapped.encoder)
    said = wrapped(batch_of(model))
    sizes = {"D": wrapped.encoder.width, "H": 4}
    assert wrapped.bilstm is not None
    assert wrapped.bilstm.input_size == eval(seen, sizes)
    assert said.layers[-1].shape[-1] == wrapped.width == eval(top.replace("2H", "2*H"), sizes)
    assert said.summary.shape == (12, wrapped.summary_width)
    assert set(wrapped.mixes()) == {"input": {"input"}, "output": {"output"}}.get(
        placement, {"input", "output"}
    )
    assert len(runs) == 1  # however many mixes


def test_both_mixes_learn_on_their_own():
    model = tuned(Features(placement="both", bilstm=4, lr=0.1, epochs=3))
    one, two = (mix.shares() for mix in features(model).mixes().values())
    assert not torch.equal(one, two) and not torch.equal(one, torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"placement": "both"}, "recipe.bilstm, such as 128"),
        ({"placement": "output", "bilstm": 4}, "set recipe.vectors"),
        ({"bilstm_layers": 2}, "set recipe.bilstm"),
        ({"mix": "top", "mix_weights": (1.0, 2.0)}, "leave recipe.mix_weights out"),
        ({"mix": "concat", "mix_weights": (1.0, 2.0)}, "leave recipe.mix_weights out"),
        ({"mix": "concat", "layer_norm": True}, "not of recipe.mix=concat"),
        ({"mix": "top", "mix_last": 2}, "recipe.mix_last is 2"),
        ({"mix_last": 0}, "recipe.mix_last is 0"),
        ({"lambda_": -1.0}, "recipe.lambda_ is -1.0"),
    ],
)
def test_what_cannot_be_is_a_usage_error_that_says_what_to_do(said, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Features(**said)


def test_weights_for_another_number_of_layers_are_a_usage_error():
    with pytest.raises(UsageError, match=r"has 3 numbers; this encoder has 2 layers to mix"):
        joined(Features(mix_weights=(0.0, 1.0, 2.0)))


def test_a_frozen_mix_stays_as_it_was_set():
    recipe = Features(mix="frozen", mix_weights=(0.0, 1.0), mix_gamma=0.7, lr=0.1, epochs=2)
    model = tuned(recipe)
    (mix,) = features(model).mixes().values()
    assert mix.weights.tolist() == [0, 1] and mix.gamma.item() == pytest.approx(0.7)
    assert features(model).learned()[0].gamma == pytest.approx(0.7)


def test_the_top_alone_learns_gamma():
    model = tuned(Features(mix="top", lr=0.1, epochs=2))
    (mix,) = features(model).learned()
    assert mix.weights == (0, 1) and mix.gamma != 1


def test_only_the_last_layers_are_mixed_where_asked_for():
    model = tuned(Features(mix_last=2, lr=0.1, epochs=2), "bert")
    wrapped = features(model)
    (mix,) = wrapped.learned()
    assert mix.layers == (1, 2) and len(mix.weights) == 2  # of embeddings and two blocks
    shown = Embedder(model.start, next(iter(wrapped.mixes().values())), "learned")
    (mixed,) = shown.embed(["the good film"], layers="mix")
    (every,) = shown.embed(["the good film"], layers="all")
    assert mixed == pytest.approx(mix.gamma * sum(w * h for w, h in zip(mix.weights, every[1:])), abs=1e-5)
    with pytest.raises(UsageError, match="mix_last is 4; this encoder has 3 layers"):
        joined(Features(mix_last=4), "bert")


@pytest.mark.parametrize("bilstm", [0, 5])
def test_layers_side_by_side_are_seen_with_the_top_one_first(bilstm):
    model = tuned(Features(mix="concat", mix_last=2, bilstm=bilstm, epochs=2), "bert")
    wrapped = features(model).eval()
    assert wrapped.width == (2 * bilstm or 2 * wrapped.encoder.width) and not wrapped.mixes()
    if not bilstm:
        batch = batch_of(model)
        layers = wrapped.encoder(batch).layers
        torch.testing.assert_close(wrapped(batch).layers[-1], torch.cat((layers[2], layers[1]), -1))


@pytest.mark.parametrize("mix", ["learned", "concat"])
def test_dropout_on_the_mix_is_at_work_while_it_trains(mix):
    model = joined(Features(mix=mix))
    for stage in model.recipe.stages(model.model.encoder, model.model.head):
        stage.thaw(model.model)
        stage.train(model.model)
    wrapped = features(model)
    assert wrapped.dropout.training and not any(m.training for m in wrapped.encoder.modules())
    batch = batch_of(model)
    assert not torch.equal(wrapped(batch).summary, wrapped(batch).summary)


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_lambda_is_in_the_loss_and_not_in_what_is_reported(lambda_):
    recipe = Features(lambda_=lambda_, mix_weights=(1.0, -2.0), dropout=0)
    model = joined(recipe).model
    batch = batch_of(joined(recipe), gold=True)
    model.train()
    torch.manual_seed(0)
    output = model(batch)
    assert output.loss is not None and output.reported is not None
    assert (output.loss - output.reported).item() == pytest.approx(12 * lambda_ * 5, abs=1e-4)
    model.eval()
    output = model(batch)
    assert output.loss is not None and output.loss.item() == output.reported.item()


def test_a_large_lambda_holds_the_shares_equal():
    def spread(lambda_: float) -> float:
        (mix,) = features(tuned(Features(lambda_=lambda_, lr=0.1, epochs=20))).learned()
        return abs(mix.weights[0] - 0.5)

    assert spread(10.0) < spread(0.0) / 4


@pytest.mark.parametrize("method", METHODS)
def test_each_token_has_the_vector_of_the_word_that_it_covers(method, vectors):
    texts = [sample("the dull PLOT Paris"), sample("good", "the plot")]
    start = tiny.start(method)
    task = BesideVectors(TASK, Vectors.read(vectors))
    rows = task.rows(start.codec, texts)
    beside = task.given(texts, rows)[VECTORS]
    place = {word: i for i, word in enumerate([w for w in tiny.WORDS if w != "dull"], start=1)}
    place |= {"Paris": len(tiny.WORDS), "PLOT": place["plot"]}
    for text, of_sample, found in zip(texts, rows, beside, strict=True):
        for t, (part, span) in enumerate(zip(of_sample[0].part, of_sample[0].chars, strict=True)):
            word = text.parts[part].text[span.start : span.end] if part >= 0 else ""
            i = place.get(word, 0)
            assert found[t].tolist() == ([i + 0.5, -i, 0.25] if i else [0, 0, 0]), (word, t)
        assert not found[len(of_sample[0]) :].any()
    least = 0.2 if method in ("gpt", "bert") else 0.8  # words that these cut into pieces have no vector
    assert least < task.share(texts, rows) < 1  # all but "dull"


def test_only_the_first_words_of_the_file_are_taken(vectors):
    few = Vectors.read(vectors, 2)
    assert list(few.words) == tiny.WORDS[:2] and few.table.shape == (3, 3)


@pytest.mark.parametrize("method", ["ulmfit", "gpt"])
def test_a_saved_model_needs_no_file_but_its_own(method, vectors, tmp_path):
    recipe = Features(vectors=vectors, placement="both", bilstm=3, epochs=2, lr=0.05)
    model = tuned(recipe, method)
    model.save(tmp_path / "model", {})
    vectors.unlink()
    (tmp_path / "model").rename(tmp_path / "moved")
    again = load_trained(tmp_path / "moved")
    assert again.answers(SAMPLES) == model.answers(SAMPLES)
    again.save(tmp_path / "again", {})
    for file in ("config.json", "model.safetensors", "vectors.bin"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "moved" / file).read_bytes()
    assert str(tmp_path) not in (tmp_path / "moved" / "config.json").read_text()


def test_a_model_folder_without_its_vectors_is_a_clear_mistake(vectors, tmp_path):
    tuned(Features(vectors=vectors, epochs=1)).save(tmp_path / "model", {})
    (tmp_path / "model" / "vectors.bin").unlink()
    with pytest.raises(UserError, match=r"vectors\.bin: no such file"):
        load_trained(tmp_path / "model")


def test_pieces_of_words_have_no_word_vectors(vectors):
    class Pieces:
        vocab = "of a library"

        def describe(self) -> str:
            return "30,000 pieces"

    with pytest.raises(UsageError, match=r"whole words.*30,000 pieces.*leave recipe.vectors out"):
        BesideVectors(TASK, Vectors.read(vectors)).rows(Pieces(), SAMPLES)


def test_vectors_of_another_language_are_a_mistake(tmp_path):
    (tmp_path / "zh.txt").write_text("电影 1 2 3\n好 4 5 6\n", encoding="utf-8")
    with pytest.raises(UserError, match="no word of the training samples"):
        tuned(Features(vectors=tmp_path / "zh.txt"))


@pytest.mark.parametrize("method", METHODS)
def test_remembered_layers_are_what_the_encoder_says(method):
    model = joined(Features(bilstm=3, dropout=0), method)
    codec, wrapped = model.start.codec, features(model).eval()
    rows = model.learned.rows(codec, SAMPLES)
    task = remembering(wrapped, model.learned, codec, [(SAMPLES[:7], rows[:7]), (SAMPLES[7:], rows[7:])])
    assert isinstance(task, Remembered)
    kept = task.layers
    assert 4 * (kept.tokens.numel() + kept.summaries.numel()) / 2**20 == megabytes(wrapped, [(SAMPLES, rows)])
    runs = count_runs(wrapped.encoder)
    for some in ([0, 5, 9], [11, 2], [3]):
        chosen, own = [SAMPLES[i] for i in some], [rows[i] for i in some]
        fresh = wrapped(task_batch(model.learned, codec, chosen, own, gold=False))
        assert runs
        runs.clear()
        again = wrapped(task_batch(task, codec, chosen, own, gold=False))
        assert not runs
        torch.testing.assert_close(again.layers, fresh.layers, atol=1e-6, rtol=0)
        torch.testing.assert_close(again.summary, fresh.summary, atol=1e-6, rtol=0)
    unknown = [sample("too good")]
    given = task.given([SAMPLES[0], *unknown], [rows[0], *task.rows(codec, unknown)])
    assert LAYERS not in given  # so the batch is read as a whole


@pytest.mark.parametrize("method", ["elmo", "bert"])
def test_training_is_the_same_with_and_without_remembering(method, vectors):
    recipe = Features(placement="both", bilstm=3, vectors=vectors, epochs=3, lr=0.05)
    with_it, without = tuned(recipe, method), tuned(replace(recipe, cache_megabytes=0), method)
    for name, value in weights(with_it).items():
        torch.testing.assert_close(value, weights(without)[name], atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize(("cache_megabytes", "expected"), [(1024, 1), (0, 8)])
def test_each_text_is_read_once_if_the_layers_fit(monkeypatch, cache_megabytes, expected):
    runs: list[int] = []
    read = FrozenFeatures.read

    def counted(self: FrozenFeatures, batch: Batch, carry: Any = None) -> Any:
        runs.append(LAYERS not in batch.given)
        return read(self, batch, carry)

    monkeypatch.setattr(FrozenFeatures, "read", counted)
    tuned(Features(epochs=4, cache_megabytes=cache_megabytes))
    assert sum(runs) == expected  # a batch of training and one of validation in each epoch


def test_layers_too_large_to_keep_are_said_to_be(capsys, monkeypatch):
    monkeypatch.setattr("pretune.runs.remember.megabytes", lambda *_: 5000.0)
    tuned(Features(epochs=1), fitting=replace(QUIET, quiet=False))
    assert "5,000 MB, more than recipe.cache_megabytes=1024" in capsys.readouterr().err


def test_a_run_cut_short_and_resumed_ends_with_the_same_bits(tmp_path, monkeypatch):
    recipe = Features(placement="both", bilstm=3, epochs=5, lr=0.05, batch_size=4)
    fitting = replace(QUIET, folder=tmp_path / "run", checkpoint_steps=1)
    whole = tuned(recipe)
    make = SampleSource.batch

    def pressed(self: SampleSource, epoch: int, step: int) -> Batch:
        if (epoch, step) == (2, 1):
            os.kill(os.getpid(), signal.SIGINT)
        return make(self, epoch, step)

    with monkeypatch.context() as patch:
        patch.setattr(SampleSource, "batch", pressed)
        with pytest.raises(Interrupted):
            tuned(recipe, fitting=fitting)
    resumed = tuned(recipe, fitting=replace(fitting, resume=True))
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_what_the_mixes_learned_is_in_run_json_and_in_words(tmp_path):
    model = tuned(Features(placement="both", bilstm=3, epochs=2, lr=0.1))
    model.save(tmp_path / "model", {"seed": 0})
    said = json.loads((tmp_path / "model" / "run.json").read_text())["mixes"]
    assert [mix["place"] for mix in said] == ["input", "output"]
    for mix, own in zip(said, features(model).mixes().values(), strict=True):
        assert mix["layers"] == [0, 2]
        assert mix["weights"] == pytest.approx(own.weights.softmax(0).tolist())
        assert mix["gamma"] == pytest.approx(own.gamma.item())
    (line, _) = mix_lines(
        [{"place": "input", "layers": [0, 2], "weights": [0.25, 0.75], "gamma": 1.5}, said[1]]
    )
    assert line == "mix at the input: layer 0 25.0 %, layer 2 75.0 %; gamma 1.5"


def test_an_ensemble_says_whose_mix_it_is():
    starts = [replace(tiny.start("ulmfit", seed), name=name) for seed, name in enumerate(("there", "back"))]
    both, _ = finetune(starts, TASK, Features(epochs=1), SAMPLES, [], QUIET)
    assert isinstance(both, Ensemble)
    assert [mix["place"] for mix in mixes_of(both)] == ["input of there", "input of back"]
    assert mixes_of(tuned(Features(epochs=1), "wordvectors")) == []  # one layer: no mix


def test_a_comparison_says_what_each_training_learned(tmp_path, vectors):
    settings = {
        "recipe": {"epochs": 1, "vectors": str(vectors)},
        "encoder": tiny.ENCODER["ulmfit"],
        "codec": {"min_count": 1},
    }
    asked: dict[str, Any] = {
        "methods": ["ulmfit"],
        "recipes": ["features"],
        "sizes": [8],
        "unlabelled": "none",
    }
    asked |= {"jobs": 1, "device": "cpu", "settings": settings}
    found = compare(tiny.labelled(20), SAMPLES, seeds=2, out=tmp_path / "out", **asked)
    assert [(mix.seed, mix.place, mix.layers) for mix in found.mixes] == [
        (0, "input", [0, 2]),
        (1, "input", [0, 2]),
    ]
    assert all(sum(mix.weights) == pytest.approx(1) for mix in found.mixes)
    assert "Which layers matter" in (tmp_path / "out" / "report.md").read_text()
    assert load_trained(tmp_path / "out" / "best").answers(SAMPLES)
    before = {path.name for path in (tmp_path / "out" / "cells").iterdir()}
    vectors.write_text(vectors.read_text().replace(".5", ".75"))
    compare(tiny.labelled(20), SAMPLES, seeds=1, out=tmp_path / "out", **asked)
    assert len({path.name for path in (tmp_path / "out" / "cells").iterdir()} - before) == 1  # other vectors
    vectors.unlink()
    with pytest.raises(UsageError, match=r"glove\.txt; there is no such file"):
        compare(tiny.labelled(20), SAMPLES, seeds=1, out=tmp_path / "out", **asked)


def test_finetune_and_evaluate_print_the_mix(tmp_path):
    lines = [f'"{s.texts[0]}",{s.gold}' for s in tiny.labelled(20)]
    (tmp_path / "train.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    shape = [f"encoder.{name}={value}" for name, value in tiny.ENCODER["ulmfit"].items()]
    made = [
        "finetune",
        "classification",
        tmp_path / "train.csv",
        "--method",
        "ulmfit",
        "--recipe",
        "features",
    ]
    made += [
        "--out",
        tmp_path / "m",
        "codec.min_count=1",
        "recipe.epochs=1",
        "--device",
        "cpu",
        "--quiet",
        *shape,
    ]
    found = CliRunner().invoke(app, [str(x) for x in made])
    assert found.exit_code == 0, found.stderr
    assert re.search(r"mix at the input: layer 0 \d+\.\d %, layer 2 \d+\.\d %; gamma \d\.\d+", found.stdout)
    (line,) = [line for line in found.stdout.splitlines() if line.startswith("mix at")]
    found = CliRunner().invoke(app, ["evaluate", str(tmp_path / "m"), str(tmp_path / "train.csv")])
    assert found.exit_code == 0 and line in found.stderr


# Characters beside the mix


@pytest.mark.parametrize("method", METHODS)
def test_characters_stand_beside_the_mix_of_any_encoder(method):
    model = joined(Features(characters=5, bilstm=4, bilstm_layers=2), method)
    wrapped = features(model)
    assert wrapped.bilstm is not None and wrapped.bilstm.input_size == wrapped.encoder.width + 5
    assert wrapped.bilstm.num_layers == 2
    batch = batch_of(model)
    assert batch.given["spelled_places"].shape == batch.ids.shape
    model.model.eval()
    alone = [model.answers([one])[0].scores for one in SAMPLES]
    for one, other in zip(alone, model.answers(SAMPLES), strict=True):
        assert one == pytest.approx(other.scores, abs=1e-6)


def test_tokens_are_spelled_by_what_they_cover():
    task = BesideCharacters(TASK)
    start = tiny.start("ulmfit")
    some = [sample("good Good", gold=SAMPLES[0].gold), sample("good", gold=SAMPLES[0].gold)]
    given = task.given(some, task.rows(start.codec, some))
    words, places = given["spelled_words"], given["spelled_places"]
    spellings = [bytes(c - 1 for c in row.tolist() if 0 < c <= 256).decode() for row in words]
    assert spellings == ["", "good", "Good"]  # each distinct one once
    read = [[spellings[place] for place in row] for row in places.tolist()]
    assert read[0][0] == "" and "Good" in read[0] and read[1].count("good") == 1


def test_a_model_that_reads_characters_learns_them_and_comes_back(tmp_path: Path):
    model = tuned(Features(characters=6, bilstm=4, lr=0.05, epochs=3, vectors=None))
    fresh = joined(Features(characters=6, bilstm=4))
    moved = {
        name
        for name, weight in weights(model).items()
        if "characters" in name and not torch.equal(weight, weights(fresh)[name])
    }
    assert moved >= {
        "encoder.characters.cnn.embedding.weight",
        "encoder.characters.cnn.convolutions.0.weight",
    }
    model.save(tmp_path / "m", {})
    loaded = load_trained(tmp_path / "m")
    assert loaded.answers(SAMPLES) == model.answers(SAMPLES)
    with pytest.raises(UsageError, match="reads characters beside its encoder"):
        features(model).vectors(batch_of(model))
