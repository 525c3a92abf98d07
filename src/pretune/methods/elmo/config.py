"""What an ELMo is made of: every option of the published `options.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pretune.errors import UsageError, choose
from pretune.layers.char_cnn import Activation
from pretune.methods.elmo.tokens import Inputs

Directions = Literal["both", "forward"]


@dataclass(frozen=True)
class ELMoConfig:
    """Defaults are the original model, `2x4096_512_2048cnn_2xhighway`."""

    dim: int = 4096
    """H, cells of an LSTM."""
    projection_dim: int = 512
    """D, what they are projected to; equal to `dim` for no projection."""
    layers: int = 2
    """LSTMs upon each other, in each direction."""
    cell_clip: float | None = 3.0
    """Bound of the cell state."""
    proj_clip: float | None = 3.0
    """Bound of the projected output, which is also the recurrent state."""
    skip_connections: bool = True
    """From the second layer on, a layer's input is added to its output."""
    filters: tuple[tuple[int, int], ...] = (
        (1, 32),
        (2, 32),
        (3, 64),
        (4, 128),
        (5, 256),
        (6, 512),
        (7, 1024),
    )
    """Convolutions over characters: (characters wide, how many)."""
    activation: Activation = "relu"
    """After the convolutions: relu or tanh. Highways have relu always."""
    highways: int = 2
    """Highway layers between convolutions and projection."""
    char_dim: int = 16
    """Width of a character's vector."""
    max_characters: int = 50
    """Of a word, its two marks included."""
    inputs: Inputs = "characters"
    """What a word is read as: its characters, or an id of the vocabulary."""
    directions: Directions = "both"
    """forward alone is a plain language model."""
    softmax: bool = False
    """Whether the encoder can predict words, as it must to be pretrained."""
    tied: bool = False
    """With `inputs` of words: one matrix for reading and predicting (`share_embedding_softmax`)."""
    dropout: float = 0.1
    """On the input of every LSTM while training, anew at each time step."""

    def __post_init__(self) -> None:
        for name in ("dim", "projection_dim", "layers", "char_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"encoder.{name} is {getattr(self, name)}; it must be at least 1")
        for name, possible in (("inputs", get_args(Inputs)), ("directions", get_args(Directions))):
            if getattr(self, name) not in possible:
                raise choose(f"encoder.{name}", getattr(self, name), possible)
        if not 0 <= self.dropout < 1:
            raise UsageError(f"encoder.dropout is {self.dropout}; it must be from 0 to below 1")
        if self.tied and self.inputs == "characters":
            raise UsageError("encoder.tied needs encoder.inputs=words: characters have no matrix of words")
        widest = max((size for size, _ in self.filters), default=0)
        if self.inputs == "characters" and not 0 < widest <= self.max_characters:
            raise UsageError(
                f"encoder.filters are up to {widest} characters wide; 1 to {self.max_characters} fit"
            )

    @property
    def ways(self) -> int:
        return 2 if self.directions == "both" else 1
