"""ELMo and AWD-LSTM behind the Auto classes of transformers, from the moment that this is imported.

    import pretune.interop.transformers
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

opens what `pretune export DIR --to transformers` wrote, and what `save_pretrained` and `push_to_hub` of these
classes write. The modules inside are pretune's own; these are thin shells. Models are made on the CPU and
loaded strictly: no weight may be missing, left over or of another shape.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-call"
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.errors import UsageError, UserError
from pretune.runs.exporting_recurrent import labels_of, rebuilt
from pretune.runs.trained import task_config
from pretune.tasks.classification import Classification
from pretune.tensors.batch import Batch

try:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        PreTrainedConfig,
        PreTrainedModel,
    )
    from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
    from transformers.utils.hub import cached_file
except ImportError as error:
    raise UserError(
        f"pretune.interop.transformers needs transformers ({error}): pip install 'pretune[hf]'"
    ) from None

from pretune.interop.transformers_tokenizers import PretuneAwdLstmTokenizer, PretuneElmoTokenizer

WEIGHTS = "model.safetensors"
OF_FILES = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class PretuneConfig(PreTrainedConfig):
    """`pretune` says what the modules are made by; the rest is what transformers asks of a config."""

    model_type = "pretune"
    pretune: dict[str, Any] | None = None
    vocab_size: int = 0
    hidden_size: int = 0
    num_hidden_layers: int = 0
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = False


class PretuneElmoConfig(PretuneConfig):
    model_type = "pretune_elmo"


class PretuneAwdLstmConfig(PretuneConfig):
    model_type = "pretune_awd_lstm"


class _Loaded(PreTrainedModel):
    """How all of them are made and loaded."""

    config: PretuneConfig
    config_class = PretuneConfig
    base_model_prefix = ""
    main_input_name = "input_ids"

    def _init_weights(self, module: Any) -> None:
        """pretune's modules draw their own weights when they are made."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """A folder or a name of the hub; strictly, and on the CPU. Other options change the config."""
        files = {name: kwargs.pop(name) for name in OF_FILES if name in kwargs}
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        info = kwargs.pop("output_loading_info", False)
        config = kwargs.pop("config", None)
        for name in ("trust_remote_code", "adapter_kwargs", "attn_implementation", "use_safetensors"):
            kwargs.pop(name, None)
        if kwargs.pop("device_map", None) not in (None, "cpu"):
            raise UsageError("device_map: this model is made on the CPU; move it by .to(device)")
        if config is None:
            config, kwargs = cls.config_class.from_pretrained(
                pretrained_model_name_or_path, return_unused_kwargs=True, **files, **kwargs
            )
        if kwargs:
            raise UsageError(f"{', '.join(kwargs)}: unknown to {cls.__name__}.from_pretrained")
        model = cls(config)
        model._load(load_file(str(cached_file(pretrained_model_name_or_path, WEIGHTS, **files))))
        if isinstance(dtype, torch.dtype):
            nn.Module.to(model, dtype)
        model.eval()
        return (model, {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}) if info else model

    def _load(self, weights: dict[str, Tensor]) -> None:
        self.load_state_dict(weights, strict=True)

    def _batch(self, input_ids: Tensor, attention_mask: Tensor | None) -> Batch:
        """(N, T) ids, or (N, T, C) characters of each word, padded on the right."""
        spelled, padding = input_ids.ndim == 3, int(self.config.pad_token_id or 0)
        if attention_mask is not None:
            mask = attention_mask.bool()  # (N, T)
        else:
            mask = input_ids.ne(0).any(-1) if spelled else input_ids.ne(padding)
        left = torch.arange(mask.shape[1], device=mask.device) < mask.sum(1)[:, None]
        if not bool((mask == left).all()):
            raise UsageError(
                "a text must begin at the left: this model wants tokenizer.padding_side = 'right'"
            )
        words = None
        if spelled:
            words, places = torch.unique(input_ids[mask], dim=0, return_inverse=True)  # (W, C), (M,)
            ids = torch.zeros_like(mask, dtype=torch.long).masked_scatter(mask, places)  # (N, T)
        else:
            ids = input_ids.masked_fill(~mask, padding)
        owner = torch.arange(len(ids), device=ids.device)
        return Batch(ids, mask, torch.zeros_like(ids), owner, words=words)


