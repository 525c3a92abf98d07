"""Codecs of ELMo and ULMFiT as tokenizers of transformers."""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-call"
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers import BatchEncoding, PythonBackend

from pretune.data.rows import Row
from pretune.data.samples import Part
from pretune.errors import UsageError
from pretune.runs.exporting_recurrent import codec_from
from pretune.runs.folders import check_code

FILES = {"codec_file": "codec.json", "vocab_file": "vocab.txt", "pieces_file": "tokenizer.json"}
INPUTS = ["input_ids", "attention_mask"]


class PretuneTokenizer(PythonBackend):
    """Texts -> `input_ids` and `attention_mask`, exactly as pretune reads them.

    Padding is on the right. `truncation` with `max_length` keeps the beginning; the models need none. Words
    are split, and read, by the codec that was saved; `tokenize` and `decode` speak of its vocabulary.
    """

    vocab_files_names = FILES
    model_input_names = INPUTS
    method: ClassVar[str]
    padding: ClassVar[str]

    def __init__(self, codec_file: str, vocab_file: str | None = None, **kwargs: Any) -> None:
        folder = Path(codec_file).parent
        check_code(folder, {})
        codec: Any = codec_from(self.method, folder)
        self.codec = codec
        self._words: Mapping[str, int] = codec.vocab.ids if codec.vocab else {}
        self._names = {number: word for word, number in self._words.items()}
        kwargs.setdefault("pad_token", self.padding)
        kwargs.pop("pieces_file", None)
        super().__init__(codec_file=codec_file, vocab_file=vocab_file, **kwargs)

    @property
    def vocab_size(self) -> int:
        return int(self.codec.size)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._words)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return list(self.codec.words(text) if self.method == "elmo" else self.codec.tokens(text))

    def _convert_token_to_id(self, token: str) -> int:
        return int(self._words.get(token, self.codec.unknown_id))

    def _convert_id_to_token(self, index: int) -> str:
        return self._names.get(index, self.padding)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        return " ".join(tokens)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        folder = Path(save_directory)
        self.codec.save(folder)
        return tuple(
            str(folder / name) for name in self.vocab_files_names.values() if (folder / name).is_file()
        )

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        text_pair: str | Sequence[str] | None = None,
        *,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """One text or several, each alone or with a pair."""
        if text is None:
            raise UsageError("a tokenizer is called with a text or a list of texts")
        one = isinstance(text, str)
        firsts: list[str] = [text] if isinstance(text, str) else list(text)
        seconds = [text_pair] if isinstance(text_pair, str) else list(text_pair or ())
        pairs = zip(firsts, seconds, strict=True) if seconds else ((x,) for x in firsts)
        rows = [row for (row,) in self.codec.encode([tuple(Part(x) for x in both) for both in pairs])]
        longest = (
            None if truncation in (None, False, "do_not_truncate") else max_length or self.model_max_length
        )
        found = [self._ids(row)[: None if longest is None else int(min(longest, 1 << 40))] for row in rows]
        if one and return_tensors is None:
            return BatchEncoding({"input_ids": found[0], "attention_mask": [1] * len(found[0])})
        wanted = padding or (return_tensors is not None and len(found) == 1)
        features = {"input_ids": found, "attention_mask": [[1] * len(ids) for ids in found]}
        return self.pad(features, wanted, max_length, return_tensors=return_tensors)

    def _ids(self, row: Row) -> list[Any]:
        """What the model is given for each token."""
        return row.ids

    def _filling(self) -> Any:
        return self.codec.pad_id

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Fill rows up on the right; what else a feature has, such as labels, is stacked as it is."""
        if (padding_side or self.padding_side) != "right":
            raise UsageError("padding_side is 'left'; these models begin a text at the left: use 'right'")
        many: Any = encoded_inputs
        if not isinstance(encoded_inputs, Mapping):
            many = {name: [one[name] for one in encoded_inputs] for name in encoded_inputs[0]}
        found = {
            name: [x.tolist() if hasattr(x, "tolist") else x for x in rows] for name, rows in many.items()
        }
        length = max((len(ids) for ids in found["input_ids"]), default=0)
        length = max_length if padding == "max_length" and max_length is not None else length
        if padding and pad_to_multiple_of:
            length += -length % pad_to_multiple_of
        if padding not in (False, "do_not_pad"):
            masks = found.get("attention_mask") or [[1] * len(ids) for ids in found["input_ids"]]
            found["attention_mask"] = [mask + [0] * (length - len(mask)) for mask in masks]
            found["input_ids"] = [ids + [self._filling()] * (length - len(ids)) for ids in found["input_ids"]]
        return BatchEncoding(found, tensor_type=return_tensors)


class PretuneAwdLstmTokenizer(PretuneTokenizer):
    """ULMFiT's: `input_ids` (N, T)."""

    method = "ulmfit"
    padding = "xxpad"


class PretuneElmoTokenizer(PretuneTokenizer):
    """ELMo's: `input_ids` (N, T, C), the characters of each word; padding is 0."""

    method = "elmo"
    padding = "<pad>"

    def _ids(self, row: Row) -> list[Any]:
        if self.codec.spell is None:
            return row.ids
        characters: list[Any] = self.codec.spell(row.spelled).tolist()
        return characters

    def _filling(self) -> Any:
        return 0 if self.codec.spell is None else [0] * self.codec.config.max_characters
