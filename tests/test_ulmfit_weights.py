"""Everybody's ULMFiT comes in with the same answers, goes out to fastai, and each mistake has a name."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import textwrap
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import ulmfit_files as files
from pretune.data.rows import NOTHING, Row
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit import AWDLSTM, UlmfitCodec
from pretune.methods.ulmfit.published import read_words
from pretune.runs.importing import export, import_published
from pretune.runs.language_model import LanguageModel
from pretune.runs.predictor import Predictor
from pretune.runs.published import Published
from pretune.runs.run import load_start, load_trained
from pretune.runs.starts import Start
from pretune.runs.trained import Ensemble, TrainedModel
from pretune.tasks.classification import Classification
from pretune.tasks.next_token import NextToken, NextTokenHead
from pretune.tensors.batch import Batch, collate
from test_cli import run

COUNT = {generation: len(files.words(generation)) for generation in files.SPECIALS}
IDS = [2, 11, 9, 14, 20, 0, 17]


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
        *_split(files.write(tmp_path, make(weights), files.words(generation), legacy=legacy), tmp_path)
    )
    assert any(said in note for note in notes)
    _, encoder = started(tmp_path / "model")
    wanted = files.next_logits(weights, IDS, bias=generation != "v07")
    assert close(next_logits(encoder)[:, : COUNT[generation]], wanted)


def _split(written: tuple[Path, Path], folder: Path) -> tuple[Path, Path, Path]:
    return written[0], folder / "model", written[1]


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
    notes = take(*_split(files.write(tmp_path, QRNNS[whose](weights), files.words("v1")), tmp_path))
    assert "3 QRNNs of 8 cells" in notes[0] and any("3 stale copies" in note for note in notes)
    assert ("by salesforce" in notes[0]) == (whose == "salesforce")
    _, encoder = started(tmp_path / "model")
    assert encoder.config.cell == "qrnn"
    assert close(next_logits(encoder), files.next_logits(weights, IDS))


@pytest.mark.parametrize("bias", [True, False], ids=["biased", "unbiased"])
@pytest.mark.parametrize(("generation", "dropout"), files.PLACES)
def test_a_classifier_of_every_layout_answers_as_before(
    generation: str, dropout: bool, bias: bool, tmp_path: Path
) -> None:
    weights, over = files.lstm(COUNT[generation]), files.head(bias=bias)
    model = {"v07": files.v07, "v1": files.v1, "v2": files.v2}[generation](weights)
    written = files.write(
        tmp_path, files.classifier(model, over, generation, dropout), files.words(generation)
    )
    notes = take(*_split(written, tmp_path), labels=("bad", "so so", "good"))
    assert "a classifier of 3 labels: bad, so so, good" in notes
    assert any("have no bias" in note for note in notes) is not bias
    assert close(label_logits(tmp_path / "model"), files.label_logits(weights, over, IDS))
    trained = load_trained(tmp_path / "model")
    assert isinstance(trained.task, Classification) and trained.task.hidden == files.INNER
    assert set(trained.answers([])) == set()
    answer = Predictor.load(tmp_path / "model", "cpu").answer("the film was good")[0]
    assert answer.label in ("bad", "so so", "good")


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
    take(*_split(files.write(tmp_path, files.v2(weights), files.words("v2")), tmp_path))
    config = started(tmp_path / "model")[1].config
    assert (config.embedding, config.layers) == (files.WIDTH, layers)
    assert layers == 1 or config.hidden == hidden


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    weights = {name: x.half() for name, x in files.lstm(COUNT["v1"]).items()}
    notes = take(*_split(files.write(tmp_path, files.v1(weights), files.words("v1")), tmp_path))
    assert any("float16" in note for note in notes)
    _, encoder = started(tmp_path / "model")
    assert torch.equal(encoder.embedding_weight, weights["embedding"].float())


def test_files_of_torch_0_3_are_read(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["v07"])
    tensors = OrderedDict((name, files.Ancient(x)) for name, x in files.v07(weights).items())
    take(*_split(files.write(tmp_path, tensors, files.words("v07"), "fwd.h5", legacy=True), tmp_path))
    encoder = started(tmp_path / "model")[1]
    assert close(next_logits(encoder), files.next_logits(weights, IDS, bias=False))


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["v2"])
    save_file({n: x.clone() for n, x in files.v2(weights).items()}, tmp_path / "lstm.safetensors")
    (tmp_path / "itos.json").write_text(json.dumps(files.words("v2")))
    take(tmp_path / "lstm.safetensors", tmp_path / "model", tmp_path / "itos.json")
    assert close(next_logits(started(tmp_path / "model")[1]), files.next_logits(weights, IDS))


def test_special_tokens_get_our_names_where_they_stand(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["v07"])
    take(*_split(files.write(tmp_path, files.v07(weights), files.words("v07")), tmp_path))
    codec, encoder = started(tmp_path / "model")
    ours = ["xxunk", "xxpad", "xxbos", "xxfld", "xxup", "xxrep", "xxwrep"]
    assert list(codec.vocab.words) == [*ours, *files.words("v07")[len(ours) :]]
    assert torch.equal(encoder.embedding_weight, weights["embedding"])
    assert codec.config.rules == "v07"
    assert codec.ids(["the film"])[0][-2:] == [codec.vocab.ids["the"], codec.vocab.ids["film"]]


@pytest.mark.parametrize(
    ("itos", "expected"),
    [
        (files.words("v07"), "v07"),
        (files.words("v1"), "v1"),
        (files.words("v2"), "v2"),
        (["xxunk", "xxpad", "xxbos", "xxfld", "xxup", "xxrep", "xxwrep", *files.ORDINARY], "v1"),
    ],
    ids=["0.7", "1", "2", "1 in its first days"],
)
def test_the_vocabulary_tells_by_whose_rules_texts_were_read(
    itos: list[str], expected: str, tmp_path: Path
) -> None:
    tensors = files.v2(files.lstm(len(itos)))
    path, vocab = files.write(tmp_path, tensors, itos)
    take(path, tmp_path / "told", vocab, codec={"language": "de"})
    codec = started(tmp_path / "told")[0]
    assert (codec.config.rules, codec.config.language) == (expected, "de")
    take(path, tmp_path / "said", vocab, codec={"rules": "v07"})
    assert started(tmp_path / "said")[0].config.rules == "v07"


def test_without_any_sign_the_layout_decides_and_says_so(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path, files.v07(files.lstm(len(files.ORDINARY))), files.ORDINARY)
    notes = take(path, tmp_path / "model", vocab)
    assert any("does not tell by whose rules texts were read; v07 is taken" in note for note in notes)


def test_needed_tokens_that_a_vocabulary_lacks_are_added_as_the_mean_word(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["salesforce"])
    notes = take(
        *_split(files.write(tmp_path, files.salesforce(weights), files.words("salesforce")), tmp_path)
    )
    assert "the vocabulary has no xxpad; added at its end, as the mean of all words" in notes
    codec, encoder = started(tmp_path / "model")
    assert codec.vocab.words[:2] == ("xxunk", "xxbos") and codec.pad_id == COUNT["salesforce"]
    assert torch.equal(encoder.embedding_weight[:-1], weights["embedding"])
    assert close(encoder.embedding_weight[-1], weights["embedding"].mean(0))
    assert close(encoder.decoder_bias[-1], weights["bias"].mean())


def test_words_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    itos = files.words("v2")
    stoi = {word: number for number, word in enumerate(itos)}

    def read(name: str, data: bytes | str) -> list[str]:
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_words(path).words

    for number, found in enumerate((itos, tuple(itos), stoi, dict(enumerate(itos)), OrderedDict(stoi))):
        assert read(f"{number}.pkl", pickle.dumps(found)) == itos
    assert read("counted.pkl", pickle.dumps(defaultdict(int, stoi))) == itos
    assert read("list.json", json.dumps(itos)) == read("ids.json", json.dumps(stoi)) == itos
    assert read("words.txt", "\n".join(itos)) == read("more.txt", "\r\n".join(itos) + "\r\n") == itos
    assert read("quotes.txt", 'the\n"\nxxunk\n') == ["the", '"', "xxunk"]
    assert read("spm.vocab", "".join(f"{word}\t-3.2\n" for word in itos)) == itos


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_fastcores_lists_are_read_without_fastcore(protocol: int, tmp_path: Path) -> None:
    foundation = pytest.importorskip("fastcore.foundation", reason="needs fastcore, which fastai brings")
    transforms = pytest.importorskip("fastai.data.transforms", reason="needs fastai, a test oracle")
    both = foundation.L([foundation.L(files.words("v2")), transforms.CategoryMap(["neg", "pos"])])
    (tmp_path / "dls.pkl").write_bytes(pickle.dumps(both, protocol=protocol))
    assert read_words(tmp_path / "dls.pkl") == (files.words("v2"), ("neg", "pos"))


class Whole(torch.nn.Linear):
    """A model pickled whole."""


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("false",)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Evil(), "a pickle of (posix|nt).system, which is not read: its code would have to run"),
        ({"a": 0, "b": 2}, "its ids are not the numbers 0 to 1, each once"),
        ([["a", 3], ["neg"]], "id 1 is '3', which is no word"),
        ([], r"holds '\[\]', no list of words"),
        (b"rubbish", "holds .*rubbish.*, no list of words"),
    ],
    ids=["code", "gaps", "numbers", "empty", "bytes"],
)
def test_vocabularies_that_are_none_are_refused(found: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "itos.pkl").write_bytes(pickle.dumps(found))
    with pytest.raises(UserError, match=message):
        read_words(tmp_path / "itos.pkl")


def test_broken_vocabularies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "itos.pkl").write_bytes(pickle.dumps(files.words("v2"))[:-30])
    with pytest.raises(UserError, match="not a pickle, or damaged"):
        read_words(tmp_path / "itos.pkl")
    (tmp_path / "itos.json").write_text("[")
    with pytest.raises(UserError, match="not JSON"):
        read_words(tmp_path / "itos.json")


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    """fastai 2's file with some tensors changed, or gone."""
    found = {**files.v2(files.lstm(COUNT["v2"])), **{n: x for n, x in changes.items() if x is not None}}
    return {name: x for name, x in found.items() if name not in changes or changes[name] is not None}