class PretuneModel(_Loaded):
    """Layers and summary of texts: `last_hidden_state` (N, T, D), `pooler_output` (N, S)."""

    def __init__(self, config: PretuneConfig) -> None:
        super().__init__(config)
        self.encoder = rebuilt(config.pretune or {}, config.vocab_size).encoder
        self.post_init()

    def _load(self, weights: dict[str, Tensor]) -> None:
        """Of a classifier the encoder alone."""
        self.load_state_dict(
            {name: x for name, x in weights.items() if not name.startswith("head.")}, strict=True
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`hidden_states` are all layers, which may differ in width."""
        found = self.encoder(self._batch(input_ids, attention_mask))
        asked = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        out = BaseModelOutputWithPooling(found.layers[-1], found.summary, found.layers if asked else None)
        return out.to_tuple() if return_dict is False else out


class PretuneForSequenceClassification(_Loaded):
    """A classifier that pretune taught, or a fresh head with `num_labels` on a pretrained folder."""

    def __init__(self, config: PretuneConfig) -> None:
        super().__init__(config)
        said = config.pretune or {}
        self.fresh = "task" not in said
        found = rebuilt(said, config.vocab_size, _new_task(config) if self.fresh else None)
        assert found.head is not None and found.task is not None
        self.encoder, self.head, self.task = found.encoder, found.head, found.task
        if self.fresh:
            config.pretune = {**said, "task": task_config(found.task), "recipe": {"kind": "full"}}
            config.problem_type = labels_of(found.task)["problem_type"]
        self.post_init()

    def _load(self, weights: dict[str, Tensor]) -> None:
        if self.fresh:
            head = {f"head.{name}": x for name, x in self.head.state_dict().items()}
            weights = head | weights
        self.load_state_dict(weights, strict=True)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`logits` (N, C); where a number is answered, it itself, (N, 1). `loss` is a mean."""
        batch = self._batch(input_ids, attention_mask)
        found = self.encoder(batch)
        logits = self.head(found, batch)["logits"]  # (N, C)
        if self.task.kind == "number":  # which the head learned standardised
            logits = logits * self.task.spread + self.task.center
        loss = None if labels is None else _loss(self.task.kind, logits, labels)
        asked = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        out = SequenceClassifierOutput(loss, logits, found.layers if asked else None)
        return out.to_tuple() if return_dict is False else out


def _new_task(config: PretuneConfig) -> Classification:
    """What a fresh head is to answer: the labels of the config, by the head of the method's paper."""
    head: Mapping[str, Any] = {"head_kind": "two_layer"} if config.model_type == "pretune_awd_lstm" else {}
    if config.problem_type == "regression":
        return Classification("number", **head)
    named: dict[Any, str] = dict(config.id2label or {})
    labels = tuple(named[number] for number in sorted(named))
    return Classification(
        "many" if config.problem_type == "multi_label_classification" else "one", labels, **head
    )


def _loss(kind: str, logits: Tensor, labels: Tensor) -> Tensor:
    if kind == "one":
        return F.cross_entropy(logits, labels)
    if kind == "many":
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    return F.mse_loss(logits[:, 0], labels.float().view(-1))


class PretuneElmoModel(PretuneModel):
    """`input_ids` are the characters of each word, (N, T, C), as its tokenizer gives them."""

    config_class = PretuneElmoConfig


class PretuneElmoForSequenceClassification(PretuneForSequenceClassification):
    config_class = PretuneElmoConfig


class PretuneAwdLstmModel(PretuneModel):
    config_class = PretuneAwdLstmConfig


class PretuneAwdLstmForSequenceClassification(PretuneForSequenceClassification):
    config_class = PretuneAwdLstmConfig


for _config, _model, _classifier, _tokenizer in (
    (PretuneElmoConfig, PretuneElmoModel, PretuneElmoForSequenceClassification, PretuneElmoTokenizer),
    (
        PretuneAwdLstmConfig,
        PretuneAwdLstmModel,
        PretuneAwdLstmForSequenceClassification,
        PretuneAwdLstmTokenizer,
    ),
):
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
    AutoModelForSequenceClassification.register(_config, _classifier)
    AutoTokenizer.register(_config, tokenizer_class=_tokenizer)
