"""Codecs of GPT and BERT as tokenizers of transformers: tokenizer.json and the files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from pretune.data.vocab import write_text
from pretune.methods.bert.tokens import CLASSIFY as CLS
from pretune.methods.bert.tokens import MASK, PAD, SEPARATOR, BERTCodec
from pretune.methods.bert.wordpiece import INSIDE, LONGEST_WORD, UNKNOWN
from pretune.methods.gpt.bpe import END
from pretune.methods.gpt.bpe import UNKNOWN as GPT_UNKNOWN
from pretune.methods.gpt.files import merges_text
from pretune.methods.gpt.tokens import CLASSIFY, DELIMITER, START, GPTCodec
from pretune.runs.files import write_json

PLAIN: Final = "PreTrainedTokenizerFast"  # reads tokenizer.json as it stands, whatever the model


def write_gpt_vocabulary(codec: GPTCodec, pieces: Path, merges: Path, marks: bool) -> None:
    """Pieces with their ids, and the merges; the special tokens last, where `marks` is set."""
    words = codec.vocab.words if marks else codec.vocab.words[:-3]
    ids = {word: number for number, word in enumerate(words)}
    write_text(pieces, json.dumps(ids, ensure_ascii=False) + "\n")
    write_text(merges, merges_text(codec.merges))


def write_gpt_tokenizer(codec: GPTCodec, out: Path, marks: bool) -> list[str]:
    """With `marks` every text stands between `_start_` and `_classify_`, as classifiers read it; a language
    model reads text alone. What differs from our reading, as lines.
    """
    write_gpt_vocabulary(codec, out / "vocab.json", out / "merges.txt", marks=True)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=dict(codec.vocab.ids),
            merges=list(codec.merges),
            unk_token=GPT_UNKNOWN,
            end_of_word_suffix=END,
            continuing_subword_prefix="",
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix=END)
    if marks:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {CLASSIFY}",
            pair=f"{START} $A {DELIMITER} $B {CLASSIFY}",
            special_tokens=[
                (START, codec.start_id),
                (DELIMITER, codec.delimiter_id),
                (CLASSIFY, codec.classify_id),
            ],
        )
    about = {
        "unk_token": GPT_UNKNOWN,
        "pad_token": GPT_UNKNOWN,
        "truncation_side": "right" if codec.config.keep == "head" else "left",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    _write(tokenizer, out, codec.config.context, about)
    return _gpt_notes(codec)


def _gpt_notes(codec: GPTCodec) -> list[str]:
    notes = [f"{GPT_UNKNOWN} in a text is a special token to transformers, signs and a word to this codec"]
    if codec.config.pretokenizer != "hf":
        notes.append(
            f"NOT THE SAME TOKENS: {codec.pretokenizer.described} cannot be said in tokenizer.json, so "
            "transformers finds words by its own rules, and other words give other answers. Give the model "
            "this codec's ids, or learn with codec.pretokenizer=hf"
        )
    return notes


def write_bert_tokenizer(codec: BERTCodec, out: Path) -> list[str]:
    """What differs from our reading, as lines."""
    config = codec.config
    accents = config.lowercase if config.strip_accents is None else config.strip_accents
    write_text(out / "vocab.txt", "".join(f"{word}\n" for word in codec.vocab.words))
    longest = LONGEST_WORD[config.style]
    tokenizer = Tokenizer(
        models.WordPiece(codec.vocab.ids, unk_token=UNKNOWN, max_input_chars_per_word=longest)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=accents,
        lowercase=config.lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=INSIDE)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS}:0 $A:0 {SEPARATOR}:0",
        pair=f"{CLS}:0 $A:0 {SEPARATOR}:0 $B:1 {SEPARATOR}:1",
        special_tokens=[(CLS, codec.cls_id), (SEPARATOR, codec.sep_id)],
    )
    about: dict[str, Any] = {
        "do_lower_case": config.lowercase,
        "strip_accents": accents,
        "unk_token": UNKNOWN,
        "pad_token": PAD,
        "cls_token": CLS,
        "sep_token": SEPARATOR,
        "mask_token": MASK,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    kind = "BertTokenizer" if config.style == "hf" else PLAIN  # the former reads words of 100 characters
    _write(tokenizer, out, config.context, about, kind)
    notes = [f"{MASK} and its like in a text are special tokens to transformers, words to this codec"]
    if config.style == "google":
        notes.append(
            "codec.style is google: in a few scripts, and at private characters, transformers cuts otherwise"
        )
    return notes


def _write(tokenizer: Tokenizer, out: Path, context: int, about: dict[str, Any], kind: str = PLAIN) -> None:
    """tokenizer.json, and tokenizer_config.json with what it cannot say."""
    write_text(out / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    config = {"tokenizer_class": kind, "model_max_length": context, "padding_side": "right", **about}
    write_json(out / "tokenizer_config.json", {**config, "clean_up_tokenization_spaces": False})