WEIGHTS = files.lstm(COUNT["v2"])
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


def test_words_and_rows_must_be_as_many(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path, files.v2(WEIGHTS), files.words("v2")[:-1])
    with pytest.raises(UserError, match=f"has {COUNT['v2'] - 1} words, .* rows for {COUNT['v2']}"):
        take(path, tmp_path / "model", vocab)
    with pytest.raises(UsageError, match=r"--vocab is missing: .* such as .*itos.pkl"):
        take(path, tmp_path / "model")


def test_a_head_of_another_kind_is_refused_unless_it_is_left_out(tmp_path: Path) -> None:
    tensors = files.classifier(files.v2(WEIGHTS), files.head(), "v2")
    whole = {**tensors, "1.layers.1.3.weight": torch.zeros(2, 2)}
    path, vocab = files.write(tmp_path, whole, files.words("v2"))
    with pytest.raises(UserError, match=r"its head is norm, linear, norm, linear, linear; .*--encoder-only"):
        take(path, tmp_path / "model", vocab)
    take(path, tmp_path / "model", vocab, encoder_only=True)
    for name, shape, message in (
        ("1.layers.1.0.bias", (4,), r"a batch norm has the bias \[4\], expected \[5\]"),
        ("1.layers.1.2.weight", (3, 4), r"a linear layer has the weight \[3, 4\], expected \[3, 5\]"),
    ):
        path, _ = files.write(tmp_path, {**tensors, name: torch.zeros(shape)})
        with pytest.raises(UserError, match=message):
            take(path, tmp_path / "other", vocab)


