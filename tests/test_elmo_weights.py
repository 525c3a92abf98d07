"""Published biLMs come in and go out as they are: every dataset, every option, every mistake named."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import bilm
import tiny
from checkpoints import write_checkpoint
from pretune.data.samples import Part
from pretune.errors import UserError
from pretune.methods import METHODS
from pretune.methods.elmo.config import ELMoConfig
from pretune.methods.elmo.encoder import ELMo
from pretune.methods.elmo.options import options_of, read_options
from pretune.methods.elmo.release import Release
from pretune.methods.elmo.tokens import ElmoCodec, ElmoCodecConfig
from pretune.methods.elmo.weights import dataset, import_bilm, pieces
from pretune.recipes.features import Features
from pretune.runs.importing import export, import_published
from pretune.runs.published import Published
from pretune.runs.run import load_start
from pretune.runs.starts import Start, save_start
from pretune.runs.trained import join
from pretune.tasks.classification import Classification
from pretune.tensors.batch import collate
from test_cli import run

Shared = Callable[[str], Path]
TEXT = "the film was naïve an unbelievable Āt"


def same(one: bilm.Arrays, other: bilm.Arrays) -> bool:
    """Equal names, types, shapes and bits."""
    return one.keys() == other.keys() and all(
        x.dtype == other[name].dtype and x.shape == other[name].shape and x.tobytes() == other[name].tobytes()
        for name, x in one.items()
    )


def imported(release: Release, out: Path, **more: Any) -> list[str]:
    named = {name: getattr(release, name) for name in release.__dataclass_fields__}
    return import_published("elmo", Published(**{**named, **more}), out)


def top(encoder: ELMo, codec: ElmoCodec, text: str = TEXT) -> torch.Tensor:
    encoder.eval()
    with torch.no_grad():
        batch = collate(codec.encode([(Part(text),)]), codec.pad_id, spell=codec.spell)
        return encoder(batch).layers[-1]


def started(folder: Path) -> tuple[ElmoCodec, ELMo]:
    start = load_start(folder)
    assert isinstance(start, Start) and isinstance(start.encoder, ELMo)
    assert isinstance(start.codec, ElmoCodec)
    return start.codec, start.encoder


def test_the_fixture_comes_out_as_it_went_in(shared: Shared, tmp_path: Path) -> None:
    folder = shared("fixtures/elmo/allennlp")
    release = Release(folder / "options.json", folder / "lm_weights.hdf5")
    notes = imported(release, tmp_path / "model")
    assert notes[0].startswith("105,120 parameters in 33 datasets: reads characters; 2 LSTMs of 64 cells")
    export(tmp_path / "model", "bilm", tmp_path / "out")
    back = bilm.arrays_of(tmp_path / "out/lm_weights.hdf5")
    assert same(bilm.arrays_of(folder / "lm_weights.hdf5"), back)
    wrote = json.loads((tmp_path / "out/options.json").read_text())
    for table, said in json.loads((folder / "options.json").read_text()).items():
        assert wrote[table] == said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["lm_weights.hdf5", "options.json"]


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("shape", bilm.SHAPES)
def test_every_shape_goes_round(shape: str, softmax: bool, tmp_path: Path) -> None:
    options = bilm.changed(**bilm.SHAPES[shape])
    arrays = bilm.made_up(options, softmax)
    imported(bilm.write(tmp_path / "in", options, arrays), tmp_path / "model")
    codec, encoder = started(tmp_path / "model")
    assert encoder.config.softmax == softmax
    if softmax:
        assert encoder.softmax_weight is not None and encoder.softmax_bias is not None
        assert np.array_equal(encoder.softmax_weight.detach().numpy(), arrays["softmax/W"])
        assert np.array_equal(encoder.softmax_bias.detach().numpy(), arrays["softmax/b"])
        assert codec.vocab is not None and list(codec.vocab.words) == bilm.WORDS
    export(tmp_path / "model", "bilm", tmp_path / "out")
    back = bilm.arrays_of(tmp_path / "out/lm_weights.hdf5")
    if softmax:
        back |= bilm.arrays_of(tmp_path / "out/softmax_weights.hdf5")
        assert (tmp_path / "out/vocab.txt").read_bytes() == (tmp_path / "in/vocab.txt").read_bytes()
    assert same(arrays, back)
    again, _ = read_options(tmp_path / "out/options.json")
    assert replace(again, softmax=softmax) == encoder.config


def test_files_without_a_word_of_directions_are_read_as_the_weights_have_them(tmp_path: Path) -> None:
    for ways in (True, False):
        arrays = bilm.made_up(bilm.changed(bidirectional=ways))
        _, encoder = bilm.read(bilm.write(tmp_path, bilm.OPTIONS, arrays))
        assert encoder.ways == 1 + ways


@pytest.mark.parametrize(
    ("count", "note"),
    [(261, "n_characters is 261, as in training"), (262, ""), (None, "")],
)
def test_both_counts_of_characters_are_accepted(count: int | None, note: str, tmp_path: Path) -> None:
    options = bilm.changed(char_cnn__n_characters=count)
    release = bilm.write(tmp_path, options, bilm.made_up(options))
    _, _, notes = import_bilm(release, ElmoCodecConfig())
    assert any(note in line for line in notes) if note else not any("n_characters" in x for x in notes)


def test_options_that_say_nothing_of_the_network_are_left_aside(tmp_path: Path) -> None:
    options = bilm.changed(n_tokens_vocab=793471, batch_size=128, unroll_steps=20, all_clip_norm_val=10.0)
    _, encoder = bilm.read(bilm.write(tmp_path, options, bilm.made_up(options)))
    _, usual = bilm.read(bilm.write(tmp_path, bilm.OPTIONS, bilm.made_up(bilm.OPTIONS)))
    assert encoder.config == usual.config


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_single_layer_is_read_under_the_names_that_tensorflow_dumps(
    bidirectional: bool, tmp_path: Path
) -> None:
    """`dump_weights` of bilm-tf, which its own loader cannot read."""
    options = bilm.changed(lstm__n_layers=1, bidirectional=bidirectional)
    arrays = bilm.made_up(options)
    renamed = {name.replace("MultiRNNCell/Cell0/", ""): x for name, x in arrays.items()}
    if not bidirectional:  # its renaming misses these altogether
        old = {"RNN_0/RNN/": "rnn/", "W_P_0": "projection/kernel", "W_0": "kernel", "/B": "/bias"}
        renamed = {_replaced(name, old): x for name, x in renamed.items()}
        assert "rnn/LSTMCell/projection/kernel" in renamed
    codec, encoder = bilm.read(bilm.write(tmp_path, options, renamed))
    wanted = bilm.expected(options, arrays, TEXT.split())[-1]
    np.testing.assert_allclose(top(encoder, codec)[0].numpy(), wanted, atol=3e-6)


def _replaced(name: str, table: dict[str, str]) -> str:
    if name.startswith("RNN"):
        for old, new in table.items():
            name = name.replace(old, new)
    return name


CELL = "RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop(f"{CELL}/B"), rf"lm_weights.hdf5: {CELL}/B \[28\] is missing$"),
        (
            lambda w: w.update({f"{CELL}/B": w[f"{CELL}/B"][:-1]}),
            rf"lm_weights.hdf5: {CELL}/B is \[27\], expected \[28\]$",
        ),
        (
            lambda w: w.update({"CNN/W_cnn_1": w["CNN/W_cnn_1"][0]}),
            r"CNN/W_cnn_1 is \[2, 3, 4\], expected \[1, 2, 3, 4\]$",
        ),
        (lambda w: w.update(more=np.zeros(3, "<f4")), r"more \[3\] is not expected$"),
        (
            lambda w: w.update({"CNN_proj/b_proj": w["CNN_proj/b_proj"] * np.nan}),
            "CNN_proj/b_proj has values that are not finite",
        ),
        (
            lambda w: w.update({"CNN_proj/b_proj": np.zeros(5, "<i4")}),
            "CNN_proj/b_proj is of type int32; weights are float32",
        ),
        (
            lambda w: w.update(char_embed=np.ones((262, 3), "<f4")),
            "char_embed has 262 rows, but the first, of padding, is not zero",
        ),
        (
            lambda w: w.update({f"{CELL.replace('MultiRNNCell/Cell1', 'Cell1')}/x": np.zeros(1, "<f4")}),
            r"Cell1/LSTMCell/x \[1\] is not expected",
        ),
    ],
)
def test_every_mismatch_is_named(
    damage: Callable[[bilm.Arrays], object], message: str, tmp_path: Path
) -> None:
    arrays = bilm.made_up(bilm.OPTIONS)
    damage(arrays)
    with pytest.raises(UserError, match=message):
        bilm.read(bilm.write(tmp_path, bilm.OPTIONS, arrays))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lstm__dim": 9}, "lstm.dim is 9 there, 7 here"),
        ({"lstm__projection_dim": 4}, "lstm.projection_dim is 4 there, 5 here"),
        ({"lstm__n_layers": 1}, "lstm.n_layers is 1 there, 2 here"),
        ({"bidirectional": False}, "bidirectional is False there, True here"),
        ({"char_cnn__n_highway": 1}, "char_cnn.n_highway is 1 there, 2 here"),
        ({"char_cnn__embedding": {"dim": 4}}, "char_cnn.embedding.dim is 4 there, 3 here"),
        (
            {"char_cnn__filters": [[1, 3], [2, 4]]},
            r"filters is \[\[1, 3\], \[2, 4\]\] there, \[\[1, 3\], \[2, 4\], \[3, 5\]\] here",
        ),
    ],
)
def test_the_options_of_another_model_are_explained(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    release = bilm.write(tmp_path, bilm.changed(**change), bilm.made_up(bilm.OPTIONS))
    with pytest.raises(UserError, match=f"does not belong to .*options.json .*{message}"):
        bilm.read(release)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("[1]", "it has no table 'lstm'"),
        ("{", "not JSON"),
        ({"lstm": {"projection_dim": 5}}, "lstm.dim is missing"),
        (bilm.changed(lstm__dim="7"), "lstm.dim is '7'; it must be a whole number of at least 1"),
        (bilm.changed(lstm__dim=True), "lstm.dim is 'True'; it must be a whole number"),
        (bilm.changed(lstm__projection_dim=8), "lstm.projection_dim is 8, more than lstm.dim, 7"),
        (bilm.changed(lstm__cell_clip=0), "lstm.cell_clip is '0'; it must be a number above 0, or absent"),
        (bilm.changed(lstm__proj_clip="3"), "lstm.proj_clip is '3'; it must be a number"),
        (bilm.changed(lstm__use_skip_connections=1), "use_skip_connections is '1'; it must be true or false"),
        (bilm.changed(char_cnn__activation="gelu"), "activation is 'gelu'; it must be relu or tanh"),
        (bilm.changed(char_cnn__filters=[[1, 2, 3]]), "filters is .* it must be a list of"),
        (bilm.changed(char_cnn__filters=[[99, 2]]), "options.json: encoder.filters are up to 99"),
        (bilm.changed(char_cnn__embedding=16), "char_cnn.embedding.dim cannot be read"),
        (bilm.changed(char_cnn__n_characters=60), "n_characters is '60'; it must be 261 or 262"),
        (bilm.changed(dropout=2), "options.json: encoder.dropout is 2"),
    ],
)
def test_wrong_options_are_answered_with_file_and_name(
    options: dict[str, Any] | str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "options.json"
    path.write_text(options if isinstance(options, str) else json.dumps(options))
    with pytest.raises(UserError, match=message):
        read_options(path)


def test_files_in_each_others_place_are_named(tmp_path: Path) -> None:
    release = bilm.write(tmp_path, bilm.OPTIONS, bilm.made_up(bilm.OPTIONS, softmax=True))
    with pytest.raises(UserError, match=r"not JSON; are --options and --weights swapped\?$"):
        bilm.read(replace(release, options=release.weights))
    with pytest.raises(UserError, match="--softmax is for softmax/W and softmax/b; this file holds a biLM"):
        bilm.read(replace(release, softmax=release.weights))
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        for name in "abc":
            file.create_dataset(name, data=np.zeros(1, "<f4"))
    message = r"other.hdf5: no biLM in this file; it holds a, b and 1 more$"
    with pytest.raises(UserError, match=message):
        bilm.read(Release(release.options, tmp_path / "other.hdf5"))


def test_a_softmax_needs_words_as_many_as_its_rows(tmp_path: Path) -> None:
    release = bilm.write(tmp_path, bilm.OPTIONS, bilm.made_up(bilm.OPTIONS, softmax=True))
    with pytest.raises(UserError, match="a softmax needs the words of its rows; give --vocab"):
        bilm.read(replace(release, vocab=None))
    assert release.vocab is not None
    h5py.File(tmp_path / "empty.hdf5", "w").close()
    with pytest.raises(UserError, match=r"empty.hdf5: no softmax there, which is softmax/W"):
        bilm.read(replace(release, softmax=tmp_path / "empty.hdf5"))
    release.vocab.write_text("".join(f"{word}\n" for word in bilm.WORDS[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match="the vocabulary has 11 words, the weights 12"):
        bilm.read(release)
    release.vocab.write_text("</S>\n<S>\n<UNK>\nthe\n")
    with pytest.raises(UserError, match="the first three lines"):
        bilm.read(release)


def test_a_model_that_reads_words_needs_them_and_their_vectors(tmp_path: Path) -> None:
    options = bilm.changed(char_cnn=None)
    arrays = bilm.made_up(options)
    release = bilm.write(tmp_path / "whole", options, arrays)
    with pytest.raises(UserError, match="reads words of a vocabulary; give --vocab"):
        bilm.read(replace(release, vocab=None))
    vectors = {"embedding": arrays.pop("embedding")}
    apart = bilm.write(tmp_path / "apart", options, arrays)
    with pytest.raises(UserError, match=r"embedding \[12, 5\] is missing, which --embedding can name"):
        bilm.read(apart)
    bilm.write(tmp_path / "vectors", options, vectors)
    codec, encoder = bilm.read(replace(apart, embedding=tmp_path / "vectors/lm_weights.hdf5"))
    assert torch.equal(top(encoder, codec), top(*reversed(bilm.read(release))))


def test_a_tied_softmax_is_read_and_written(tmp_path: Path) -> None:
    options = bilm.changed(char_cnn=None, share_embedding_softmax=True)
    arrays = bilm.made_up(options, softmax=True)
    del arrays["softmax/W"]
    imported(bilm.write(tmp_path / "in", options, arrays), tmp_path / "model")
    _, encoder = started(tmp_path / "model")
    assert encoder.config.tied and encoder.words is not None
    assert encoder.softmax_weight is encoder.words.weight
    export(tmp_path / "model", "bilm", tmp_path / "out")
    assert same(
        arrays,
        bilm.arrays_of(tmp_path / "out/lm_weights.hdf5")
        | bilm.arrays_of(tmp_path / "out/softmax_weights.hdf5"),
    )
    assert json.loads((tmp_path / "out/options.json").read_text())["share_embedding_softmax"] is True


def test_files_that_are_no_hdf5_or_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    release = bilm.write(tmp_path, bilm.OPTIONS, bilm.made_up(bilm.OPTIONS))
    assert release.weights is not None
    whole = release.weights.read_bytes()
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n", whole[: len(whole) // 2]):
        release.weights.write_bytes(content)
        with pytest.raises(UserError, match=r"lm_weights.hdf5: not an HDF5 file, or damaged"):
            bilm.read(release)
    (tmp_path / "secret").write_bytes(bytes(20))
    bilm.write(tmp_path, bilm.OPTIONS, bilm.made_up(bilm.OPTIONS))
    with h5py.File(release.weights, "a") as file:
        del file["CNN_proj/b_proj"]
        external = [(str(tmp_path / "secret"), 0, 20)]
        file.create_dataset("CNN_proj/b_proj", (5,), "<f4", external=external)
    with pytest.raises(UserError, match="CNN_proj/b_proj has its values in another file"):
        bilm.read(release)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_release_is_found_in_a_folder_or_zip(form: str, tmp_path: Path) -> None:
    """As NLPL ships them: model.hdf5, options.json, vocab.txt.gz."""
    options, out = bilm.changed(bidirectional=None), tmp_path / "model"
    release = bilm.write(tmp_path / "in", options, bilm.made_up(options, softmax=True))
    assert release.weights is not None and release.vocab is not None
    release.weights.rename(release.weights.with_name("model.hdf5"))
    release.vocab.with_name("vocab.txt.gz").write_bytes(gzip.compress(release.vocab.read_bytes()))
    release.vocab.unlink()
    (tmp_path / "in/README").write_text("read me")
    source = tmp_path / "in"
    if form == "zip":
        source = tmp_path / "in.zip"
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in (tmp_path / "in").iterdir():
                packed.write(path, f"../../{path.name}")  # leaves no folder but its own
    import_published("elmo", Published(source), out)
    codec, encoder = started(out)
    assert encoder.config.softmax and codec.size == len(bilm.WORDS)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"in", "model", source.name})


def test_a_folder_or_zip_without_a_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no files of a biLM"):
        import_published("elmo", Published(tmp_path / "empty"), tmp_path / "out")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="not a zip that can be read"):
        import_published("elmo", Published(tmp_path / "broken.zip"), tmp_path / "out")
    for name in ("a", "b"):
        bilm.write(tmp_path / "two", bilm.OPTIONS, bilm.made_up(bilm.OPTIONS))
        (tmp_path / "two/lm_weights.hdf5").rename(tmp_path / f"two/{name}_weights.hdf5")
    (tmp_path / "two/softmax_weights.hdf5").unlink()
    with pytest.raises(UserError, match=r"a_weights.hdf5, b_weights.hdf5; say which one with --weights"):
        import_published("elmo", Published(tmp_path / "two"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


TF: dict[str, str] = {  # bilm-tf's own names in training, in reading order
    "lm/char_embed": "char_embed",
    "lm/CNN/W_cnn_0": "CNN/W_cnn_0",
    "lm/CNN_high_1/b_carry": "CNN_high_1/b_carry",
    "lm/CNN_proj/W_proj": "CNN_proj/W_proj",
    "lm/embedding": "embedding",
    "lm/RNN_1/rnn/multi_rnn_cell/cell_1/lstm_cell/kernel": f"{CELL}/W_0",
    "lm/RNN_1/rnn/multi_rnn_cell/cell_1/lstm_cell/bias": f"{CELL}/B",
    "lm/RNN_1/rnn/multi_rnn_cell/cell_1/lstm_cell/projection/kernel": f"{CELL}/W_P_0",
    "lm/RNN_0/rnn/lstm_cell/kernel": "RNN_0/RNN/MultiRNNCell/Cell0/LSTMCell/W_0",
    "lm/rnn/lstm_cell/bias": "RNN_0/RNN/MultiRNNCell/Cell0/LSTMCell/B",
    "lm/rnn/multi_rnn_cell/cell_2/lstm_cell/bias": "RNN_0/RNN/MultiRNNCell/Cell2/LSTMCell/B",
    "lm/softmax/W": "softmax/W",
    "bilm/CNN/b_cnn_6": "CNN/b_cnn_6",
    "module/bilm/RNN_1/RNN/MultiRNNCell/Cell1/rnn/lstm_cell/projection/kernel": f"{CELL}/W_P_0",
    f"{CELL}/W_0": f"{CELL}/W_0",
}


def test_variables_of_tensorflow_have_datasets_for_names() -> None:
    assert {name: dataset(name) for name in TF} == TF


def variables(arrays: bilm.Arrays, hub: bool = False) -> bilm.Arrays:
    """Datasets under the names that a checkpoint of training has, or TF-Hub's module."""
    names = {"/W_P_0": "/projection/kernel", "/W_0": "/kernel", "/B": "/bias"}
    if hub:
        names["/LSTMCell"] = "/rnn/lstm_cell"
    else:
        names |= {"/RNN/MultiRNNCell/Cell": "/rnn/multi_rnn_cell/cell_", "/LSTMCell": "/lstm_cell"}
    return {("bilm/" if hub else "lm/") + _replaced(name, names): x for name, x in arrays.items()}


