"""ELMo and AWD-LSTM as folders that transformers opens with `import pretune.interop.transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file
from torch import nn

from pretune.config import build, described, to_dict
from pretune.data.rows import Codec
from pretune.data.vocab import write_text
from pretune.encoder import Encoder
from pretune.errors import UserError
from pretune.methods.elmo.config import ELMoConfig
from pretune.methods.elmo.encoder import ELMo
from pretune.methods.ulmfit import AWDLSTM, AWDLSTMConfig, TwoWayAWDLSTM
from pretune.recipes import RECIPES
from pretune.recipes.base import Recipe
from pretune.recipes.features import Features
from pretune.recipes.full import Full
from pretune.runs.files import write_json
from pretune.runs.starts import Start, for_task
from pretune.runs.trained import TrainedModel, task_config, task_from
from pretune.tasks.base import Head
from pretune.tasks.classification import Classification

Table = Mapping[type, Mapping[str, type]]

MODEL_TYPES: Final = {"elmo": "pretune_elmo", "ulmfit": "pretune_awd_lstm"}  # by method
CLASSES: Final = {"elmo": "PretuneElmo", "ulmfit": "PretuneAwdLstm"}
PROBLEMS: Final = {
    "one": "single_label_classification",
    "many": "multi_label_classification",
    "number": "regression",
}
RECIPE_TABLE: Final[Table] = {Recipe: RECIPES}
LOADING: Final = """\
```python
import pretune.interop.transformers  # pip install 'pretune[hf]'
from transformers import AutoTokenizer, {auto}

tokenizer, model = AutoTokenizer.from_pretrained("."), {auto}.from_pretrained(".")
{use}
```
"""
READING: Final = 'model(**tokenizer(["a text"], return_tensors="pt")).last_hidden_state'
CLASSIFYING: Final = 'model(**tokenizer(["a text"], return_tensors="pt")).logits'


def write_recurrent(folder: Path, start: Start, trained: TrainedModel | None, out: Path) -> list[str]:
    """Model, tokenizer and how to load them, of a pretrained folder or a finetuned classifier."""
    method = start.method.name
    module: nn.Module
    if trained is None:
        start = for_task(start)
        module, architecture = nn.ModuleDict({"encoder": start.encoder}), "Model"
    else:
        _check(folder, trained)
        module, architecture = trained.model, "ForSequenceClassification"
    about = config_of(start, trained)
    about["architectures"] = [CLASSES[method] + architecture]
    tensors = {name: x.detach().cpu().contiguous().clone() for name, x in module.state_dict().items()}
    write_json(out / "config.json", about)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    start.codec.save(out)
    write_json(out / "tokenizer_config.json", {"tokenizer_class": CLASSES[method] + "Tokenizer"})
    auto = "AutoModel" if trained is None else "AutoModelForSequenceClassification"
    said = [
        f"{sum(x.numel() for x in tensors.values()):,} parameters for {auto} of transformers",
        "import pretune.interop.transformers before they are loaded",
    ]
    how = LOADING.format(auto=auto, use=READING if trained is None else CLASSIFYING)
    write_text(out / "README.md", f"{how}\nExported by pretune: {said[0]}.\n")
    return said


def _check(folder: Path, trained: TrainedModel) -> None:
    task, recipe, rather = trained.task, trained.recipe, "; export the folder that it started from"
    if not isinstance(task, Classification):
        raise UserError(f"{folder}: only classifiers can be exported with their heads{rather}")
    if task.apart:
        raise UserError(f"{folder}: its head compares two texts that are read alone (task.pair){rather}")
    if task.orders == "both":
        raise UserError(f"{folder}: its head reads pairs both ways (task.orders){rather}")
    if task.levels is not None:
        raise UserError(f"{folder}: its head takes the mean of levels (task.levels){rather}")
    if isinstance(recipe, Features) and recipe.vectors is not None:
        raise UserError(f"{folder}: it reads word vectors beside its encoder (recipe.vectors){rather}")
    if isinstance(recipe, Features) and recipe.characters:
        raise UserError(f"{folder}: it reads characters beside its encoder (recipe.characters){rather}")
    if type(recipe) not in RECIPES.values():
        raise UserError(f"{folder}: its recipe, {type(recipe).__name__}, is not pretune's{rather}")


def config_of(start: Start, trained: TrainedModel | None) -> dict[str, Any]:
    """config.json: what transformers wants to know, and in `pretune` what the modules are made by."""
    encoder = start.encoder if trained is None else trained.model.encoder
    said: dict[str, Any] = {"method": start.method.name, "encoder": to_dict(start.encoder_config)}
    about: dict[str, Any] = {
        "model_type": MODEL_TYPES[start.method.name],
        "vocab_size": start.codec.size,
        "pad_token_id": start.codec.pad_id,
        "hidden_size": encoder.width,
        "num_hidden_layers": len(encoder.layer_widths()) - 1,
        "dtype": "float32",
    }
    if trained is not None:
        assert isinstance(trained.task, Classification)
        said |= {"task": task_config(trained.task), "recipe": described(trained.recipe, RECIPE_TABLE)}
        about |= labels_of(trained.task)
    return about | {"pretune": said}


def labels_of(task: Classification) -> dict[str, Any]:
    """What config.json says of a classifier's labels, in transformers' words."""
    labels = task.labels or ("LABEL_0",)
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": PROBLEMS[task.kind],
    }


@dataclass(frozen=True)
class Rebuilt:
    """What `pretune` of a config.json describes, its weights still to be loaded."""

    encoder: Encoder  # as the recipe wrapped it
    head: Head | None
    task: Classification | None


def rebuilt(said: Mapping[str, Any], words: int, new: Classification | None = None) -> Rebuilt:
    """`words` is the size of the vocabulary; `new` a task for a config that has none."""
    encoder: Encoder
    if said["method"] == "elmo":
        encoder = ELMo(build(ELMoConfig, said["encoder"], "encoder"), words)
    else:
        shape = build(AWDLSTMConfig, said["encoder"], "encoder")
        encoder = TwoWayAWDLSTM(shape, words) if shape.directions == "both" else AWDLSTM(shape, words)
    encoder.purpose("task")
    recipe: Recipe = Full()
    task: Any = new
    if "task" in said:
        if said["task"]["name"] != "classification" or ":" in str(said["recipe"].get("kind")):
            raise UserError(
                "config.json names a task or a recipe that is not pretune's, whose code is not run"
            )
        task = task_from(said["task"])
        recipe = build(Recipe, said["recipe"], "recipe", RECIPE_TABLE)  # type: ignore[type-abstract]
    wrapped = recipe.wrap(encoder)
    head = None if task is None else recipe.task(task).head(wrapped)
    return Rebuilt(wrapped, head, task)


def codec_from(method: str, folder: Path) -> Codec:
    from pretune.runs.starts import method_named

    return method_named(method).load_codec(folder)