def test_heads_of_one_block_or_three_are_read(tmp_path: Path) -> None:
    over = files.head()
    for name, kept, hidden in (("one", ("n0", "l0"), ()), ("three", ("n0", "l0", "n1", "l1"), (5, 3))):
        tensors = files.classifier(files.v2(WEIGHTS), over, "v2")
        if name == "one":
            tensors = {n: x for n, x in tensors.items() if not n.startswith("1.layers.1.")}
        else:
            block = {n.replace("layers.1.", "layers.2."): x for n, x in tensors.items() if "layers.1." in n}
            third = {n: x[..., :3].clone() if x.dim() else x for n, x in block.items()}
            tensors |= third
        path, vocab = files.write(tmp_path / name, tensors, files.words("v2"))
        take(path, tmp_path / name / "model", vocab)
        assert load_trained(tmp_path / name / "model").task.hidden == hidden  # type: ignore[attr-defined]
        assert kept and label_logits(tmp_path / name / "model").isfinite().all()


def test_labels_are_named_counted_or_come_with_the_words(tmp_path: Path) -> None:
    tensors = files.classifier(files.v2(WEIGHTS), files.head(), "v2")
    path, vocab = files.write(tmp_path, tensors, files.words("v2"))
    assert any("called 0 to 2; --labels says" in note for note in take(path, tmp_path / "plain", vocab))
    with pytest.raises(UsageError, match="there are 2 labels, but the head gives 3 scores"):
        take(path, tmp_path / "model", vocab, labels=("neg", "pos"))
    with pytest.raises(UsageError, match="names one twice"):
        take(path, tmp_path / "model", vocab, labels=("a", "b", "a"))
    with pytest.raises(UsageError, match="number, but the head gives 3"):
        take(path, tmp_path / "model", vocab, task={"kind": "number"})
    with pytest.raises(UsageError, match=r"task.hidden are said by the file"):
        take(path, tmp_path / "model", vocab, task={"hidden": 7})
    take(path, tmp_path / "many", vocab, labels=("a", "b", "c"), task={"kind": "many"})
    answer = Predictor.load(tmp_path / "many", "cpu").answer("a film")[0]
    assert answer.labels is not None and set(answer.scores) == {"a", "b", "c"}
    vocab.write_bytes(pickle.dumps([files.words("v2"), ["x", "y", "z"]]))
    assert "a classifier of 3 labels: x, y, z" in take(path, tmp_path / "along", vocab)
    lm, _ = files.write(tmp_path, files.v2(WEIGHTS), name="lm.pth")
    with pytest.raises(UsageError, match="for classifiers; these weights have no head"):
        take(lm, tmp_path / "model", vocab, labels=("a",))