@pytest.mark.parametrize("words", [True, False])
def test_a_checkpoint_of_training_gives_the_same_as_hdf5(words: bool, tmp_path: Path) -> None:
    arrays = bilm.made_up(bilm.OPTIONS, softmax=True)
    release = bilm.write(tmp_path, bilm.OPTIONS, arrays)
    renamed = variables(arrays)
    slots = {f"{name}/Adagrad": x + 1 for name, x in renamed.items()}
    counters = {"global_step": np.array(935588, "<i8"), "train_perplexity": np.array(40, "<f4")}
    write_checkpoint(tmp_path / "model.ckpt-935588", {**renamed, **slots, **counters})
    vocab = release.vocab if words else None
    learned = Release(release.options, checkpoint=tmp_path / "model.ckpt-935588", vocab=vocab)
    _, encoder, notes = import_bilm(learned, ElmoCodecConfig())
    _, wanted = bilm.read(release)
    assert encoder.config.softmax is words
    assert any("only training needs are left out: global_step, lm/CNN" in line for line in notes)
    assert words or any("the softmax is left out; with --vocab" in line for line in notes)
    for name, parameter in encoder.named_parameters():
        assert torch.equal(parameter, wanted.get_parameter(name)), name


def test_variables_of_a_hub_module_give_the_same_as_hdf5(tmp_path: Path) -> None:
    """Its table of characters has the row of padded tokens, its mix is a task's own."""
    arrays = bilm.made_up(bilm.OPTIONS)
    release = bilm.write(tmp_path, bilm.OPTIONS, arrays)
    renamed = variables(arrays, hub=True)
    renamed["bilm/char_embed"] = np.concatenate((np.zeros((1, 3), "<f4"), renamed["bilm/char_embed"]))
    mix = {"aggregation/scaling": np.array(1, "<f4"), "aggregation/weights": np.zeros(3, "<f4")}
    states = {"bilm/Variable_1": np.zeros((128, 7), "<f4")}
    write_checkpoint(tmp_path / "variables", {**renamed, **mix, **states})
    _, encoder = bilm.read(Release(release.options, checkpoint=tmp_path / "variables.index"))
    _, wanted = bilm.read(release)
    for name, parameter in encoder.named_parameters():
        assert torch.equal(parameter, wanted.get_parameter(name)), name


