"""GPT's codec against the release's algorithm, transformers, and itself."""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pretune.data.alignment import tokens_of
from pretune.data.rows import Codec
from pretune.data.samples import Part, Span
from pretune.data.words import Words
from pretune.errors import UsageError, UserError
from pretune.methods.gpt.aligning import aligned
from pretune.methods.gpt.bpe import BPE, learned
from pretune.methods.gpt.pretokenizers import HuggingFace, Name, original
from pretune.methods.gpt.tokens import SPECIALS, GPTCodec, GPTCodecConfig
from pretune.runs.starts import WordCodec

CORPUS = [
    "The cat sat on the mat, and the rat sat on the hat.\nThe bat didn't: it sat on the cat!",
    "Low, lower, lowest; new, newer, newest; wide, wider, widest.  “Wide” isn’t “new” — is it?",
    "The lowest cat and the newest rat sat wider than the widest hat on the lower mat.",
] * 2
GOLDEN: list[tuple[str, str, str]] = [
    (
        "Hello world, it's a test.",
        "3570 1276 240 507 535 246 2345 239",
        "3570 1276 240 507 256 252 246 2345 239",
    ),
    (
        'I don\'t know; she said "no"!!!',
        "249 587 538 699 270 520 603 244 664 244 267 267 267",
        "249 2310 256 241 699 270 520 603 244 664 244 267 267 267",
    ),
    ("Café naïve", "13550 24213", "10717 13391"),
    ("line one\nline two", "1584 566 40477 1584 867", "1584 566 1584 867"),
    ("a — b … c", "246 260 259 749 263", "246 0 259 0 263"),
    (
        "Mr. Smith's U.S. e-mail (foo@bar.com).",
        "1682 4920 535 9901 243 260 3884 276 2195 67 1053 7481 275 239",
        "4360 239 4920 256 252 254 239 252 239 243 260 3884 276 738 245 305 2320 239 5259 275 239",
    ),
    ("“smart” ‘quotes’", "244 3919 244 256 23919 256", "0 3919 0 0 23919 0"),
    ("cannot gonna", "759 595 2113 1599", "2274 595 10881 1599"),
    ("very", "963", "963"),
    ("positive negative", "6353 9503", "6353 9503"),
]
# Text with everything that a pretokenizer may stumble over.
HARD = st.text(
    st.one_of(
        st.sampled_from(
            " \n\t'’\"“”-—–…´.,!?()[]&;<>\\/_~+*aAbßİΣςéÃ©\u0301\u200b\u00a0\u2028\r\x0b\x1c\x850159中한"
        ),
        st.characters(),
    ),
    max_size=60,
)


def small(pretokenizer: Name = "builtin", **settings: Any) -> GPTCodec:
    if pretokenizer == "original":
        pytest.importorskip("ftfy")
        pytest.importorskip("spacy")
    return learned_of(GPTCodecConfig(pretokenizer=pretokenizer, **settings))


@cache
def learned_of(config: GPTCodecConfig) -> GPTCodec:
    return GPTCodec.learn(lambda: CORPUS, config)


def published(shared: Callable[[str], Path], pretokenizer: Name) -> GPTCodec:
    if pretokenizer == "original":
        pytest.importorskip("ftfy")
        pytest.importorskip("spacy")
    return read_published(shared("data/gpt1-bpe"), pretokenizer)


@cache
def read_published(folder: Path, pretokenizer: Name) -> GPTCodec:
    return GPTCodec.read(folder, pretokenizer)


def real_lines(shared: Callable[[str], Path], count: int) -> list[str]:
    with lzma.open(shared("data/imdb/train.jsonl.xz"), "rt", encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line in islice(stream, count)]


# -- the published vocabulary ------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "release", "hf"), GOLDEN)
def test_the_published_vocabulary_gives_the_ids_of_the_release_and_of_transformers(
    shared: Callable[[str], Path], text: str, release: str, hf: str
) -> None:
    for name, ids in (("original", release), ("hf", hf)):
        assert published(shared, name).ids([text]) == [list(map(int, ids.split()))]  # type: ignore[arg-type]