def test_one_score_is_a_number(tmp_path: Path) -> None:
    over = files.head(outputs=1)
    tensors = files.classifier(files.v2(WEIGHTS), over, "v2")
    take(*_split(files.write(tmp_path, tensors, files.words("v2")), tmp_path), task={"y_range": (1.0, 5.0)})
    value = Predictor.load(tmp_path / "model", "cpu").answer("a film")[0].value
    assert value is not None and 1 < value < 5


def test_what_the_file_says_cannot_be_set_and_the_rest_can(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path, files.v2(WEIGHTS), files.words("v2"))
    with pytest.raises(UsageError, match=r"encoder.hidden is said by the file"):
        take(path, tmp_path / "model", vocab, encoder={"hidden": 9})
    take(path, tmp_path / "model", vocab, encoder={"max_len": 99})
    assert started(tmp_path / "model")[1].config.max_len == 99


def release(folder: Path, **models: Mapping[str, Tensor]) -> Path:
    """Files by their names as keywords: fwd__lstm is fwd/lstm.pth."""
    for name, tensors in models.items():
        path = folder / f"{name.replace('__', '/')}.pth"
        files.write(path.parent, tensors, files.words("v2"), path.name)
    return folder


def test_a_release_is_found_in_a_folder_a_tar_or_a_zip(tmp_path: Path) -> None:
    folder = release(tmp_path / "wt103", lm_best=files.v2(WEIGHTS), enc_best=files.encoder(files.v2(WEIGHTS)))
    with tarfile.open(tmp_path / "wt103.tgz", "w:gz") as tar:
        tar.add(folder, "wt103")
    with zipfile.ZipFile(tmp_path / "wt103.zip", "w") as packed:
        for path in folder.iterdir():
            packed.write(path, f"a/b/{path.name}")
    for source in (folder, tmp_path / "wt103.tgz", tmp_path / "wt103.zip"):
        out = tmp_path / f"model of {source.name}"
        take(source, out)
        assert close(next_logits(started(out)[1]), files.next_logits(WEIGHTS, IDS))


def test_members_of_an_archive_stay_in_their_place(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path / "in", files.v2(WEIGHTS), files.words("v2"))
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as packed:
        packed.write(path, "../../evil.pth")
        packed.write(path, "/lstm.pth")
        packed.write(vocab, "itos.pkl")
    take(tmp_path / "evil.zip", tmp_path / "model")
    (tmp_path / "evil.tgz").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="not an archive that can be read"):
        take(tmp_path / "evil.tgz", tmp_path / "other")


def test_salesforces_models_read_text_as_it_is_line_by_line(tmp_path: Path) -> None:
    itos = ["<unk>", "<eos>", "The", "film", "was", "good", "GOOD", "."]
    path, vocab = files.write(tmp_path, files.salesforce(files.lstm(len(itos))), itos)
    notes = take(path, tmp_path / "model", vocab)
    assert any("plain is taken for a file laid out like this" in note for note in notes)
    codec = started(tmp_path / "model")[0]
    assert codec.ids([" The film was GOOD.\n\nthe film <unk> good\n"]) == [[1, 2, 3, 4, 6, 7, 1, 0, 3, 0, 5]]
    assert "without text rules" in codec.describe()


def trained_pieces(place: Path, **options: Any) -> Path:
    trainer = pytest.importorskip("sentencepiece", reason="needs SentencePiece's trainer (extra pieces)")
    model = io.BytesIO()
    trainer.SentencePieceTrainer.train(
        sentence_iterator=iter(["the film was good and bad", "a dull book but a great plot"] * 30),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    place.write_bytes(model.getvalue())
    return place


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model with fastai 1's special tokens, as MultiFiT trained them."""
    return trained_pieces(
        tmp_path_factory.mktemp("pieces") / "spm.model",
        vocab_size=60,
        user_defined_symbols=[f"▁{token}" for token in files.SPECIALS["v1"]],
        unk_id=len(files.SPECIALS["v1"]),
        pad_id=-1,
        bos_id=-1,
        eos_id=-1,
    )


def processor(spm: Path) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(spm))