def test_a_checkpoint_of_the_original_in_training_is_read_to_the_bit(shared: Shared, tmp_path: Path) -> None:
    golden = np.load(shared("fixtures/elmo/golden_train.npz"))
    arrays = {name[5:-2]: golden[name] for name in golden.files if name.startswith("init/")}
    write_checkpoint(tmp_path / "model.ckpt-0", arrays)
    size = len(arrays["lm/softmax/b"])
    words = ["<S>", "</S>", "<UNK>", *(f"w{number}" for number in range(size - 3))]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    options = shared("fixtures/elmo/golden_train_options.json")
    release = Release(options, checkpoint=tmp_path / "model.ckpt-0", vocab=tmp_path / "vocab.txt")
    imported(release, tmp_path / "model")
    export(tmp_path / "model", "bilm", tmp_path / "out")
    back = bilm.arrays_of(tmp_path / "out/lm_weights.hdf5")
    back |= bilm.arrays_of(tmp_path / "out/softmax_weights.hdf5")
    assert same({dataset(name): x for name, x in arrays.items()}, back)


def pretrained(out: Path, **encoder: Any) -> Start:
    """A small biLM as `pretune pretrain elmo` leaves one."""
    method = METHODS["elmo"]
    codec = ElmoCodec.learn(lambda: iter(tiny.texts(30, 1)), ElmoCodecConfig(min_count=1, segmenter="spaces"))
    config = replace(method.sizes["tiny"], dim=12, projection_dim=6, filters=((1, 4), (2, 6)), **encoder)
    made = Start("scratch", method, codec, method.build(config, codec), config)
    save_start(made, out, {})
    return made