def test_the_published_vocabulary_is_in_its_order(shared: Callable[[str], Path]) -> None:
    codec = published(shared, "hf")
    words, ids = codec.vocab.words, codec.vocab.ids
    assert codec.size == 40_481
    assert words[0] == "<unk>"
    assert all(ids[words[n] + "</w>"] == n + 238 for n in range(1, 239))
    assert all(ids[a + b] == 477 + n for n, (a, b) in enumerate(codec.merges))
    assert ids["\n</w>"] == 40_477
    assert (codec.start_id, codec.delimiter_id, codec.classify_id) == (40_478, 40_479, 40_480)


def test_real_text_is_read_as_transformers_reads_it(shared: Callable[[str], Path]) -> None:
    transformers = pytest.importorskip("transformers")
    codec, lines = published(shared, "hf"), real_lines(shared, 1000)
    peer = transformers.OpenAIGPTTokenizer(vocab=dict(codec.vocab.ids), merges=list(codec.merges))
    assert codec.ids(lines) == peer(lines, add_special_tokens=False)["input_ids"]


def test_real_text_is_read_as_the_release_reads_it(shared: Callable[[str], Path]) -> None:
    codec, lines = published(shared, "original"), real_lines(shared, 60)
    lines += [
        "A  line\n\n  with breaks \r\n and\ttabs\\ ",
        "x &amp; y <b> &lt; z",
        "&lt;i&gt;\n<b>&amp;\n&amp;",
    ]
    assert codec.ids(lines) == list(map(Release(codec).ids, lines))


@cache
def release(codec: GPTCodec) -> Release:
    return Release(codec)


class Release:
    """The release's way written down step by step, without memory or haste."""

    def __init__(self, codec: GPTCodec) -> None:
        import ftfy
        import spacy

        self.fix, self.split = ftfy.fix_text, spacy.blank("en").tokenizer
        self.ranks = {pair: rank for rank, pair in enumerate(codec.merges)}
        self.known = codec.vocab.ids

    def ids(self, text: str) -> list[int]:
        words = self.split(self.standardized(self.fix(text)))
        return [self.known.get(p, 0) for word in words for p in self.pieces(word.text.lower())]

    @staticmethod
    def standardized(text: str) -> str:
        for old, new in (("—", "-"), ("–", "-"), ("―", "-"), ("…", "..."), ("´", "'")):
            text = text.replace(old, new)
        text = re.sub(
            r"""(-+|~+|!+|"+|;+|\?+|\++|,+|\)+|\(+|\+|\/+|\*+|\[+|\]+|}+|{+|\|+|_+)""", r" \1 ", text
        )
        text = re.sub(r"\s*\n\s*", " \n ", text)
        return re.sub(r"[^\S\n]+", " ", text).strip()

    def pieces(self, word: str) -> list[str]:
        symbols = [*word[:-1], word[-1] + "</w>"]
        while len(symbols) > 1:
            left, right = min(
                pairwise(symbols),
                key=lambda pair: self.ranks.get(pair, len(self.ranks)),
            )
            if (left, right) not in self.ranks:
                break
            merged: list[str] = []
            for symbol in symbols:
                if merged and merged[-1] == left and symbol == right:
                    merged[-1] = left + right
                else:
                    merged.append(symbol)
            symbols = merged
        joined = " ".join(symbols)
        return ("\n</w>" if joined == "\n  </w>" else joined).split(" ")


@settings(max_examples=100, deadline=None)
@given(HARD)
@example("a \x1c b\n \n c")
@example("\\\\ + ++ \\+")
@example("ÎŸÎ”ÎŸÎ£ ΟΔΟΣ İI")
def test_any_text_is_read_as_the_release_reads_it(text: str) -> None:
    codec = small("original")
    assert codec.ids([text]) == [release(codec).ids(text)]


@settings(max_examples=100, deadline=None)
@given(HARD)
@example("a\u0301\u302e\u0300x")
@example("a\x0bb\x85c\u2028d \ud800")
def test_any_text_is_read_as_tokenizers_reads_it(text: str) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    codec = small("hf")
    model = models.BPE(
        vocab=dict(codec.vocab.ids), merges=list(codec.merges), unk_token="<unk>", end_of_word_suffix="</w>"
    )
    peer = Tokenizer(model)
    peer.normalizer = normalizers.BertNormalizer(lowercase=True)
    peer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    assert codec.ids([text]) == [peer.encode(text).ids]