@pytest.mark.parametrize("listed", [False, True], ids=["pieces alone", "with itos.pkl"])
def test_multifits_release_reads_text_by_its_pieces(listed: bool, spm: Path, tmp_path: Path) -> None:
    known = processor(spm)
    itos = [known.id_to_piece(number) for number in range(known.get_piece_size())]
    weights = files.qrnn(len(itos))
    folder = tmp_path / "de"
    files.write(folder, files.multifit(weights), itos if listed else None, "lm_best.pth")
    (folder / "spm.model").write_bytes(spm.read_bytes())
    notes = take(folder, tmp_path / "model", codec={"language": "de"})
    assert "xxfld 1 stands before texts, as in MultiFiT; codec.mark_fields=false leaves it out" in notes
    codec, encoder = started(tmp_path / "model")
    assert (codec.config.segmenter, codec.config.rules) == ("pieces", "v1")
    text = "The film was good, xyz"
    wanted = known.encode("xxbos xxfld 1 xxmaj the film was good, xyz")
    assert codec.ids([text]) == [wanted] and known.unk_id() in wanted
    assert (codec.unknown_id, codec.pad_id) == (known.unk_id(), 1)
    assert close(next_logits(encoder, wanted), files.next_logits(weights, wanted))


def test_special_tokens_that_stand_there_twice_are_read_as_the_piece(spm: Path, tmp_path: Path) -> None:
    known = processor(spm)
    pieces = [known.id_to_piece(number) for number in range(known.get_piece_size())]
    itos = [*files.SPECIALS["v2"], *reversed(pieces)]  # fastai 2 counts its words anew
    folder = tmp_path / "nl"
    files.write(folder, files.v2(files.lstm(len(itos))), itos, "lm.pth")
    (folder / "spm.model").write_bytes(spm.read_bytes())
    take(folder, tmp_path / "model", codec={"language": "nl"})
    codec = started(tmp_path / "model")[0]
    assert (codec.unknown_id, codec.pad_id) == (0, 1)
    theirs = known.encode("xxbos xxmaj the film was good, xyz", out_type=str)
    wanted = [itos.index(piece) if piece in itos else 0 for piece in theirs]
    assert codec.ids(["The film was good, xyz"]) == [wanted] and 0 in wanted
    export(tmp_path / "model", "fastai", tmp_path / "out")
    assert pickle.loads((tmp_path / "out/itos.pkl").read_bytes()) == itos


def test_tf2_ulmfits_folder_has_what_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "en35k"
    for name in ("keras_weights/en.index", "saved_model/saved_model.pb", "spm_model/en.vocab"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"")
    spm = trained_pieces(folder / "spm_model/en.model", vocab_size=35, unk_id=0, pad_id=1, bos_id=2, eos_id=3)
    known = processor(spm)
    weights = files.lstm(known.get_piece_size())
    files.write(folder / "fastai_model", {"model": files.v2(weights), "opt": {}}, name="en.pth")
    take(folder, tmp_path / "model")
    codec, encoder = started(tmp_path / "model")
    wanted = known.encode("the film was Good, and bad", add_bos=True)
    assert codec.ids(["the film was Good, and bad"]) == [wanted] and codec.config.rules == "plain"
    assert close(next_logits(encoder, wanted), files.next_logits(weights, wanted))


def test_two_directions_of_a_release_become_one_folder(tmp_path: Path) -> None:
    back = files.lstm(COUNT["v2"], seed=5)
    folder = release(tmp_path / "de", fwd__model=files.v2(WEIGHTS), bwd__model=files.v2(back))
    notes = take(folder, tmp_path / "both")
    assert notes[0].startswith("forward: ") and any(note.startswith("backward: ") for note in notes)
    starts = load_start(tmp_path / "both")
    assert isinstance(starts, list) and [start.name for start in starts] == ["forward", "backward"]
    for way, weights in (("forward", WEIGHTS), ("backward", back)):
        take(folder, tmp_path / way, codec={"direction": way})
        codec, encoder = started(tmp_path / way)
        assert codec.config.direction == way
        assert close(next_logits(encoder), files.next_logits(weights, IDS))
    take(folder / "bwd/model.pth", tmp_path / "named", folder / "bwd/itos.pkl")
    assert started(tmp_path / "named")[0].config.direction == "backward"