def test_what_pretune_pretrained_is_read_by_the_peer_that_reads_published_files(tmp_path: Path) -> None:
    peer = pytest.importorskip("simple_elmo_pytorch.models.elmo", reason="needs simple-elmo-pytorch")
    made = pretrained(tmp_path / "model")
    assert isinstance(made.encoder, ELMo) and isinstance(made.codec, ElmoCodec)
    export(tmp_path / "model", "bilm", tmp_path / "out")
    theirs = peer.ElmoBiLmSentence(str(tmp_path / "out/options.json"), str(tmp_path / "out/lm_weights.hdf5"))
    with torch.no_grad():
        layers = theirs(peer.batch_to_ids([TEXT.split()]))["activations"]
    batch = collate(made.codec.encode([(Part(TEXT),)]), 0, spell=made.codec.spell)
    made.encoder.eval()
    with torch.no_grad():
        ours = made.encoder(batch).layers
    for mine, his in zip(ours, layers, strict=True):
        torch.testing.assert_close(mine, his[:, 1:-1], atol=2e-6, rtol=1e-5)


def test_what_pretune_pretrained_comes_back_the_same(tmp_path: Path) -> None:
    made = pretrained(tmp_path / "model", skip_connections=False, cell_clip=None)
    export(tmp_path / "model", "bilm", tmp_path / "out")
    import_published("elmo", Published(tmp_path / "out"), tmp_path / "back")
    codec, encoder = started(tmp_path / "back")
    assert encoder.config == made.encoder_config
    assert isinstance(made.codec, ElmoCodec) and codec.vocab == made.codec.vocab
    for name, parameter in made.encoder.named_parameters():
        assert torch.equal(parameter, encoder.get_parameter(name)), name


