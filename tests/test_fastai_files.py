"""What goes out to fastai loads there, says the same, and comes back to the bit."""

from __future__ import annotations

import json
import pickle
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import ulmfit_files as files
from pretune.errors import UserError
from pretune.runs.importing import export
from test_cli import run
from ulmfit_models import COUNT, IDS, WEIGHTS, close, label_logits, next_logits, release, split, started, take


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
    take(*split(files.write(tmp_path, files.multifit(weights), files.words("v1")), tmp_path))
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
    take(*split(files.write(tmp_path, tensors, files.words("v2")), tmp_path))
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
