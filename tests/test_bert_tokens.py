"""BERT's codec: Google's pieces and transformers', spans of the text, pairs, a vocabulary that is learned."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.data.samples import Part, Span
from pretune.errors import UsageError, UserError
from pretune.methods.bert.learning import learn_pieces
from pretune.methods.bert.tokens import (
    SPECIALS,
    BERTCodec,
    BERTCodecConfig,
    kept_lengths,
    read_vocab,
    validate_case,
)
from pretune.methods.bert.wordpiece import DIFFERENT, WordPiece

Shared = Callable[[str], Path]

PIECES = "the un ##aff ##able ##want ##ed want ##wa ##ing , runn 漢 字 a ##b σ ##α ##ς".split()
VOCAB = [*SPECIALS, *PIECES]


def codec(**settings: object) -> BERTCodec:
    return BERTCodec(BERTCodecConfig(**settings), VOCAB)  # type: ignore[arg-type]


def said(made: BERTCodec, text: str) -> list[str]:
    return [made.vocab.words[i] for i in made.ids([text])[0]]


def test_words_are_cut_into_the_longest_pieces_or_are_unknown_as_a_whole() -> None:
    made = codec()
    assert said(made, "UNwant\u00e9d,running") == ["un", "##want", "##ed", ",", "runn", "##ing"]
    assert said(made, "unwantedX the") == ["[UNK]", "the"]
    assert said(made, "the漢字the") == ["the", "漢", "字", "the"]
    assert said(made, "\x00the\u200d\ufffd un\u00adable\u3000,") == ["the", "un", "##able", ","]
    assert said(made, "") == said(made, " \n\t") == []


def test_google_reads_longer_words_than_transformers() -> None:
    word = "a" + "b" * 150
    assert said(codec(), word) == ["a"] + ["##b"] * 150
    assert said(codec(style="hf"), word) == ["[UNK]"]
    assert said(codec(), "a" + "b" * 200) == ["[UNK]"]


def test_a_text_cannot_say_special_tokens() -> None:
    for style in ("google", "hf"):
        assert said(codec(style=style), "[MASK] [SEP]") == ["[UNK]"] * 6


def test_spans_are_of_the_text_as_it_was_written() -> None:
    text = "  Un\u0301affable,\u200d漢 Ünwanted ΣΑΣ"
    ((row,),) = codec().encode([(Part(text),)])
    found = [(codec().vocab.words[i], text[start:end]) for i, (start, end) in zip(row.ids, row.chars)]
    assert found == [
        ("[CLS]", ""),
        ("un", "Un"),
        ("##aff", "aff"),
        ("##able", "able"),
        (",", ","),
        ("漢", "漢"),
        ("un", "Ün"),
        ("##want", "want"),
        ("##ed", "ed"),
        ("σ", "Σ"),
        ("##α", "Α"),
        ("##ς", "Σ"),
        ("[SEP]", ""),
    ]
    assert row.part == [-1, *[0] * 11, -1]


def test_pairs_are_one_row_of_two_segments() -> None:
    made = codec()
    both = (Part("the unwanted"), Part("running"))
    for unordered in (False, True):
        ((row,),) = made.encode([both], unordered)
        words = [made.vocab.words[i] for i in row.ids]
        assert words == ["[CLS]", "the", "un", "##want", "##ed", "[SEP]", "runn", "##ing", "[SEP]"]
        assert row.segments == [0] * 6 + [1] * 3
        assert row.part == [-1, 0, 0, 0, 0, -1, 1, 1, -1]
        assert row.chars[6] == Span(0, 4)


def test_tokens_go_from_the_end_of_the_longer_text_and_of_the_second_where_both_are_as_long() -> None:
    for lengths in ([10, 10], [3, 10], [10, 3], [1, 1], [7, 6], [0, 9], [12, 2]):
        for room in range(3, 14):
            a, b = lengths
            while a + b > room:
                a, b = (a - 1, b) if a > b else (a, b - 1)
            assert kept_lengths(lengths, room) == [a, b]
    assert kept_lengths([50], 10) == [10]
    made = codec(context=8)
    ((row,),) = made.encode([(Part("the " * 9), Part("want " * 9))])
    assert [made.vocab.words[i] for i in row.ids] == "[CLS] the the the [SEP] want want [SEP]".split()
    ((row,),) = made.encode([(Part("the " * 9),)])
    assert len(row) == 8 and row.part == [-1, *[0] * 6, -1]


def test_a_text_is_read_alike_alone_and_among_others() -> None:
    made = codec()
    texts = ["the unwanted", "ΣΑΣ the", "", "running 漢字", "the unwanted"]
    assert made.ids(texts) == [codec().ids([text])[0] for text in texts]
    parts = [(Part(text),) for text in texts]
    assert made.encode(parts) == [codec().encode([one])[0] for one in parts]


ALIKE = st.characters(codec="utf-8").filter(lambda x: not DIFFERENT.match(x))


@given(st.text(ALIKE | st.sampled_from("abé.漢\u0301\u200d A"), max_size=20), st.booleans())
def test_the_library_cuts_as_we_do_where_it_is_trusted(text: str, lowercase: bool) -> None:
    ids = {word: i for i, word in enumerate([*SPECIALS, *"abe漢é", "##b", "##e", "ab"])}
    reader = WordPiece(ids, "google", lowercase, lowercase)
    read = reader.rust.encode(text, add_special_tokens=False)
    assert (read.ids, read.offsets) == reader._pieces(text)
    assert reader.pieces([text])[0] == (read.ids, read.offsets)


@given(st.text(max_size=30))
def test_any_text_at_all_is_read_in_both_styles(text: str) -> None:
    for style in ("google", "hf"):
        made = codec(style=style)
        ((row,),) = made.encode([(Part(text),)])
        assert row.ids[1:-1] == made.ids([text])[0]
        assert all(0 <= start < end <= len(text) for start, end in row.chars[1:-1])


def test_real_text_gives_the_ids_of_transformers(shared: Shared) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    for name, file in (
        ("uncased", "data/litbank-novels/novels.jsonl.xz"),
        ("chinese", "data/niutrans-modern-zh/modern.jsonl.xz"),
    ):
        vocab = shared(f"data/bert-vocab/bert-base-{name}-vocab.txt")
        theirs = transformers.BertTokenizer(vocab={w: i for i, w in enumerate(read_vocab(vocab))})
        made = BERTCodec.published(vocab, BERTCodecConfig(style="hf"))
        with lzma.open(shared(file), "rt", encoding="utf-8") as stream:
            text = "\n".join(json.loads(line)["text"] for line in islice(stream, 20))
        lines = [line for line in text.split("\n") if line.strip()][:1000]
        assert len(lines) == 1000
        read = theirs(lines, add_special_tokens=False, return_offsets_mapping=True)
        assert made.ids(lines) == read["input_ids"]
        rows = [row for (row,) in made.encode([(Part(line),) for line in lines])]
        assert [row.chars[1:-1] for row in rows] == [spans[:510] for spans in read["offset_mapping"]]
        firsts, seconds = lines[:500], lines[500:]
        pairs = theirs(firsts, seconds, truncation="longest_first", max_length=64)
        cut = BERTCodec.published(vocab, BERTCodecConfig(style="hf", context=64))
        rows = [row for (row,) in cut.encode([(Part(a), Part(b)) for a, b in zip(firsts, seconds)])]
        short = [n for n, row in enumerate(rows) if len(row) < 64]  # they cut other tokens off
        assert [rows[n].ids for n in short] == [pairs["input_ids"][n] for n in short]
        assert [rows[n].segments for n in short] == [pairs["token_type_ids"][n] for n in short]


def test_a_vocabulary_in_another_case_is_refused(shared: Shared) -> None:
    cased = [*SPECIALS, "Paris", "##ed", "the", "[unused1]"]
    with pytest.raises(UsageError, match=r"capital letters.*codec.lowercase=false"):
        BERTCodec(BERTCodecConfig(), cased)
    BERTCodec(BERTCodecConfig(lowercase=False), cased)
    with pytest.raises(UsageError, match=r"codec.lowercase=false"):
        validate_case(cased, True, "vocab.txt")
    for name in ("uncased", "chinese"):
        path = shared(f"data/bert-vocab/bert-base-{name}-vocab.txt")
        assert BERTCodec.published(path, BERTCodecConfig()).pad_id == 0
        with pytest.raises(UsageError, match=r"no capital letters.*codec.lowercase=true"):
            BERTCodec.published(path, BERTCodecConfig(lowercase=False))


CORPUS = ["low low low low low lower lower", "newest newest newest newest newest newest wide", "Wide 漢字漢"]


def test_a_learned_vocabulary_has_specials_characters_and_then_the_most_frequent_pairs() -> None:
    made = BERTCodec.learn(lambda: CORPUS, BERTCodecConfig(vocab_size=200))
    words = made.vocab.words
    assert words[:5] == SPECIALS and made.pad_id == 0
    characters = [word for word in words[5:] if len(word.removeprefix("##")) == 1]
    assert list(words[5 : 5 + len(characters)]) == characters
    assert characters[:6] == ["l", "n", "w", "字", "漢", "##d"]
    assert {"low", "newest", "wide", "lower"} <= {*words} and "漢字" not in words
    # ##w ##e 8 times, in lower and newest; l ##o 7; then four pairs of newest 6 times, of which this is first
    assert words[5 + len(characters) :][:3] == ("##we", "lo", "##ewe")
    assert BERTCodec.learn(lambda: CORPUS, BERTCodecConfig(vocab_size=200)).vocab == made.vocab
    assert BERTCodec.learn(lambda: CORPUS, BERTCodecConfig(vocab_size=25)).size <= 25
    assert said(made, "lower WIDE") == ["lower", "wide"]


def slowly(counts: dict[str, int], most: int, least: int) -> list[str]:
    """The same by counting all pairs anew for each merge."""
    words = [([w[0], *("##" + x for x in w[1:])], n) for w, n in counts.items()]
    found = sorted({p for pieces, _ in words for p in pieces}, key=lambda p: (p.startswith("##"), p))
    while len(found) < most:
        pairs: dict[tuple[str, str], int] = {}
        for pieces, n in words:
            for pair in pairwise(pieces):
                pairs[pair] = pairs.get(pair, 0) + n
        if not pairs or max(pairs.values()) < least:
            break
        a, b = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = a + b.removeprefix("##")
        found += [merged] if merged not in found else []
        for pieces, _ in words:
            i = 0
            while i < len(pieces) - 1:
                if (pieces[i], pieces[i + 1]) == (a, b):
                    pieces[i : i + 2] = [merged]
                i += 1
    return found


@given(st.dictionaries(st.text("abc", min_size=1, max_size=9), st.integers(1, 9), min_size=1, max_size=12))
def test_pieces_learned_step_by_step_are_those_of_counting_anew(counts: dict[str, int]) -> None:
    assert learn_pieces(counts, 60, 2) == slowly(counts, 60, 2)


def test_the_rarest_characters_go_where_there_is_little_room() -> None:
    counts = {"aaaa": 50, "ab": 20, "xyz": 1}
    assert learn_pieces(counts, 6) == ["a", "##a", "##b", "##aa", "##aaa", "aaaa"]


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    made = BERTCodec.learn(lambda: CORPUS, BERTCodecConfig(language="auto", context=64, strip_accents=False))
    made.save(tmp_path)
    again = BERTCodec.load(tmp_path)
    assert again.config == made.config and again.vocab == made.vocab
    assert again.fingerprint() == made.fingerprint()
    assert (tmp_path / "vocab.txt").read_text().split("\n")[:5] == list(SPECIALS)
    assert again.describe() == f"WordPiece as Google cuts it, small letters (en), {made.size} ids"
    assert replace(made.config, style="hf") != made.config
    assert BERTCodec(replace(made.config, style="hf"), made.vocab).fingerprint() != made.fingerprint()


def test_published_vocabularies_keep_their_odd_lines(tmp_path: Path) -> None:
    words = [*SPECIALS, '"', "\u2028", "##\u2028", "é"]
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(words).encode() + b"\r\n")
    assert read_vocab(tmp_path / "vocab.txt") == words


def test_ids_become_text_again() -> None:
    made = codec()
    ((row,),) = made.encode([(Part("the unwanted, 漢字"), Part("running x"))])
    assert made.decode(row.ids) == "the unwanted, 漢字 running [UNK]"
    assert made.decode([made.cls_id, made.mask_id, made.sep_id, made.pad_id]) == "[MASK]"


def test_mistakes_are_named(tmp_path: Path) -> None:
    for settings, message in (
        ({"style": "bert"}, "codec.style"),
        ({"vocab_size": 5}, "codec.vocab_size is 5"),
        ({"context": 4}, "codec.context is 4"),
    ):
        with pytest.raises(UsageError, match=message):
            BERTCodecConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"lacks the special tokens \[CLS\], \[MASK\]"):
        BERTCodec(BERTCodecConfig(), ["[PAD]", "[UNK]", "[SEP]"])
    with pytest.raises(UserError, match="no words to learn"):
        BERTCodec.learn(lambda: [" ", "\u200d"], BERTCodecConfig())
    with pytest.raises(UserError, match="no codec of BERT"):
        BERTCodec.load(tmp_path)
    with pytest.raises(UserError, match="no vocabulary there"):
        read_vocab(tmp_path / "vocab.txt")