def test_a_finetuned_folder_exports_its_bilm(tmp_path: Path) -> None:
    made = pretrained(tmp_path / "model")
    task = Classification(labels=("a", "b"))
    for recipe in (Features(), tiny.recipe("full")):
        start = replace(made, encoder=made.encoder.for_task())
        start.encoder_config = start.encoder.config
        out = tmp_path / type(recipe).__name__
        join(start, task, recipe, 0).save(out, {})
        export(out, "bilm", out / "published")
        wanted, found = tmp_path / "published", out / "published/lm_weights.hdf5"
        if not wanted.exists():
            export(tmp_path / "model", "bilm", wanted)
        assert same(bilm.arrays_of(wanted / "lm_weights.hdf5"), bilm.arrays_of(found))
        assert not (out / "published/softmax_weights.hdf5").exists()
        assert not (out / "published/vocab.txt").exists()
        assert "n_tokens_vocab" not in json.loads((out / "published/options.json").read_text())


def test_export_says_how_text_was_read(tmp_path: Path) -> None:
    pretrained(tmp_path / "model")
    notes = export(tmp_path / "model", "bilm", tmp_path / "out")
    assert "text was read by spaces (en); import with --language en --segmenter spaces" in notes


def test_a_fresh_softmax_is_announced_where_a_folder_has_none(tmp_path: Path) -> None:
    made = pretrained(tmp_path / "model")
    start = replace(made, encoder=made.encoder.for_task())
    start.encoder_config = start.encoder.config
    join(start, Classification(labels=("a", "b")), Features(), 0).save(tmp_path / "tuned", {})
    (tmp_path / "text.txt").write_text("\n".join(tiny.texts(40, 3)))
    for folder in ("model", "tuned"):
        given = ["adapt", tmp_path / folder, tmp_path / "text.txt", "--documents", "line", "--held-out", 0]
        given += ["adaptation.max_steps=2", "adaptation.streams=2", "adaptation.window=5"]
        code, _, stderr = run(*given, "--device", "cpu", "--out", tmp_path / f"{folder}-on")
        assert code == 0, stderr
        assert ("has no softmax; a fresh one is learned" in stderr) == (folder == "tuned")


