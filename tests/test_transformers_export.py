"""Folders of GPT and BERT go to transformers and come from there with the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretune.config import build
from pretune.data.samples import Part, sample
from pretune.data.vocab import Vocab
from pretune.errors import UsageError, UserError
from pretune.keys import generator
from pretune.methods import METHODS
from pretune.methods.bert.tokens import BERTCodec, BERTCodecConfig
from pretune.methods.gpt.tokens import SPECIALS, GPTCodec, GPTCodecConfig
from pretune.recipes.base import Recipe
from pretune.recipes.full import Full
from pretune.runs.importing import export, import_published
from pretune.runs.published import Published
from pretune.runs.run import load_start, load_trained
from pretune.runs.starts import Start, for_task, save_start
from pretune.runs.trained import TrainedModel, join
from pretune.runs.transformers_tokenizers import write_bert_tokenizer, write_gpt_tokenizer
from pretune.runs.unbiased import without_bias
from pretune.tasks.classification import Classification
from pretune.tensors.batch import collate
from pretune.training.sources import task_batch
from transformers_files import (
    PIECES,
    TEXTS,
    gpt_vocabulary,
    hf_bert,
    hf_gpt,
    openai_folder,
    save_bert,
    save_gpt,
)

transformers = pytest.importorskip("transformers")
SIZES: dict[str, dict[str, Any]] = {
    "gpt": {"width": 12, "layers": 2, "heads": 3, "context": 40},
    "bert": {"width": 12, "layers": 2, "heads": 3, "inner": 20, "context": 40},
}
PAIR = (TEXTS[0], TEXTS[1])


def start(name: str, codec: dict[str, Any] | None = None, **encoder: Any) -> Start:
    """A small model whose every weight is random."""
    method = METHODS[name]
    shape = build(method.encoder_config, {**SIZES[name], **encoder}, "encoder")
    if name == "gpt":
        words, merges = gpt_vocabulary()
        said = {"pretokenizer": "hf", "context": 40, **(codec or {})}
        made: Any = GPTCodec(build(GPTCodecConfig, said, "codec"), [*words, *SPECIALS], merges)
    else:
        said = {"style": "hf", "context": 40, **(codec or {})}
        made = BERTCodec(build(BERTCodecConfig, said, "codec"), Vocab(PIECES))
    found = Start(name, method, made, method.build(shape, made), shape)
    shaken(found.encoder)
    return found


def shaken(module: nn.Module) -> None:
    chance = generator(0, "shaken")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            gain = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(gain + 0.2 * torch.randn(parameter.shape, generator=chance))


def classifier(name: str, task: Classification, recipe: Recipe | None = None, **said: Any) -> TrainedModel:
    trained = join(for_task(start(name, **said)), task, recipe or Full(), 0)
    shaken(trained.model)
    return trained


def out_of(folder: Path, to: str = "transformers") -> tuple[Path, list[str]]:
    out = folder.with_name(f"{folder.name}-{to}")
    return out, export(folder, to, out)


@torch.no_grad()
def logits_of(folder: Path, kind: str, *texts: str | tuple[str, str], **kwargs: Any) -> Any:
    model = getattr(transformers, kind).from_pretrained(folder, **kwargs).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return model(**tokenizer(list(texts), padding=True, return_tensors="pt"))


@torch.no_grad()
def ours(trained: TrainedModel, *texts: str | tuple[str, ...]) -> torch.Tensor:
    samples = [sample(*([x] if isinstance(x, str) else x), key=str(n)) for n, x in enumerate(texts)]
    rows = trained.learned.rows(trained.start.codec, samples)
    batch = task_batch(trained.learned, trained.start.codec, samples, rows, gold=False)
    return trained.model.eval()(batch).scores["logits"]


@pytest.mark.parametrize("kind", ["one", "many"])
@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_a_classifier_answers_the_same_in_transformers(tmp_path: Path, name: str, kind: Any) -> None:
    trained = classifier(name, Classification(kind, ("bad", "fine", "good")))
    trained.save(tmp_path / "model", {})
    folder, notes = out_of(tmp_path / "model")
    for texts in (TEXTS, [PAIR, PAIR[::-1]]):
        theirs = logits_of(folder, "AutoModelForSequenceClassification", *texts).logits
        assert (theirs - ours(trained, *texts)).abs().max() < 1e-5
    pipe = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    answers = trained.answers([sample(text, key=str(n)) for n, text in enumerate(TEXTS)])
    for said, answer in zip(pipe(list(TEXTS)), answers, strict=True):
        assert {one["label"]: one["score"] for one in said} == pytest.approx(answer.scores, abs=1e-5)
    assert any("parameters as" in note for note in notes)
    assert any("the head's bias is part of" in note for note in notes) == (name == "gpt")


@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_what_the_papers_own_recipe_trained_is_exported(tmp_path: Path, name: str) -> None:
    trained = classifier(name, Classification("one", ("bad", "good")), METHODS[name].recipe)
    trained.save(tmp_path / "model", {})
    folder, _ = out_of(tmp_path / "model")
    theirs = logits_of(folder, "AutoModelForSequenceClassification", *TEXTS).logits
    assert (theirs - ours(trained, *TEXTS)).abs().max() < 1e-5


def test_a_bias_goes_where_rounding_is_not_felt(tmp_path: Path) -> None:
    trained = classifier("gpt", Classification("one", ("bad", "good")))
    norm = trained.start.encoder.get_submodule("transformer.blocks.1.output_norm")
    assert isinstance(norm, nn.LayerNorm)
    with torch.no_grad():
        norm.bias.zero_()  # as in a network that has not learned
    trained.save(tmp_path / "model", {})
    folder, notes = out_of(tmp_path / "model")
    theirs = logits_of(folder, "AutoModelForSequenceClassification", *TEXTS).logits
    assert (theirs - ours(trained, *TEXTS)).abs().max() < 1e-5
    assert any("part of the last norm's shift" in note for note in notes)


@torch.no_grad()
@pytest.mark.parametrize(("shift", "bias"), [(0.2, 0.01), (0.05, 0.3), (0.01, 3.0), (0.0, 1.0)])
def test_scores_stay_without_the_bias_at_full_width(shift: float, bias: float) -> None:
    chance = generator(1, "norm")
    gain = 1 + 0.3 * torch.randn(768, generator=chance).clamp(-2, 2).double()
    given = shift * torch.randn(768, generator=chance).double()
    weight, added = (
        0.02 * torch.randn(2, 768, generator=chance).double(),
        bias * torch.tensor([1.0, -0.5]).double(),
    )
    found = without_bias(weight, added, gain, given, Path("here"))
    z = nn.functional.layer_norm(torch.randn(300, 768, generator=chance).double(), (768,)) * gain
    said = (z + found.shift).float() @ found.weight.float().t()
    assert (said - ((z + given) @ weight.t() + added)).abs().max() < 3e-5 * max(1, bias)
    with pytest.raises(UserError, match="no weights that give the same scores without one"):
        without_bias(weight[:1].expand(2, -1), added, gain, given * 0, Path("here"))


@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_a_number_comes_out_in_its_own_scale(tmp_path: Path, name: str) -> None:
    trained = classifier(name, Classification("number", center=0.3, spread=1.7))
    trained.save(tmp_path / "model", {})
    folder, _ = out_of(tmp_path / "model")
    theirs = logits_of(folder, "AutoModelForSequenceClassification", *TEXTS).logits[:, 0].tolist()
    answers = trained.answers([sample(text, key=str(n)) for n, text in enumerate(TEXTS)])
    assert theirs == pytest.approx([answer.value for answer in answers], abs=1e-5)


@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_a_classifier_comes_back_as_it_went(tmp_path: Path, name: str) -> None:
    trained = classifier(name, Classification("one", ("bad", "good")))
    trained.save(tmp_path / "model", {})
    folder, _ = out_of(tmp_path / "model")
    import_published(name, Published(source=folder), tmp_path / "again")
    again = load_trained(tmp_path / "again")
    assert isinstance(again, TrainedModel) and isinstance(again.task, Classification)
    assert again.task.labels == ("bad", "good") and again.start.encoder_config == trained.start.encoder_config
    assert (ours(again, *TEXTS, *[PAIR]) - ours(trained, *TEXTS, *[PAIR])).abs().max() < 1e-5


def test_a_language_model_reads_and_writes_the_same_in_transformers(tmp_path: Path) -> None:
    found = start("gpt")
    save_start(found, tmp_path / "model", {})
    folder, _ = out_of(tmp_path / "model")
    text = "the plot was very good"
    theirs = logits_of(folder, "AutoModelForCausalLM", text)
    ids = torch.tensor(found.codec.ids([text]))  # type: ignore[attr-defined]
    with torch.no_grad():
        top, _ = found.encoder.eval().read_on(ids, None)  # type: ignore[operator]
        logits = top @ found.encoder.tokens.weight.t()  # type: ignore[operator, union-attr]
        base = transformers.AutoModel.from_pretrained(folder).eval()(ids).last_hidden_state
    assert (theirs.logits - logits).abs().max() < 1e-5 and (base - top).abs().max() < 1e-5
    written = transformers.pipeline("text-generation", model=str(folder))(text, max_new_tokens=4)
    assert written[0]["generated_text"].startswith("the plot")
    import_published("gpt", Published(source=folder), tmp_path / "again")
    again = load_start(tmp_path / "again")
    assert isinstance(again, Start)
    same = zip(found.encoder.parameters(), again.encoder.parameters(), strict=True)
    assert all(torch.equal(x, y) for x, y in same)


def test_a_pretrained_bert_fills_masks_in_transformers(tmp_path: Path) -> None:
    found = start("bert")
    encoder: Any = found.encoder
    save_start(found, tmp_path / "model", {})
    folder, _ = out_of(tmp_path / "model")
    with torch.no_grad():
        rows = found.codec.encode([(Part(PAIR[0]), Part(PAIR[1]))])
        encoded = encoder.eval()(collate(rows, 0))
        words = encoder.mlm_hidden(encoded.layers[-1]) @ encoder.words.weight.t() + encoder.mlm_bias
        following = encoder.nsp(encoded.summary)
    whole = logits_of(folder, "AutoModelForPreTraining", PAIR)
    assert (whole.prediction_logits - words).abs().max() < 1e-5
    assert (whole.seq_relationship_logits - following).abs().max() < 1e-5
    masked = logits_of(folder, "AutoModelForMaskedLM", PAIR)
    assert (masked.logits - words).abs().max() < 1e-5
    body = logits_of(folder, "AutoModel", PAIR)
    assert (body.last_hidden_state - encoded.layers[-1]).abs().max() < 1e-5
    assert (body.pooler_output - encoded.summary).abs().max() < 1e-5


def test_texts_are_cut_by_transformers_tokenizer_as_by_ours(tmp_path: Path) -> None:
    long = " ".join(TEXTS * 5)
    for name in ("gpt", "bert"):
        trained = classifier(name, Classification("one", ("bad", "good")))
        trained.save(tmp_path / name, {})
        folder, _ = out_of(tmp_path / name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        codec: Any = trained.start.codec
        for text in (long, "", "Café naïve — “so” [x] 中文!"):
            row = codec.encode([(Part(text),)])[0][0]
            assert tokenizer(text, truncation=True)["input_ids"] == row.ids
        assert tokenizer.model_max_length == 40


@pytest.mark.parametrize("name", ["gpt", "bert hf", "bert google"])
def test_real_text_becomes_the_same_ids_in_transformers(
    tmp_path: Path, shared: Callable[[str], Path], name: str
) -> None:
    chinese = shared("data/thucnews-titles/dev.txt").read_text("utf-8").splitlines()[:1000]
    english = shared("data/wikitext2-valid-test/valid.txt").read_text("utf-8").splitlines()
    lines = [line for line in [*english, *chinese] if line.strip() and "<unk>" not in line]
    assert len(lines) > 1500
    codec: Any
    if name == "gpt":
        codec = GPTCodec.read(shared("data/gpt1-bpe"), "hf")
        write_gpt_tokenizer(codec, tmp_path, marks=True)
    else:
        words = shared("data/bert-vocab/bert-base-uncased-vocab.txt")
        codec = BERTCodec.published(words, build(BERTCodecConfig, {"style": name.split()[1]}, "codec"))
        write_bert_tokenizer(codec, tmp_path)
    kind = "openai-gpt" if name == "gpt" else "bert"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs = tokenizer(lines, truncation=True)["input_ids"]
    assert [rows[0].ids for rows in codec.encode([(Part(line),) for line in lines])] == theirs


@pytest.mark.parametrize(
    ("name", "task", "said", "message"),
    [
        ("bert", {"pair": "siamese"}, {}, "compares two texts"),
        ("bert", {"head_kind": "two_layer"}, {}, "several layers"),
        ("bert", {"kind": "number", "labels": (), "y_range": (0.0, 1.0)}, {}, "keeps numbers in a range"),
        ("bert", {}, {"pooler": False, "pretraining_heads": False}, r"reads \[CLS\] itself"),
        ("gpt", {}, {"inner": 20}, r"blocks of 4 · width with the GELU by tanh alone"),
        ("gpt", {}, {"activation": "gelu"}, r"blocks of 4 · width with the GELU by tanh alone"),
    ],
)
def test_what_transformers_cannot_say_is_refused(
    tmp_path: Path, name: str, task: dict[str, Any], said: dict[str, Any], message: str
) -> None:
    asked = build(Classification, {"kind": "one", "labels": ("a", "b"), **task}, "task")
    classifier(name, asked, **said).save(tmp_path / "model", {})
    with pytest.raises(UserError, match=message):
        out_of(tmp_path / "model")
    assert not (tmp_path / "model-transformers").exists()


def test_words_that_tokenizers_cannot_find_are_told_of(tmp_path: Path) -> None:
    save_start(start("gpt", {"pretokenizer": "builtin"}), tmp_path / "model", {})
    _, notes = out_of(tmp_path / "model")
    assert any("NOT THE SAME TOKENS" in note for note in notes)


def test_openais_layout_is_written_by_name(tmp_path: Path) -> None:
    found = start("gpt", width=64, heads=1)
    save_start(found, tmp_path / "model", {})
    folder, notes = out_of(tmp_path / "model", "openai")
    assert any("leaves the special tokens' vectors out" in note for note in notes)
    said = Published(source=folder, codec={"pretokenizer": "hf"})
    import_published("gpt", said, tmp_path / "again")
    again = load_start(tmp_path / "again")
    assert isinstance(again, Start) and again.codec.size == found.codec.size
    for (name, x), (_, y) in zip(
        found.encoder.named_parameters(), again.encoder.named_parameters(), strict=True
    ):
        assert torch.equal(x[:-3], y[:-3]) if name == "tokens.weight" else torch.equal(x, y)


def test_googles_layout_is_written_by_name(tmp_path: Path) -> None:
    trained = classifier("bert", Classification("one", ("0", "1")), codec={"style": "google"})
    trained.save(tmp_path / "model", {})
    folder, _ = out_of(tmp_path / "model", "tensorflow")
    import_published("bert", Published(source=folder), tmp_path / "again")
    again = load_trained(tmp_path / "again")
    assert isinstance(again, TrainedModel)
    assert torch.equal(ours(again, *TEXTS), ours(trained, *TEXTS))
    with pytest.raises(UserError, match="--to openai is a format of gpt"):
        out_of(tmp_path / "model", "openai")


@pytest.mark.parametrize("kind", ["one", "many", "number"])
def test_a_bert_that_transformers_finetuned_answers_here(tmp_path: Path, kind: str) -> None:
    problems = {"one": "single_label", "many": "multi_label"}
    problem = f"{problems[kind]}_classification" if kind in problems else "regression"
    labels = {} if kind == "number" else {0: "neg", 1: "neutral", 2: "pos"}
    said = (
        {"id2label": labels, "label2id": {x: y for y, x in labels.items()}} if labels else {"num_labels": 1}
    )
    model = hf_bert("BertForSequenceClassification", problem_type=problem, **said)
    folder = save_bert(model, tmp_path / "theirs")
    notes = import_published("bert", Published(source=folder), tmp_path / "model")
    trained = load_trained(tmp_path / "model")
    assert isinstance(trained, TrainedModel) and isinstance(trained.task, Classification)
    assert trained.task.kind == kind and trained.task.labels == tuple(labels.values())
    theirs = logits_of(folder, "AutoModelForSequenceClassification", *TEXTS, PAIR[0]).logits
    assert (ours(trained, *TEXTS, PAIR[0]) - theirs).abs().max() < 1e-5
    wanted = "a classifier of a number" if kind == "number" else "a classifier of 3 labels: neg, neutral, pos"
    assert wanted in notes


def test_a_gpt_that_transformers_finetuned_answers_here(tmp_path: Path) -> None:
    model = hf_gpt("OpenAIGPTForSequenceClassification", num_labels=3, pad_token_id=0)
    folder = save_gpt(model, tmp_path / "theirs")
    import_published("gpt", Published(source=folder), tmp_path / "model")
    trained = load_trained(tmp_path / "model")
    assert isinstance(trained, TrainedModel) and trained.task.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for texts in [*TEXTS, PAIR, " ".join(TEXTS)]:
        read = [texts] if isinstance(texts, str) else [*texts]
        asked = tokenizer(*read, truncation=True, max_length=24, return_tensors="pt")
        with torch.no_grad():
            theirs = model(input_ids=asked["input_ids"]).logits
        assert (ours(trained, texts) - theirs).abs().max() < 1e-5
    assert ours(trained, "").isfinite().all()
    import_published("gpt", Published(source=folder, encoder_only=True), tmp_path / "start")
    begun = load_start(tmp_path / "start")
    assert (
        isinstance(begun, Start) and begun.encoder_config.summary == "classify" and begun.codec.config.marks
    )


def test_heads_of_other_tasks_are_left_out_and_said(tmp_path: Path) -> None:
    folder = save_bert(hf_bert("BertForTokenClassification", num_labels=3), tmp_path / "theirs")
    notes = import_published("bert", Published(source=folder), tmp_path / "model")
    assert "the head of BertForTokenClassification is left out: classifier.bias, classifier.weight" in notes
    with pytest.raises(UsageError, match="these weights have no head of one"):
        import_published("bert", Published(source=folder, labels=("a",)), tmp_path / "other")
    double = save_gpt(hf_gpt("OpenAIGPTDoubleHeadsModel"), tmp_path / "gpt")
    notes = import_published("gpt", Published(source=double), tmp_path / "from-gpt")
    assert any("the head of OpenAIGPTDoubleHeadsModel is left out" in note for note in notes)


def test_a_classifier_can_be_taken_without_its_head(tmp_path: Path) -> None:
    folder = save_bert(hf_bert("BertForSequenceClassification"), tmp_path / "theirs")
    import_published("bert", Published(source=folder, encoder_only=True), tmp_path / "model")
    assert isinstance(load_start(tmp_path / "model"), Start)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["kind"] == "pretrained"


def test_commands_import_and_export(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pretune.cli import app

    folder, _ = openai_folder(tmp_path / "openai")
    out = tmp_path / "model"
    said = CliRunner().invoke(
        app, ["import", "gpt", str(folder), "--out", str(out), "codec.pretokenizer=hf", "--seed", "3"]
    )
    assert said.exit_code == 0, said.output
    assert "laid out as by OpenAI" in said.output and "(seed 3)" in said.output
    said = CliRunner().invoke(
        app, ["export", str(out), "--to", "transformers", "--out", str(tmp_path / "hf")]
    )
    assert said.exit_code == 0, said.output
    assert "as OpenAIGPTLMHeadModel of transformers" in said.output
    assert {"config.json", "model.safetensors", "tokenizer.json"} < {
        x.name for x in (tmp_path / "hf").iterdir()
    }
