"""GPT's and BERT's folders as transformers opens them, without our code: model, tokenizer, how to load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file
from torch import Tensor, nn

from pretune.data.vocab import write_text
from pretune.errors import UserError
from pretune.methods.bert.encoder import BERT
from pretune.methods.bert.tokens import BERTCodec
from pretune.methods.bert.weights import write_checkpoint
from pretune.methods.bert.weights import write_transformers as bert_tensors
from pretune.methods.gpt.encoder import GPT
from pretune.methods.gpt.tokens import GPTCodec
from pretune.methods.gpt.weights import write_arrays
from pretune.methods.gpt.weights import write_transformers as gpt_tensors
from pretune.runs.exporting_recurrent import labels_of, write_recurrent
from pretune.runs.files import write_json
from pretune.runs.folders import read_config
from pretune.runs.run import load_start, load_trained
from pretune.runs.starts import Start, is_pretrained, member_folders
from pretune.runs.trained import Ensemble, TrainedModel
from pretune.runs.transformers_tokenizers import (
    write_bert_tokenizer,
    write_gpt_tokenizer,
    write_gpt_vocabulary,
)
from pretune.runs.unbiased import without_bias
from pretune.tasks.classification import Classification
from pretune.tasks.joint import JointHead
from pretune.tasks.summary_head import ClassificationHead

LOADING: Final = """\
```python
from transformers import AutoTokenizer, {model}

tokenizer, model = AutoTokenizer.from_pretrained("."), {model}.from_pretrained(".")
```
"""
CLASSIFYING: Final = """\
```python
from transformers import pipeline

classify = pipeline("text-classification", model=".", top_k=None)
classify("a text", truncation=True)
```
"""


@dataclass(frozen=True)
class LinearHead:
    """A classifier's head as transformers has one: a linear layer that answers in the task's own scale."""

    task: Classification
    weight: Tensor  # (C, S)
    bias: Tensor  # (C,)


@dataclass(frozen=True)
class Exported:
    """What is written, and where."""

    folder: Path  # where it comes from, for messages
    start: Start
    trained: TrainedModel | None  # None: a pretrained folder, which knows no task
    out: Path


Export = Callable[[Exported], list[str]]


def transformers(folder: Path, out: Path) -> list[str]:
    """A folder for `from_pretrained`; the members of an ensemble go into folders of their own."""
    return _each(folder, out, TRANSFORMERS, "transformers")


def openai(folder: Path, out: Path) -> list[str]:
    """The layout of OpenAI's release."""
    return _each(folder, out, {"gpt": _arrays}, "openai")


def tensorflow(folder: Path, out: Path) -> list[str]:
    """The layout of Google's release."""
    return _each(folder, out, {"bert": _checkpoint}, "tensorflow")


def _each(folder: Path, out: Path, writers: Mapping[str, Export], to: str) -> list[str]:
    config = read_config(folder)
    if config["kind"] == "ensemble":
        notes: list[str] = []
        for member in member_folders(folder, config):
            (out / member.name).mkdir()
            said = _each(member, out / member.name, writers, to)
            notes += [f"{member.name}: {note}" for note in said]
        return notes
    start, trained = _loaded(folder)
    if start.method.name not in writers:
        raise UserError(f"--to {to} is a format of {', '.join(writers)}; {folder} holds {start.method.name}")
    return writers[start.method.name](Exported(folder, start, trained, out))


def _loaded(folder: Path) -> tuple[Start, TrainedModel | None]:
    if is_pretrained(folder):
        start = load_start(folder)
        assert isinstance(start, Start)
        return start, None
    trained = load_trained(folder)
    if not isinstance(trained, TrainedModel) or isinstance(trained, Ensemble):
        raise UserError(f"{folder}: no encoder of ours is in this model, so there is nothing to export")
    return trained.start, trained