def test_options_are_written_as_the_release_wrote_them() -> None:
    """The original model's, verbatim."""
    published = (
        '{"lstm": {"use_skip_connections": true, "projection_dim": 512, "cell_clip": 3, "proj_clip": 3, '
        '"dim": 4096, "n_layers": 2}, "char_cnn": {"activation": "relu", "filters": [[1, 32], [2, 32], '
        '[3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]], "n_highway": 2, "embedding": {"dim": 16}, '
        '"n_characters": 262, "max_characters_per_token": 50}}'
    )
    assert {**json.loads(published), "dropout": 0.1} == options_of(ELMoConfig(), 0)


@pytest.mark.parametrize(
    ("dim", "width", "highways", "parameters"),
    [(1024, 128, 1, 13_593_296), (2048, 256, 1, 28_027_728), (4096, 512, 2, 93_600_848)],
)
def test_published_models_have_so_many_parameters(
    dim: int, width: int, highways: int, parameters: int
) -> None:
    """Small, medium and original: 13.6, 28.0 and 93.6 million on their page."""
    table = pieces(ELMoConfig(dim, width, highways=highways), 0)
    assert sum(int(np.prod(piece.shape)) for piece in table.values()) == parameters


def test_import_and_export_from_the_command_line(tmp_path: Path) -> None:
    release = bilm.write(tmp_path / "in", bilm.OPTIONS, bilm.made_up(bilm.OPTIONS, softmax=True))
    files = ["--options", release.options, "--weights", release.weights]
    words = ["--softmax", release.softmax, "--vocab", release.vocab]
    said = ["--language", "de", "--segmenter", "spaces", "codec.split=lines"]
    out = tmp_path / "model"
    code, stdout, stderr = run("import", "elmo", *files, *words, *said, "--out", out)
    assert (code, stdout) == (0, "") and "parameters in" in stderr and f"saved in {out}" in stderr
    codec, _ = started(out)
    assert (codec.config.language, codec.config.segmenter, codec.config.split) == ("de", "spaces", "lines")
    assert codec.config.max_characters == 12
    report = json.loads((out / "run.json").read_text())
    assert report["config"]["from"]["weights"] == str(release.weights)
    assert report["config"]["method"] == "elmo" and report["notes"][0].endswith("and a softmax")
    code, _, stderr = run("import", "elmo", *files, "--out", out)
    assert code == 1 and "holds a model already" in stderr
    assert run("import", "elmo", *files, "--out", out, "--overwrite", "--quiet") == (0, "", "")
    code, _, stderr = run("export", out, "--to", "bilm", "--out", tmp_path / "out")
    assert code == 0 and "written: lm_weights.hdf5, options.json" in stderr
    code, _, stderr = run("export", out, "--to", "bilm", "--out", tmp_path / "out")
    assert code == 1 and "is there already" in stderr