def test_two_classifiers_answer_together(tmp_path: Path) -> None:
    over = files.head()
    for name, seed in (("one", 0), ("two", 5)):
        tensors = files.classifier(files.v2(files.lstm(COUNT["v2"], seed)), over, "v2")
        path, vocab = files.write(tmp_path, tensors, files.words("v2"), f"{name}.pth")
        take(path, tmp_path / name, vocab, codec={"direction": "backward" if seed else "forward"})
    take(tmp_path / "one.pth", tmp_path / "both", vocab, backward=tmp_path / "two.pth")
    assert isinstance(load_trained(tmp_path / "both"), Ensemble)
    said = {
        n: Predictor.load(tmp_path / n, "cpu").answer("a good film")[0].scores for n in ("one", "two", "both")
    }
    for label, share in said["both"].items():
        assert share == pytest.approx((said["one"][label] + said["two"][label]) / 2)
    lm, _ = files.write(tmp_path, files.v2(WEIGHTS), name="lm.pth")
    with pytest.raises(UserError, match="one of the two is a classifier"):
        take(lm, tmp_path / "other", vocab, backward=tmp_path / "two.pth")


def test_what_a_folder_leaves_open_is_asked(tmp_path: Path) -> None:
    folder = release(tmp_path / "two", lm_a=files.v2(WEIGHTS), lm_b=files.v2(WEIGHTS))
    with pytest.raises(UserError, match=r"holds lm_a.pth, lm_b.pth; give the one that is meant"):
        take(folder, tmp_path / "model")
    (folder / "lm_b.pth").unlink()
    (folder / "vocab.pkl").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds itos.pkl, vocab.pkl; say which one with --vocab"):
        take(folder, tmp_path / "model")
    with pytest.raises(UsageError, match="both wants two models"):
        take(folder, tmp_path / "model", folder / "itos.pkl", codec={"direction": "both"})
    (folder / "lm_a.pth").rename(folder / "lm_fwd.pth")
    with pytest.raises(UsageError, match="holds a forward model only, and --direction is backward"):
        take(folder, tmp_path / "model", folder / "itos.pkl", codec={"direction": "backward"})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no weights of ULMFiT"):
        take(empty, tmp_path / "model")
    (empty / "model.index").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds model.index, weights of Keras"):
        take(empty, tmp_path / "model")


def test_what_was_exported_comes_back_to_the_bit(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path, files.v2(WEIGHTS), files.words("v2"))
    take(path, tmp_path / "model", vocab)
    notes = export(tmp_path / "model", "fastai", tmp_path / "out")
    assert notes[-1] == "written: README.txt, encoder_fwd.pth, itos.pkl, lstm_fwd.pth"
    back = torch.load(tmp_path / "out/lstm_fwd.pth", weights_only=True)
    wanted = files.v2(WEIGHTS)
    assert list(back) == list(wanted)
    assert all(torch.equal(back[name], x) for name, x in wanted.items())
    assert back["1.decoder.weight"].data_ptr() == back["0.encoder.weight"].data_ptr()
    assert pickle.loads((tmp_path / "out/itos.pkl").read_bytes()) == files.words("v2")
    take(tmp_path / "out", tmp_path / "again")
    same_folders(tmp_path / "model", tmp_path / "again")
    with pytest.raises(UserError, match="is there already"):
        export(tmp_path / "model", "fastai", tmp_path / "out")


def same_folders(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "vocab.txt", "codec.json", "config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_classifier_goes_round_with_its_labels(tmp_path: Path) -> None:
    tensors = files.classifier(files.v2(WEIGHTS), files.head(bias=False), "v2")
    path, vocab = files.write(tmp_path, tensors, files.words("v2"))
    take(path, tmp_path / "model", vocab, labels=("a", "b", "c"))
    notes = export(tmp_path / "model", "fastai", tmp_path / "out")
    assert notes[-1] == "written: README.txt, classifier_fwd.pth, encoder_fwd.pth, vocab.pkl"
    back = torch.load(tmp_path / "out/classifier_fwd.pth", weights_only=True)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], x) for name, x in tensors.items())
    take(tmp_path / "out", tmp_path / "again")
    same_folders(tmp_path / "model", tmp_path / "again")


def test_two_directions_go_round(tmp_path: Path) -> None:
    back = files.v2(files.lstm(COUNT["v2"], seed=5))
    take(release(tmp_path / "de", fwd__m=files.v2(WEIGHTS), bwd__m=back), tmp_path / "both")
    export(tmp_path / "both", "fastai", tmp_path / "out")
    take(tmp_path / "out", tmp_path / "again")
    for way in ("forward", "backward"):
        same_folders(tmp_path / "both" / way, tmp_path / "again" / way)