# -- characters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["builtin", "original", "hf"])
@settings(max_examples=70, deadline=None)
@given(text=HARD)
def test_tokens_go_through_the_text_from_left_to_right_and_are_the_same_with_characters(
    name: Name, text: str
) -> None:
    codec = small(name)
    ((row,),) = codec.encode([(Part(text),)])
    assert row.ids[1:-1] == codec.ids([text])[0]
    spans = row.chars[1:-1]
    assert all(0 <= span.start <= span.end <= len(text) for span in spans)
    starts, ends = [s.start for s in spans], [s.end for s in spans]
    assert starts == sorted(starts) and ends == sorted(ends)


@pytest.mark.parametrize("name", ["builtin", "original", "hf"])
@settings(max_examples=70, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            "a I don't U.S. naïve cafÃ© “so” ﬁne … e-mail x&amp;y 北京 ΟΔΟΣ İzmir \\ 3.5% :) A’s".split()
        ),
        max_size=12,
    ),
    st.sampled_from([" ", "  ", "\n", " \r\n ", "\t"]),
)
def test_every_word_between_spaces_has_tokens(name: Name, words: list[str], space: str) -> None:
    text, spans = space.join(words), []
    for word in words:
        start = text.index(word, spans[-1].end if spans else 0)
        spans.append(Span(start, start + len(word)))
    ((row,),) = small(name).encode([(Part(text),)])
    found = tokens_of(row, 0, spans)
    assert all(found)
    for span, tokens in zip(spans, found, strict=True):  # whole words: no token reaches into the next
        assert row.chars[tokens[0]].start == span.start
        assert row.chars[tokens[-1]].end == span.end


def test_pieces_of_a_repaired_word_stand_for_its_characters() -> None:
    text = "The “cafÃ©”… didn’t fi&amp;x\x00 ﬁne"
    found = aligned("“cafÃ©”… ok&amp;x", '"café"… ok&x')
    assert [text_of(found.span(at, at + 1), "“cafÃ©”… ok&amp;x") for at in range(6)] == [
        "“",
        "c",
        "a",
        "f",
        "Ã©",
        "”",
    ]
    ((row,),) = small("original").encode([(Part(text),)])
    shown = "".join(dict.fromkeys(text[span.start : span.end] for span in row.chars[1:-1]))
    for part in ("The", "“", "Ã©", "”", "…", "did", "n’t", "ne"):
        assert part in shown or set(part) <= set(shown)


def text_of(span: Span, text: str) -> str:
    return text[span.start : span.end]


@settings(max_examples=100, deadline=None)
@given(HARD, HARD)
def test_two_texts_are_aligned_whatever_they_are(source: str, target: str) -> None:
    found = aligned(source, target)
    assert found.text == target
    assert len(found.starts) == len(found.ends) == len(target)
    assert list(found.starts) == sorted(found.starts) and list(found.ends) == sorted(found.ends)
    assert all(0 <= a <= b <= len(source) for a, b in zip(found.starts, found.ends, strict=True))


def test_aligning_long_texts_that_share_nothing_takes_linear_time() -> None:
    found = aligned("ab " * 30_000, "xyz" * 40_000)
    assert len(found.starts) == 120_000


# -- templates ----------------------------------------------------------------------------------------------


def test_rows_are_built_as_the_paper_says() -> None:
    codec = small()
    s, d, c = codec.start_id, codec.delimiter_id, codec.classify_id
    a, b = codec.ids(["The cat sat.", "lower"])
    one, two = Part("The cat sat."), Part("lower")
    ((single,), (pair,)) = codec.encode([(one,), (one, two)])
    assert single.ids == [s, *a, c]
    assert pair.ids == [s, *a, d, *b, c]
    assert pair.part == [-1, *[0] * len(a), -1, *[1] * len(b), -1]
    assert pair.segments == [0] * len(pair)
    ((first, second), (alone,)) = codec.encode([(one, two), (one,)], unordered=True)
    assert first == pair
    assert second.ids == [s, *b, d, *a, c]
    assert second.part == [-1, *[1] * len(b), -1, *[0] * len(a), -1]
    assert alone == single
    assert isinstance(codec, Codec) and isinstance(codec, WordCodec)


