"""Interop: ELMo and AWD-LSTM behind the Auto classes of transformers, with the numbers of pretune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from pretune.data.samples import Sample, sample
from pretune.errors import UsageError, UserError
from pretune.runs.embedder import Embedder
from pretune.runs.importing import export
from pretune.runs.run import finetune
from pretune.runs.starts import save_start
from pretune.runs.trained import TrainedModel
from pretune.tasks.classification import Classification
from pretune.training.loop import Fitting

transformers = pytest.importorskip("transformers", reason="pip install 'pretune[hf]'")
import pretune.interop.transformers as interop  # noqa: E402

QUIET = Fitting(device="cpu", quiet=True)
SAMPLES = tiny.labelled(12)
TEXTS = ["a good film", "the book was not dull , but poor", "plot", "It was great"]
METHODS = ["elmo", "ulmfit"]


def exported(method: str, folder: Path) -> Path:
    """A pretrained folder as transformers has it."""
    save_start(tiny.start(method), folder / method, {})
    export(folder / method, "transformers", folder / "exported")
    return folder / "exported"


def classifier(
    method: str, folder: Path, samples: list[Sample] = SAMPLES, recipe: str = "full", **task: Any
) -> tuple[Path, TrainedModel]:
    asked = Classification.of(samples, **task)
    model, _ = finetune(tiny.start(method), asked, tiny.recipe(recipe), samples, [], QUIET)
    assert isinstance(model, TrainedModel)
    model.save(folder / "model", {})
    export(folder / "model", "transformers", folder / "exported")
    return folder / "exported", model


def opened(folder: Path, auto: str = "AutoModel") -> tuple[Any, Any]:
    return transformers.AutoTokenizer.from_pretrained(folder), getattr(transformers, auto).from_pretrained(
        folder
    )


@pytest.mark.parametrize("method", METHODS)
def test_automodel_gives_the_vectors_that_embed_gives(method: str, tmp_path: Path) -> None:
    words, model = opened(exported(method, tmp_path))
    embedder = Embedder.load(tmp_path / method, device="cpu")
    summaries = embedder.embed(TEXTS, "summary")
    with torch.no_grad():
        out = model(**words(TEXTS, padding=True, return_tensors="pt"), output_hidden_states=True)
    assert torch.allclose(out.pooler_output, torch.from_numpy(np.stack(summaries)), atol=1e-6)
    assert len(out.hidden_states) == len(embedder.encoder.layer_widths())
    for n, text in enumerate(TEXTS):
        (top,) = embedder.embed([text], "top")
        ids = words(text, return_tensors="pt")
        with torch.no_grad():
            alone = model(**ids).last_hidden_state[0]
        assert torch.allclose(alone, out.last_hidden_state[n, : len(alone)], atol=1e-6)
        assert torch.allclose(alone[-len(top) :], torch.as_tensor(top), atol=1e-6)


@pytest.mark.parametrize("recipe", ["full", "features"])
@pytest.mark.parametrize("method", METHODS)
def test_a_classifier_answers_in_a_pipeline_as_it_did(method: str, recipe: str, tmp_path: Path) -> None:
    folder, model = classifier(method, tmp_path, recipe=recipe)
    words, theirs = opened(folder, "AutoModelForSequenceClassification")
    pipe = transformers.pipeline("text-classification", model=theirs, tokenizer=words, top_k=None)
    wanted = model.answers([sample(text) for text in TEXTS])
    for batch_size in (1, 3):
        for scores, answer in zip(pipe(TEXTS, batch_size=batch_size), wanted, strict=True):
            assert {one["label"]: one["score"] for one in scores} == pytest.approx(answer.scores, abs=1e-6)


def test_the_pipeline_opens_a_folder_by_its_name(tmp_path: Path) -> None:
    folder, model = classifier("ulmfit", tmp_path)
    pipe = transformers.pipeline("text-classification", model=str(folder))
    (answer,) = model.answers([sample(TEXTS[0])])
    assert pipe(TEXTS[0])[0]["label"] == answer.label


def test_pairs_are_read_as_pairs(tmp_path: Path) -> None:
    pairs = [sample(s.texts[0], "the book", gold=s.gold) for s in SAMPLES]
    for method in METHODS:
        folder, model = classifier(method, tmp_path / method, pairs)
        words, theirs = opened(folder, "AutoModelForSequenceClassification")
        ids = words(["a film", "the plot was bad"], ["the book", "a"], padding=True, return_tensors="pt")
        with torch.no_grad():
            found = theirs(**ids).logits.softmax(-1)
        wanted = model.answers([sample("a film", "the book"), sample("the plot was bad", "a")])
        for one, answer in zip(found, wanted, strict=True):
            assert dict(zip(model.task.labels, one.tolist())) == pytest.approx(answer.scores, abs=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_again_is_equal(method: str, tmp_path: Path) -> None:
    folder, _ = classifier(method, tmp_path)
    words, model = opened(folder, "AutoModelForSequenceClassification")
    model.save_pretrained(tmp_path / "again")
    words.save_pretrained(tmp_path / "again")
    again, other = opened(tmp_path / "again", "AutoModelForSequenceClassification")
    one, two = (
        words(TEXTS, padding=True, return_tensors="pt"),
        again(TEXTS, padding=True, return_tensors="pt"),
    )
    assert all(torch.equal(one[name], two[name]) for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        assert torch.equal(model(**one).logits, other(**two).logits)
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("exported", "again"))
    assert all(torch.equal(old[name], x) for name, x in new.items()) and old.keys() == new.keys()


def test_numbers_are_answered_in_their_own_scale(tmp_path: Path) -> None:
    samples = [sample(s.texts[0], gold=100.0 + 10 * n) for n, s in enumerate(SAMPLES)]
    folder, model = classifier("ulmfit", tmp_path, samples, kind="number")
    words, theirs = opened(folder, "AutoModelForSequenceClassification")
    with torch.no_grad():
        out = theirs(**words(TEXTS, padding=True, return_tensors="pt"), labels=torch.full((4,), 150.0))
    wanted = [answer.value for answer in model.answers([sample(text) for text in TEXTS])]
    assert out.logits[:, 0].tolist() == pytest.approx(wanted, rel=1e-5)
    assert float(out.loss) == pytest.approx(sum((x - 150.0) ** 2 for x in wanted) / 4, rel=1e-4)  # type: ignore[operator]


def test_a_classifiers_encoder_is_opened_alone(tmp_path: Path) -> None:
    folder, model = classifier("ulmfit", tmp_path)
    _, encoder = opened(folder)
    for name, x in model.model.encoder.state_dict().items():
        assert torch.equal(x, encoder.state_dict()[f"encoder.{name}"])


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_head_learns_outside_of_pretune_and_comes_back(method: str, tmp_path: Path) -> None:
    folder = exported(method, tmp_path)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    batch = words.pad([{**words(text), "labels": n % 3} for n, text in enumerate(TEXTS)], return_tensors="pt")
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses = []
    for _ in range(12):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < losses[0]
    model.eval().save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, again(**batch).logits)
    assert again.config.num_labels == 3


def test_weights_are_loaded_strictly(tmp_path: Path) -> None:
    folder = exported("ulmfit", tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: x for name, x in weights.items() if "decoder_bias" not in name}, folder / "model.safetensors"
    )
    with pytest.raises(RuntimeError, match="decoder_bias"):
        transformers.AutoModel.from_pretrained(folder)


def test_padding_on_the_left_is_refused(tmp_path: Path) -> None:
    words, model = opened(exported("ulmfit", tmp_path))
    ids = words(["a film"], return_tensors="pt")
    mask = ids["attention_mask"].clone()
    mask[0, 0] = 0
    with pytest.raises(UsageError, match="begin at the left"):
        model(ids["input_ids"], mask)
    words.padding_side = "left"
    with pytest.raises(UsageError, match="padding_side"):
        words(TEXTS, padding=True)


def test_texts_are_cut_only_where_that_is_asked(tmp_path: Path) -> None:
    words, _ = opened(exported("elmo", tmp_path))
    long = " ".join(tiny.WORDS)
    assert len(words(long)["input_ids"]) == len(tiny.WORDS)
    assert len(words(long, truncation=True, max_length=5)["input_ids"]) == 5


def test_both_directions_side_by_side_are_one_model(tmp_path: Path) -> None:
    start = tiny.start("ulmfit", directions="both")
    asked = Classification.of(SAMPLES)
    model, _ = finetune(start, asked, tiny.recipe("full"), SAMPLES, [], QUIET)
    model.save(tmp_path / "model", {})
    export(tmp_path / "model", "transformers", tmp_path / "exported")
    words, theirs = opened(tmp_path / "exported", "AutoModelForSequenceClassification")
    with torch.no_grad():
        found = theirs(**words(TEXTS, padding=True, return_tensors="pt")).logits.softmax(-1)
    for one, answer in zip(found, model.answers([sample(text) for text in TEXTS]), strict=True):
        assert dict(zip(asked.labels, one.tolist())) == pytest.approx(answer.scores, abs=1e-6)


def test_what_has_no_place_in_one_row_is_refused(tmp_path: Path) -> None:
    pairs = [sample(s.texts[0], "the book", gold=s.gold) for s in SAMPLES]
    asked = Classification.of(pairs, pair="siamese")
    model, _ = finetune(tiny.start("ulmfit"), asked, tiny.recipe("full"), pairs, [], QUIET)
    model.save(tmp_path / "model", {})
    with pytest.raises(UserError, match=r"task\.pair"):
        export(tmp_path / "model", "transformers", tmp_path / "exported")


@pytest.mark.parametrize(("option", "value"), [("orders", "both"), ("levels", (0, 5))])
def test_heads_of_both_orders_and_of_levels_are_refused(option: str, value: Any, tmp_path: Path) -> None:
    pairs = [sample(s.texts[0], "the book", gold=float(n % 5)) for n, s in enumerate(SAMPLES)]
    with pytest.raises(UserError, match=rf"task\.{option}"):
        classifier("elmo", tmp_path, pairs, kind="number", **{option: value})
    assert not (tmp_path / "exported").exists()


def test_code_of_somebody_else_is_not_run(tmp_path: Path) -> None:
    folder, _ = classifier("ulmfit", tmp_path)
    settings = json.loads((folder / "codec.json").read_text())
    (folder / "codec.json").write_text(json.dumps({**settings, "segmenter": "theirs:split"}))
    with pytest.raises(UserError, match="code that is not pretune's"):
        transformers.AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["pretune"]["task"]["name"] = "theirs:Task"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="whose code is not run"):
        transformers.AutoModelForSequenceClassification.from_pretrained(folder)


def test_pushing_writes_what_saving_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the network, which is asked for nothing but the files."""
    words, model = opened(exported("elmo", tmp_path))
    pushed: dict[str, list[str]] = {}

    def upload(self: Any, working_dir: Any, repo_id: str, *_: Any, **__: Any) -> None:
        pushed[type(self).__name__] = sorted(path.name for path in Path(working_dir).iterdir())

    monkeypatch.setattr(
        "huggingface_hub.HfApi.create_repo", lambda *_, **__: type("Url", (), {"repo_id": "x/y"})
    )
    monkeypatch.setattr(transformers.utils.hub.PushToHubMixin, "_upload_modified_files", upload)
    model.push_to_hub("x/y")
    words.push_to_hub("x/y")
    assert {"config.json", "model.safetensors"} <= set(pushed[interop.PretuneElmoModel.__name__])
    assert {"codec.json", "vocab.txt", "tokenizer_config.json"} <= set(pushed["PretuneElmoTokenizer"])