def test_word_vectors_are_imported_too(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("the 1 2 3\nfilm 4 5 6\n")
    code, _, stderr = run("import", "wordvectors", tmp_path / "glove.txt", "--out", tmp_path / "model")
    assert code == 0, stderr
    start = load_start(tmp_path / "model")
    assert isinstance(start, Start) and start.method.name == "wordvectors" and start.encoder.width == 3
    code, _, stderr = run("export", tmp_path / "model", "--to", "bilm", "--out", tmp_path / "out")
    assert code == 1 and "--to bilm is a format of elmo" in stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "elmoo", "--options", "o"], "the method to import is 'elmoo'; did you mean 'elmo'?"),
        (["import", "elmo", "--options", "o"], "give the weights: --weights FILE.hdf5, or --checkpoint"),
        (["import", "elmo", "--weights", "no.hdf5"], "--options is missing: give the model's options.json"),
        (["import", "elmo", "no.zip"], "no such file: no.zip"),
        (["import", "elmo", "encoder.dim=3"], "first word is 'encoder'; did you mean 'codec'? choose"),
        (["import", "elmo", "codec.speed=3"], "codec.speed"),
        (["import", "wordvectors", "--options", "o"], "--options means nothing for wordvectors"),
        (["import", "wordvectors"], "give the file of word vectors"),
        (["export", "model", "--to", "onyx"], "--to is 'onyx'; choose one of bilm"),
        (["export", "nowhere", "--to", "bilm"], "nowhere: no such model folder"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("o").write_text("{}")
    code, _, stderr = run(*arguments, "--out", "out")
    assert code in (1, 2) and message in stderr and stderr.startswith("error: ")
    assert stderr.count("\n") == 1 and not Path("out").exists()