def test_empty_texts_leave_the_marks() -> None:
    codec = small()
    s, d, c = codec.start_id, codec.delimiter_id, codec.classify_id
    rows = codec.encode([(Part(""),), (Part(" \n "), Part("")), (Part(""), Part("cat"))])
    assert [row.ids for (row,) in rows] == [[s, c], [s, d, c], [s, d, *codec.ids(["cat"])[0], c]]
    assert codec.ids([""]) == [[]]


@pytest.mark.parametrize("keep", ["head", "tail"])
def test_long_parts_are_cut_as_in_the_release(keep: Any) -> None:
    codec = small(context=32, keep=keep)
    words = "cat rat mat hat sat the and on " * 6
    ids = codec.ids([words])[0]
    ((single,), (pair,), (short,)) = codec.encode(
        [(Part(words),), (Part(words), Part(words)), (Part(words), Part("cat"))]
    )
    kept = (lambda n: ids[:n]) if keep == "head" else (lambda n: ids[-n:])
    s, d, c = codec.start_id, codec.delimiter_id, codec.classify_id
    assert single.ids == [s, *kept(30), c]
    assert pair.ids == [s, *kept(14), d, *kept(14), c]  # context // 2 - 2 of each
    assert short.ids == [s, *kept(14), d, *codec.ids(["cat"])[0], c]
    assert len(short.chars) == len(short.ids)


def test_the_longest_part_alone_is_cut_where_asked() -> None:
    codec = small(context=32, cut="longest")
    words = "cat rat mat hat sat the and on " * 6
    ids, cat = codec.ids([words, "cat"])
    ((row,),) = codec.encode([(Part(words), Part("cat"))])
    assert row.ids == [codec.start_id, *ids[: 29 - len(cat)], codec.delimiter_id, *cat, codec.classify_id]
    assert len(row) == 32
    assert [len(row) for (row,) in codec.encode([(Part(words),) * n for n in (1, 2, 3)])] == [32, 32, 32]


def test_a_text_does_not_feel_its_neighbours() -> None:
    codec, fresh = small(), GPTCodec.learn(lambda: CORPUS, GPTCodecConfig())
    together = codec.ids(CORPUS)
    assert together == [fresh.ids([text])[0] for text in CORPUS[::-1]][::-1]


# -- learning -----------------------------------------------------------------------------------------------


def test_merges_are_learned_as_counting_again_each_time_would() -> None:
    rng = random.Random(7)
    counts = {"".join(rng.choices("abc", k=rng.randint(1, 9))): rng.randint(1, 5) for _ in range(120)}
    vocab, merges = learned(counts, 60, 2)
    assert merges == merges_by_counting(counts, 60, 2)
    singles = vocab[1:4]
    assert vocab[0] == "<unk>" and sorted(singles) == ["a", "b", "c"]
    assert vocab[4:] == [*(one + "</w>" for one in singles), *map("".join, merges), "\n</w>"]


def merges_by_counting(counts: dict[str, int], most: int, least: int) -> list[tuple[str, str]]:
    words = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
    found: list[tuple[str, str]] = []
    made: set[str] = set()
    while len(found) < most:
        pairs: dict[tuple[str, str], int] = {}
        for word, symbols in words.items():
            for pair in pairwise(symbols):
                pairs[pair] = pairs.get(pair, 0) + counts[word]
        possible = [(-n, pair) for pair, n in pairs.items() if n >= least and "".join(pair) not in made]
        if not possible:
            break
        best = min(possible)[1]
        made.add("".join(best))
        found.append(best)
        words = {word: merged(symbols, best) for word, symbols in words.items()}
    return found


def merged(symbols: Sequence[str], pair: tuple[str, str]) -> list[str]:
    result, at = [], 0
    while at < len(symbols):
        here = tuple(symbols[at : at + 2]) == pair
        result.append("".join(pair) if here else symbols[at])
        at += 1 + here
    return result