def linear_head(exported: Exported) -> LinearHead | None:
    """The head as one linear layer, or an error that says why it is none; None where there is no head."""
    trained, folder = exported.trained, exported.folder
    if trained is None:
        return None
    rather = "; export the folder that it started from"
    head, task = trained.model.head, trained.task
    head = head.main if isinstance(head, JointHead) else head
    if trained.model.encoder is not trained.start.encoder:
        raise UserError(
            f"{folder}: its head reads a mix of layers, which transformers has no model for{rather}"
        )
    if not isinstance(head, ClassificationHead) or not isinstance(task, Classification):
        raise UserError(f"{folder}: only classifiers can be exported with their heads{rather}")
    for what, wrong in (
        ("has several layers (task.head_kind)", task.head_kind != "linear"),
        ("compares two texts (task.pair)", task.apart),
        ("keeps numbers in a range (task.y_range)", task.y_range is not None),
        ("takes the mean of levels (task.levels)", task.levels is not None),
        ("reads pairs both ways (task.orders)", task.orders == "both"),
    ):
        if wrong:
            raise UserError(f"{folder}: its head {what}, which that of transformers does not{rather}")
    layer = head.layers[1]
    assert isinstance(layer, nn.Linear)
    weight, bias = layer.weight.detach().cpu().double(), layer.bias.detach().cpu().double()
    if task.kind == "number":  # transformers' heads answer in the numbers' own scale
        weight, bias = weight * task.spread, bias * task.spread + task.center
    return LinearHead(task, weight, bias)


