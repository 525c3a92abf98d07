"""Everybody's classifiers answer as before, and ask for what their files do not say."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import ulmfit_files as files
from pretune.errors import UsageError, UserError
from pretune.runs.predictor import Predictor
from pretune.runs.run import load_trained
from pretune.tasks.classification import Classification
from ulmfit_models import COUNT, IDS, WEIGHTS, close, label_logits, split, take


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
    notes = take(*split(written, tmp_path), labels=("bad", "so so", "good"))
    assert "a classifier of 3 labels: bad, so so, good" in notes
    assert any("have no bias" in note for note in notes) is not bias
    assert close(label_logits(tmp_path / "model"), files.label_logits(weights, over, IDS))
    trained = load_trained(tmp_path / "model")
    assert isinstance(trained.task, Classification) and trained.task.hidden == files.INNER
    assert set(trained.answers([])) == set()
    answer = Predictor.load(tmp_path / "model", "cpu").answer("the film was good")[0]
    assert answer.label in ("bad", "so so", "good")


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
    with pytest.raises(UsageError, match=r"task.hidden is said by the file"):
        take(path, tmp_path / "model", vocab, task={"hidden": 7})
    with pytest.raises(UsageError, match=r"task.labels is --labels here"):
        take(path, tmp_path / "model", vocab, task={"labels": ("a", "b", "c")})
    with pytest.raises(UsageError, match=r"task.pair=siamese compares two texts"):
        take(path, tmp_path / "model", vocab, task={"pair": "siamese"})
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
    take(*split(files.write(tmp_path, tensors, files.words("v2")), tmp_path), task={"y_range": (1.0, 5.0)})
    value = Predictor.load(tmp_path / "model", "cpu").answer("a film")[0].value
    assert value is not None and 1 < value < 5
    with pytest.raises(UsageError, match=r"one label alone would always be the answer; task.kind=many"):
        take(*split(files.write(tmp_path, tensors, files.words("v2")), tmp_path / "other"), labels=("good",))