def test_a_learned_codec_has_the_published_order_and_is_the_same_each_time() -> None:
    codec, again = small(), GPTCodec.learn(lambda: CORPUS, GPTCodecConfig())
    assert codec.vocab == again.vocab and codec.merges == again.merges
    assert codec.fingerprint() == again.fingerprint()
    singles = [word for word in codec.vocab.words[1:] if len(word) == 1]
    made = [left + right for left, right in codec.merges]
    assert list(codec.vocab.words) == [
        *("<unk>", *singles, *(one + "</w>" for one in singles)),
        *(*made, "\n</w>", *SPECIALS),
    ]
    assert codec.tokens("The newest\ncat?") == ["the</w>", "newest</w>", "\n</w>", "cat</w>", "?</w>"]
    assert codec.tokens("zzz") == ["<unk>"] * 3


def test_merges_stop_where_asked_and_rare_characters_are_unknown() -> None:
    codec = small(merges=5, min_count=3)
    assert len(codec.merges) == 5
    assert "?" not in codec.vocab
    with pytest.raises(UserError, match="occurs 9 times"):
        GPTCodec.learn(lambda: ["ab"], GPTCodecConfig(min_count=9))


def test_text_that_spells_the_end_mark_makes_no_piece_twice() -> None:
    codec = GPTCodec.learn(lambda: ["x</w>y x</w>y x x ab</w> ab ab"] * 5, GPTCodecConfig(segmenter="spaces"))
    assert len(set(codec.vocab.words)) == codec.size
    ((row,),) = codec.encode([(Part("x</w>y"),)])
    assert row.chars[-2].end == 6


def test_chinese_is_read_by_its_characters_and_jieba_gives_words() -> None:
    texts = ["我们在北京学习机器学习，北京很大。"] * 3
    codec = GPTCodec.learn(lambda: texts, GPTCodecConfig(language="auto"))
    assert codec.config.language == "zh"
    assert codec.tokens("北京大") == ["北</w>", "京</w>", "大</w>"]
    pytest.importorskip("jieba")
    words = GPTCodec.learn(lambda: texts, GPTCodecConfig(language="zh", segmenter="jieba"))
    assert words.tokens("我们在北京\n\n学习") == ["我们</w>", "在</w>", "北京</w>", "\n</w>", "学习</w>"]
    assert words.decode(words.ids(["在北京\n学习"])[0]) == "在 北京\n学习"


def test_case_is_kept_where_asked() -> None:
    codec = small(lowercase=False)
    assert codec.decode(codec.ids(["The cat"])[0]) == "The cat"
    assert codec.fingerprint() != small().fingerprint()


def test_words_are_those_of_the_builtin_rules_in_lower_case() -> None:
    text = CORPUS[1]
    words = [text[start:end].lower() for start, end in Words("en")(text)]
    assert small().decode(small().ids([text])[0]).split(" ") == words


def test_marks_written_in_a_text_are_no_marks() -> None:
    codec = small()
    ids = codec.ids(["_start_ _classify_ <unk>"])[0]
    assert not {codec.start_id, codec.classify_id} & set(ids)
    assert codec.decode([codec.start_id, *codec.ids(["the cat"])[0], codec.classify_id]) == "the cat"


# -- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["builtin", "original", "hf"])
def test_a_saved_codec_comes_back_whole(name: Name, tmp_path: Path) -> None:
    codec = small(name, context=64, keep="tail")
    codec.save(tmp_path)
    back = GPTCodec.load(tmp_path)
    assert back.config == codec.config
    assert back.vocab == codec.vocab and back.merges == codec.merges
    assert back.fingerprint() == codec.fingerprint() and back.describe() == codec.describe()
    assert back.ids(CORPUS) == codec.ids(CORPUS)


def test_the_three_pretokenizers_are_never_taken_for_one_another(tmp_path: Path) -> None:
    prints = {small(name).fingerprint() for name in ("builtin", "original", "hf")}
    assert len(prints) == 3
    small("hf").save(tmp_path)
    assert json.loads((tmp_path / "codec.json").read_text("utf-8"))["pretokenizer"] == "hf"


def test_what_the_original_needs_is_said_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small("original").save(tmp_path)
    original.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "ftfy", None)
    with pytest.raises(UserError, match=r"pretune\[gpt\]"):
        GPTCodec.load(tmp_path)
    monkeypatch.undo()
    assert GPTCodec.load(tmp_path).size