def _gpt(exported: Exported) -> list[str]:
    encoder, codec = exported.start.encoder, exported.start.codec
    assert isinstance(encoder, GPT) and isinstance(codec, GPTCodec)
    config = encoder.config
    if config.inner not in (None, 4 * config.width) or config.activation != "gelu_tanh":
        raise UserError(
            f"{exported.folder}: transformers' GPT has blocks of 4 · width with the GELU by tanh alone; this "
            f"one has encoder.inner {config.inner} and {config.activation}"
        )
    tensors = gpt_tensors(encoder, head=True)
    notes: list[str] = []
    about: dict[str, Any] = {"architectures": ["OpenAIGPTLMHeadModel"]}
    head = linear_head(exported)
    if head is not None:
        last = f"transformer.h.{config.layers - 1}.ln_2"
        gain, shift = tensors[f"{last}.weight"].double(), tensors[f"{last}.bias"].double()
        score = without_bias(head.weight, head.bias, gain, shift, exported.folder)
        tensors |= {"score.weight": score.weight.float(), f"{last}.bias": score.shift.float()}
        notes.append(f"{score.note}: transformers' head of GPT has none")
        if head.task.kind == "number" and head.task.orders == "method":
            notes.append(
                "a text gets the same number, but a pair another one: transformers reads it in one order, "
                "this model in both; finetune with task.orders=given for pairs"
            )
        about = {"architectures": ["OpenAIGPTForSequenceClassification"], **labels_of(head.task)}
    notes += write_gpt_tokenizer(codec, exported.out, marks=head is not None and codec.config.marks)
    about |= {
        "model_type": "openai-gpt",
        "vocab_size": codec.size,
        "n_positions": config.context,
        "n_ctx": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "afn": "gelu",
        "layer_norm_epsilon": config.norm_eps,
        "embd_pdrop": config.embedding_dropout,
        "attn_pdrop": config.attention_dropout,
        "resid_pdrop": config.residual_dropout,
        "initializer_range": 0.02,
        "pad_token_id": codec.pad_id,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    return _write(exported.out, about, tensors, notes)


def _bert(exported: Exported) -> list[str]:
    encoder, codec = exported.start.encoder, exported.start.codec
    assert isinstance(encoder, BERT) and isinstance(codec, BERTCodec)
    notes = []
    about: dict[str, Any] = {"architectures": ["BertForPreTraining"]}
    tensors = bert_tensors(encoder, "bert.")
    head = linear_head(exported)
    if head is not None:
        if not encoder.config.pooler:
            raise UserError(
                f"{exported.folder}: its head reads [CLS] itself (encoder.pooler is false), not "
                "what a pooler makes of it; export the folder that it started from"
            )
        about = {"architectures": ["BertForSequenceClassification"], **labels_of(head.task)}
        about["classifier_dropout"] = head.task.dropouts()[0]
        tensors["classifier.weight"] = head.weight.float()
        tensors["classifier.bias"] = head.bias.float()
    elif not encoder.config.pretraining_heads:
        about = {"architectures": ["BertModel"]}
        tensors = bert_tensors(encoder, "")
        if not encoder.config.pooler:
            notes = ["there is no pooler: load it by AutoModel.from_pretrained(…, add_pooling_layer=False)"]
    notes += write_bert_tokenizer(codec, exported.out)
    about |= {"model_type": "bert", **_bert_config(encoder, codec), "dtype": "float32"}
    return _write(exported.out, about, tensors, notes)


def _bert_config(encoder: BERT, codec: BERTCodec) -> dict[str, Any]:
    config = encoder.config
    if config.causal:
        raise UserError(
            "a BERT that reads from left to right (encoder.causal) has no counterpart there: others sum "
            "texts up at [CLS], which in it has seen nothing; export gpt instead"
        )
    return {
        "vocab_size": codec.size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.transformer().inner,
        "hidden_act": "gelu" if config.activation == "gelu" else "gelu_pytorch_tanh",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "max_position_embeddings": config.context,
        "type_vocab_size": config.types,
        "initializer_range": 0.02,
        "layer_norm_eps": config.norm_eps,
        "pad_token_id": codec.pad_id,
    }


def _arrays(exported: Exported) -> list[str]:
    encoder, codec = exported.start.encoder, exported.start.codec
    assert isinstance(encoder, GPT) and isinstance(codec, GPTCodec)
    write_arrays(encoder, exported.out)
    pieces, merges = exported.out / "encoder_bpe_40000.json", exported.out / "vocab_40000.bpe"
    write_gpt_vocabulary(codec, pieces, merges, marks=False)
    kept = sum(x.numel() for x in encoder.parameters()) - 3 * encoder.width
    notes = [f"{kept:,} parameters in OpenAI's layout: --to openai leaves the special tokens' vectors out"]
    if codec.config.pretokenizer != "original":
        notes.append(
            f"text was read with {codec.pretokenizer.described}; import with "
            f"codec.pretokenizer={codec.config.pretokenizer}"
        )
    if exported.trained is not None:
        notes.append("the classifier's head has no place in that layout, and is left out")
    return notes


def _checkpoint(exported: Exported) -> list[str]:
    encoder, codec = exported.start.encoder, exported.start.codec
    assert isinstance(encoder, BERT) and isinstance(codec, BERTCodec)
    head = linear_head(exported)
    config = _bert_config(encoder, codec)
    tensors = {"classifier.weight": head.weight.float(), "classifier.bias": head.bias.float()} if head else {}
    write_checkpoint(encoder, exported.out / "bert_model.ckpt", tensors)
    write_json(exported.out / "bert_config.json", config)
    write_text(exported.out / "vocab.txt", "".join(f"{word}\n" for word in codec.vocab.words))
    notes = [f"{sum(x.numel() for x in encoder.parameters()):,} parameters in Google's layout"]
    if codec.config.style != "google":
        notes.append("text was read with codec.style=hf, which Google's code reads a little otherwise")
    if head is not None:
        notes.append("output_weights and output_bias are the classifier's, as run_classifier.py has them")
    return notes


def _write(
    out: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], notes: Sequence[str]
) -> list[str]:
    """Model, and a README.md of what the user is told."""
    write_json(out / "config.json", dict(config))
    save_file(dict(tensors), out / "model.safetensors", metadata={"format": "pt"})
    (model,) = config["architectures"]
    said = [f"{sum(x.numel() for x in tensors.values()):,} parameters as {model} of transformers", *notes]
    how = CLASSIFYING if model.endswith("ForSequenceClassification") else LOADING
    lines = "".join(f"- {note}\n" for note in said)
    write_text(out / "README.md", how.format(model=model) + f"\nExported by pretune:\n\n{lines}")
    return said


def _recurrent(exported: Exported) -> list[str]:
    return write_recurrent(exported.folder, exported.start, exported.trained, exported.out)


TRANSFORMERS: dict[str, Export] = {"gpt": _gpt, "bert": _bert, "elmo": _recurrent, "ulmfit": _recurrent}