def test_biases_that_fastais_head_has_not_move_into_its_norms(tmp_path: Path) -> None:
    over = files.head()
    tensors = files.classifier(files.v2(WEIGHTS), over, "v2")
    path, vocab = files.write(tmp_path, tensors, files.words("v2"))
    take(path, tmp_path / "model", vocab)
    assert any(
        "moved into the batch norms" in note
        for note in export(tmp_path / "model", "fastai", tmp_path / "out")
    )
    back = torch.load(tmp_path / "out/classifier_fwd.pth", weights_only=True)
    assert not any("layers" in name and name.endswith("2.bias") for name in back)
    take(tmp_path / "out", tmp_path / "again")
    assert close(label_logits(tmp_path / "again"), files.label_logits(WEIGHTS, over, IDS))
    wide = files.head(outputs=files.INNER + 2)
    path, _ = files.write(tmp_path, files.classifier(files.v2(WEIGHTS), wide, "v2"))
    take(path, tmp_path / "wide", vocab)
    with pytest.raises(UserError, match="from 5 to 7 values cannot be moved"):
        export(tmp_path / "wide", "fastai", tmp_path / "other")


def test_unknown_words_and_padding_go_where_fastai_has_them(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["salesforce"])
    path, vocab = files.write(tmp_path, files.salesforce(weights), files.words("salesforce"))
    take(path, tmp_path / "model", vocab)
    notes = export(tmp_path / "model", "fastai", tmp_path / "out")
    assert any("moved to the ids 0 and 1" in note for note in notes)
    itos = pickle.loads((tmp_path / "out/itos.pkl").read_bytes())
    assert itos[:3] == ["xxunk", "xxpad", "xxbos"] and len(itos) == COUNT["salesforce"] + 1
    back = torch.load(tmp_path / "out/lstm_fwd.pth", weights_only=True)
    assert torch.equal(back["0.encoder.weight"][2:], weights["embedding"][1:])


def test_what_fastai_cannot_hold_is_refused(tmp_path: Path) -> None:
    weights = files.qrnn(COUNT["v1"])
    take(*_split(files.write(tmp_path, files.multifit(weights), files.words("v1")), tmp_path))
    with pytest.raises(UserError, match=r"fastai 2.8 has no QRNN"):
        export(tmp_path / "model", "fastai", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="bilm is a format of elmo"):
        export(tmp_path / "model", "bilm", tmp_path / "out")


def theirs() -> Any:
    """fastai's own AWD-LSTM."""
    return pytest.importorskip("fastai.text.all", reason="needs fastai, a test oracle")


def shaped(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "emb_sz": files.WIDTH, "n_hid": files.HIDDEN, "n_layers": files.LAYERS}


def test_one_file_says_the_same_in_fastai_and_here(tmp_path: Path) -> None:
    text = theirs()
    torch.manual_seed(3)
    model = text.get_language_model(text.AWD_LSTM, COUNT["v2"], shaped(text.awd_lstm_lm_config))
    path, vocab = files.write(tmp_path, {"model": model.state_dict(), "opt": None}, files.words("v2"))
    take(path, tmp_path / "model", vocab)
    model.eval()
    encoder = started(tmp_path / "model")[1]
    for ids in (IDS, [2], list(range(30)) * 4):
        model.reset()
        assert close(next_logits(encoder, ids), model(torch.tensor([ids]))[0][0])
    export(tmp_path / "model", "fastai", tmp_path / "out")
    fresh = text.get_language_model(text.AWD_LSTM, COUNT["v2"], shaped(text.awd_lstm_lm_config))
    fresh.load_state_dict(torch.load(tmp_path / "out/lstm_fwd.pth", weights_only=True))
    assert all(torch.equal(x, fresh.state_dict()[name]) for name, x in model.state_dict().items())
    alone = text.get_language_model(text.AWD_LSTM, COUNT["v2"], shaped(text.awd_lstm_lm_config))[0]
    alone.load_state_dict(torch.load(tmp_path / "out/encoder_fwd.pth", weights_only=True))