def test_a_codec_saved_with_other_versions_warns(tmp_path: Path) -> None:
    small().save(tmp_path)
    path = tmp_path / "codec.json"
    path.write_text(path.read_text("utf-8").replace('"words 1"', '"words 0"'), "utf-8")
    with pytest.warns(UserWarning, match="words 0"):
        GPTCodec.load(tmp_path)


@pytest.mark.parametrize("layout", ["openai", "hub", "whole", "whole of pairs"])
def test_published_files_are_read_in_each_layout(layout: str, tmp_path: Path) -> None:
    codec = small("hf")
    ids = {word: number for number, word in enumerate(codec.vocab.words[:-3])}
    lines = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in codec.merges)
    if layout.startswith("whole"):
        merges: list[Any] = [f"{a} {b}" if layout == "whole" else [a, b] for a, b in codec.merges]
        model = {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": ids, "merges": merges}
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    else:
        names = (
            ("encoder_bpe_40000.json", "vocab_40000.bpe")
            if layout == "openai"
            else ("vocab.json", "merges.txt")
        )
        (tmp_path / names[0]).write_text(json.dumps(ids))
        (tmp_path / names[1]).write_text(lines, "utf-8")
    read = GPTCodec.read(tmp_path, "hf")
    assert read.vocab == codec.vocab and read.merges == codec.merges
    assert read.ids(CORPUS) == codec.ids(CORPUS)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no vocabulary of GPT"):
        GPTCodec.read(tmp_path, "hf")
    (tmp_path / "vocab.json").write_text('{"<unk>": 0, "a": 1, "b</w>": 2, "ab</w>": 3}')
    for lines, said in (
        ("#version: 0.2\na c</w>\n", "'c</w>' is not in the vocabulary"),
        ("#version: 0.2\na b</w>\na b</w>\n", "both make 'ab</w>'"),
        ("#version: 0.2\nab</w>\n", "is no merge"),
    ):
        (tmp_path / "merges.txt").write_text(lines)
        with pytest.raises(UserError, match=re.escape(said)):
            GPTCodec.read(tmp_path, "hf")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    assert GPTCodec.read(tmp_path, "hf").ids(["ab b"]) == [[3, 2]]
    (tmp_path / "vocab.json").write_text('{"<unk>": 0, "a": 1, "b</w>": 2, "ab</w>": 4}')
    with pytest.raises(UserError, match="not 0 to 3"):
        GPTCodec.read(tmp_path, "hf")
    with pytest.raises(UserError, match="no codec of GPT"):
        GPTCodec.load(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"pretokenizer": "spacy"},
        {"pretokenizer": "hf", "segmenter": "spaces"},
        {"pretokenizer": "hf", "lowercase": False},
        {"pretokenizer": "original", "language": "de"},
        {"context": 4},
        {"merges": -1},
        {"keep": "middle"},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        GPTCodecConfig(**settings)


def test_a_vocabulary_needs_its_marks_and_the_unknown() -> None:
    with pytest.raises(UserError, match="ends with _start_"):
        GPTCodec(GPTCodecConfig(), ["<unk>", "a"], [])
    with pytest.raises(UserError, match="lacks <unk>"):
        GPTCodec(GPTCodecConfig(), ["a", *SPECIALS], [])
    with pytest.raises(UserError, match="twice"):
        GPTCodec(GPTCodecConfig(), ["<unk>", "a", "a", *SPECIALS], [])


def test_a_very_long_run_without_spaces_is_read_in_linear_time() -> None:
    text = "ab" * 100_000
    for name in ("builtin", "hf"):
        assert sum(map(len, small(name).tokens(text))) >= 200_000  # type: ignore[arg-type]
    blank = " " * 100_000 + "a" + " " * 100_000
    for name in ("builtin", "original", "hf"):
        assert len(small(name).ids([blank])[0]) == 1  # type: ignore[arg-type]


def test_marks_that_change_places_keep_their_characters() -> None:
    words = HuggingFace().words("a\u0301\u302e\u0300x")
    assert "".join(word.text for word in words)[-1] == "x"
    assert words[-1].ends[-1] == 5


def test_pieces_of_a_word_are_as_long_as_the_word() -> None:
    codec = small()
    bpe = BPE(codec.vocab, codec.merges)
    for word in ("newest", "x", "quizzical", "中国", "a"):
        assert sum(bpe.lengths[number] for number in bpe.ids(word)) == len(word)
