"""Feature extraction: a frozen encoder, a learned mix of its layers, a task model on top (ELMo)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pretune.encoder import Encoder
from pretune.errors import UsageError
from pretune.recipes.beside import FILE, BesideVectors, Vectors
from pretune.recipes.characters import BesideCharacters
from pretune.recipes.frozen import FrozenFeatures
from pretune.recipes.limits import check
from pretune.tasks.base import Head, Task
from pretune.training.optimizers import AdamW
from pretune.training.schedules import WarmupLinear
from pretune.training.stage import Group, Stage


@dataclass(frozen=True)
class Features:
    """Leave the encoder as it is; learn which of its layers to listen to, and a head.

    Peters et al. (2018), sections 3.2 and 3.3. The cheapest recipe, and one encoder then serves many tasks.
    A mix runs over the layers as wide as the top one. The head sees the encoder's own summary, joined by
    mean and maximum of the mix where there are several such layers, of word vectors or characters beside
    it, or of a task BiLSTM, where these are asked for.
    """

    lr: float = 1e-2
    """Peak rate of mix, BiLSTM and head."""
    epochs: int = 30
    """Passes over the data; each is cheap, since nothing below is trained."""
    batch_size: int = 32
    """Samples a step."""
    placement: Literal["input", "output", "both"] = "input"
    """Where the mix stands: under the BiLSTM, beside its states, or one at each (section 5.2)."""
    bilstm: int = 0
    """Units a direction of a BiLSTM over the mixed layers; 0 for none."""
    bilstm_layers: int = 1
    """Of that BiLSTM, with `dropout` between them; the taggers of ELMo's paper have 2."""
    vectors: Path | None = None
    """A GloVe or word2vec file: the frozen vector of each token's word stands beside the mix at the input."""
    max_vectors: int | None = 100_000
    """Words of that file to take, and to save with the model: the first, which are the most frequent."""
    characters: int = 0
    """Filters of a CNN over the characters of each token, learned beside the mix at the input; 0 for none."""
    mix: Literal["learned", "frozen", "top", "concat"] = "learned"
    """`frozen` leaves weights and gamma as they start; `top` takes the last layer alone, gamma learned;
    `concat` puts the layers side by side, the top one first, with `mix_last=4` what suited BERT best (Devlin
    et al. 2019, table 7)."""
    mix_last: int | None = None
    """So many layers at the top are mixed; none: all."""
    mix_weights: tuple[float, ...] = ()
    """Where the weights start, before the softmax, lowest layer first; none: equal."""
    mix_gamma: float = 1.0
    """Where gamma starts."""
    lambda_: float = 0.001
    """Weight of the squared mix weights in the loss: 1 all but forces equal shares, 0.001 lets them move."""
    dropout: float = 0.5
    """Dropout on the mixed layers; ELMo's authors call 0.5 a good default."""
    layer_norm: bool = False
    """Norm each layer over the batch before mixing, as ELMo's option does."""
    warmup: float = 0.1
    """Share of the steps spent climbing."""
    weight_decay: float = 0.0
    """Decoupled decay of the BiLSTM and the head."""
    clip: float | None = 5.0
    """Largest gradient norm, as in ELMo's task models."""
    alpha: float = 0.0
    """Activation regularisation (AR) of what the head sees."""
    beta: float = 0.0
    """Temporal activation regularisation (TAR) of what the head sees."""
    cache_megabytes: int = 1024
    """Memory for the frozen layers of all samples, so that each is read once; 0 reads it every epoch."""

    def __post_init__(self) -> None:
        check(self)
        if self.placement != "input" and not self.bilstm:
            raise UsageError(
                f"recipe.placement is {self.placement}, beside the states of a BiLSTM, and there is none; "
                "set recipe.bilstm, such as 128"
            )
        if self.bilstm_layers > 1 and not self.bilstm:
            raise UsageError("recipe.bilstm_layers are of a BiLSTM, and there is none; set recipe.bilstm")
        if self.placement == "output" and self.vectors is None and not self.characters:
            raise UsageError(
                "recipe.placement is output, so the BiLSTM reads word vectors alone; set recipe.vectors "
                "or recipe.characters, or recipe.placement to both"
            )
        if self.mix in ("top", "concat") and self.mix_weights:
            raise UsageError(f"recipe.mix is {self.mix}, which has no weights; leave recipe.mix_weights out")
        if self.mix == "concat" and self.layer_norm:
            raise UsageError("recipe.layer_norm is of layers that are mixed, not of recipe.mix=concat")
        if self.mix_last is not None and (self.mix_last < 1 or self.mix == "top"):
            raise UsageError(
                f"recipe.mix_last is {self.mix_last}: a number of layers to mix, from 1, and not with "
                "recipe.mix=top, which takes one"
            )

    def at(self, folder: Path) -> Features:
        """The recipe of a saved model: its vectors lie beside it."""
        return self if self.vectors is None else replace(self, vectors=folder / FILE)

    def task(self, task: Task) -> Task:
        if self.characters:
            task = BesideCharacters(task)
        if self.vectors is None:
            return task
        return BesideVectors(task, Vectors.read(self.vectors, self.max_vectors))

    def wrap(self, encoder: Encoder) -> FrozenFeatures:
        return FrozenFeatures(encoder, self)

    def stages(self, encoder: Encoder, head: Head) -> list[Stage]:
        assert isinstance(encoder, FrozenFeatures)
        groups = []
        if mixes := encoder.mixes().values():  # with their dropout, which trains as they do
            groups.append(Group("mix", (*mixes, encoder.dropout), self.lr))
        if encoder.characters is not None:
            groups.append(Group("characters", (encoder.characters,), self.lr, self.weight_decay))
        if encoder.bilstm is not None:
            groups.append(Group("bilstm", (encoder.bilstm,), self.lr, self.weight_decay))
        above = (head,) if mixes else (head, encoder.dropout)
        groups.append(Group("head", above, self.lr, self.weight_decay))
        return [Stage("features", tuple(groups), self.epochs, WarmupLinear(self.warmup), AdamW(), self.clip)]