@pytest.mark.parametrize("head", [False, True], ids=["language model", "classifier"])
def test_what_the_readme_says_loads(head: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs()
    tensors = files.v2(WEIGHTS)
    tensors = files.classifier(tensors, files.head(bias=False), "v2") if head else tensors
    take(*_split(files.write(tmp_path, tensors, files.words("v2")), tmp_path))
    export(tmp_path / "model", "fastai", tmp_path / "out")
    lines = (tmp_path / "out/README.txt").read_text().split("\n\n")
    code = "\n\n".join(block for block in lines if block.startswith("    ") and "learner" not in block)
    monkeypatch.chdir(tmp_path / "out")
    scope: dict[str, Any] = {}
    exec(textwrap.dedent(code), scope)
    found = scope["model"].state_dict()
    assert all(torch.equal(found[name], x) for name, x in tensors.items())


def test_a_learners_own_file_with_its_optimizer_is_read(tmp_path: Path) -> None:
    text = theirs()
    model = text.get_language_model(text.AWD_LSTM, COUNT["v2"], shaped(text.awd_lstm_lm_config))
    optimizer = text.Adam(model.parameters(), lr=1e-3)
    text.save_model(tmp_path / "learn.pth", model, optimizer)
    _, vocab = files.write(tmp_path, {}, files.words("v2"))
    take(tmp_path / "learn.pth", tmp_path / "model", vocab)
    weight = started(tmp_path / "model")[1].embedding_weight
    assert torch.equal(weight, model.state_dict()["0.encoder.weight"])


@pytest.mark.parametrize("multiplier", [1.0, 0.0], ids=["dropout", "no dropout"])
def test_one_classifier_says_the_same_in_fastai_and_here(multiplier: float, tmp_path: Path) -> None:
    text = theirs()
    torch.manual_seed(4)
    config = shaped(text.awd_lstm_clas_config)
    ps = None if multiplier else [0.0]
    options = {"config": config, "lin_ftrs": [files.INNER], "ps": ps}
    config["output_p"] *= multiplier

    def make() -> Any:
        return text.get_text_classifier(text.AWD_LSTM, COUNT["v2"], 2, **options)

    model = make()
    for module in model[1].modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    path, vocab = files.write(tmp_path, model.state_dict(), files.words("v2"))
    take(path, tmp_path / "model", vocab, labels=("neg", "pos"))
    model.eval()
    for ids in (IDS, [2], list(range(30)) * 9):
        model.reset()
        assert close(label_logits(tmp_path / "model", ids), model(torch.tensor([ids]))[0][0])
    if multiplier:
        export(tmp_path / "model", "fastai", tmp_path / "out")
        make().load_state_dict(torch.load(tmp_path / "out/classifier_fwd.pth", weights_only=True))


def test_the_commands_import_answer_and_export(tmp_path: Path) -> None:
    tensors = files.classifier(files.v1(WEIGHTS), files.head(), "v1")
    path, vocab = files.write(tmp_path, tensors, files.words("v1"), "clas.pth")
    out = tmp_path / "model"
    code, _, said = run("import", "ulmfit", path, "--vocab", vocab, "--labels", "a,b,c", "--out", out)
    assert code == 0 and "laid out as by fastai 1" in said and "a classifier of 3 labels: a, b, c" in said
    (tmp_path / "in.txt").write_text("a good film\nbad\n")
    code, answers, _ = run("predict", out, tmp_path / "in.txt", "--device", "cpu")
    assert code == 0 and [json.loads(line)["label"] in "abc" for line in answers.splitlines()] == [True] * 2
    code, _, said = run("export", out, "--to", "fastai", "--out", tmp_path / "fastai")
    assert code == 0 and "classifier_fwd.pth" in said
    assert "classifier_fwd.pth" in (tmp_path / "fastai/README.txt").read_text()
    code, _, said = run("import", "ulmfit", path, "--vocab", vocab, "--rules", "v3", "--out", tmp_path / "x")
    assert code == 2 and "--rules is 'v3'" in said
    code, _, said = run("import", "ulmfit", path, "--options", path, "--out", tmp_path / "x")
    assert code == 2 and "--options means nothing for ulmfit" in said
    code, _, said = run("import", "ulmfit", "--out", tmp_path / "x")
    assert code == 2 and "give the file of weights" in said


def test_an_imported_language_model_is_scored_as_torch_scores_it(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path, files.v2(WEIGHTS), files.words("v2"))
    take(path, tmp_path / "model", vocab)
    model = LanguageModel.load(tmp_path / "model", "cpu")
    ids = started(tmp_path / "model")[0].ids(["the film was good"])[0]
    wanted = files.next_logits(WEIGHTS, ids).log_softmax(1)
    nats = [float(wanted[t, after]) for t, after in enumerate(ids[1:])]
    assert model.score(["the film was good"])[0].forward == pytest.approx(nats, rel=1e-4)
