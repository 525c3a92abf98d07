from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.data.rows import NOTHING, Codec, first_token, last_token
from pretune.data.samples import Part, Span
from pretune.data.segment import segmenter
from pretune.data.vocab import Vocab
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit.rules import SPECIALS
from pretune.methods.ulmfit.tokens import UlmfitCodec, UlmfitCodecConfig

CORPUS = ["The cat sat on the mat.", "I can't believe it!!!!", "It was GREAT, great great great!"]


def learned(*texts: str, **settings: object) -> UlmfitCodec:
    config = UlmfitCodecConfig(**{"min_count": 1, **settings})  # type: ignore[arg-type]
    return UlmfitCodec.learn(lambda: texts or CORPUS, config)


def own(text: str) -> list[Span]:
    """A user's function that sees whole texts: here the built-in rules, to be compared with."""
    return segmenter("en", "words")(text)


def by_blanks(text: str) -> list[Span]:
    return [Span(*match.span()) for match in re.finditer(r"\S+ \S+|\S+", text)]


CODEC = learned()
OWN = learned(segmenter=f"{__name__}:own")
CHINESE = learned("这部电影很好看。", language="zh")


def tokens(text: str) -> str:
    return " ".join(CODEC.tokens(text)[1:])


@pytest.mark.parametrize(
    ("text", "expected"),  # fastai 2.8 with spaCy 3.8 gives the same
    [
        ("I can't, won't U.S. $3.50", "i ca n't , wo n't xxup u.s . $ 3.50"),
        ("GREAT!!!!", "xxup great xxrep 4 !"),
        ("", ""),
        (" \n ", ""),
        ("<br /><br />", ""),
        ("a <br /><br /> b", "a \n\n▁ b"),
        ("a<br /><br />b  c\td", "a \n\n b c \t d"),
        ("A I Am OK McDonald's iPhone USA-made", "a i xxmaj am xxup ok mcdonald 's iphone usa - made"),
        ("no no go go go! Yes YES YES YES", "no no xxwrep 3 go ! xxmaj yes xxwrep 3 xxup yes"),
        ("AT&amp;T &lt;b&gt; it#39;s", "xxup at&&t < b > it 's"),
        ("and/or C# x\\y", "and / or c # x \\ y"),
        ("wait... <unk> 3 @.@ 5 well @-@ made", "wait … xxunk 3.5 well - made"),
        ("yes!! yes!!! <<<", "yes ! ! yes xxrep 3 ! xxrep 3 <"),
        ("Élan ΑΣ İs", "élan ας i̇s"),
    ],
)
def test_the_rules_are_fastais(text: str, expected: str) -> None:
    assert tokens(text) == expected
    assert CODEC.tokens(text)[0] == "xxbos"


PARTS = [
    "a",
    "I",
    "The",
    "GO",
    " ",
    "  ",
    "\n",
    "go go go",
    "!!!!",
    "...",
    "&amp;",
    "&#x41;",
    "#39;",
    "<br />",
    "/",
    "'s",
]
PARTS += [
    "can't",
    "U.S.",
    "İ",
    "ß",
    "aaa",
    "\t",
    "<unk>",
    " @-@ ",
    "xxrep",
    "xxpad",
    "中文",
    "哈哈哈",
    "—",
    "1 1 1",
    "\\n",
    "ΑΣ",
]
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=10).map("".join)


def plain_rules(text: str) -> str:
    """fastai's own rules, word for word, less the first token."""
    for old, new in [
        ("#39;", "'"),
        ("amp;", "&"),
        ("#146;", "'"),
        ("nbsp;", " "),
        ("#36;", "$"),
        ("\\n", "\n"),
    ]:
        text = text.replace(old, new)
    text = text.replace("quot;", "'").replace("<br />", "\n").replace('\\"', '"').replace("<unk>", "xxunk")
    text = html.unescape(text.replace(" @.@ ", ".").replace(" @-@ ", "-").replace("...", " …"))
    text = re.sub(r"(\S)(\1{2,})", lambda m: f" xxrep {len(m[2]) + 1} {m[1]} ", text)
    wrep = re.compile(r"(?:\s|^)(\w+)\s+((?:\1\s+)+)\1(\s|\W|$)")
    text = wrep.sub(lambda m: f" xxwrep {len(m[2].split()) + 2} {m[1]} {m[3]}", text)
    text = re.sub(" {2,}", " ", re.sub(r"([/#\\])", r" \1 ", text))
    for mark, pattern in [
        ("xxup", r"(\s|^)([A-Z]+[^a-z\s]*)(?=(\s|$))"),
        ("xxmaj", r"(\s|^)([A-Z][^A-Z\s]*)(?=(\s|$))"),
    ]:
        text = re.sub(
            pattern, lambda m, k=mark: m[1] + (f"{k} " if len(m[2]) > 1 else "") + m[2].lower(), text
        )
    return text.lower().strip()


@given(TEXTS)
def test_rules_applied_piece_by_piece_equal_rules_applied_to_the_text(text: str) -> None:
    plain = plain_rules(text)
    words = [plain[start:end] for start, end in segmenter("en")(plain)]
    assert [token for token in CODEC.tokens(text)[1:] if not token.replace("▁", " ").isspace()] == words


@given(st.lists(TEXTS, max_size=4), st.sampled_from([CODEC, OWN, CHINESE]))
def test_aligned_and_fast_paths_and_batch_and_single_give_the_same_ids(
    texts: list[str], codec: UlmfitCodec
) -> None:
    rows = [row for (row,) in codec.encode([(Part(text),) for text in texts])]
    assert [row.ids for row in rows] == codec.ids(texts)
    assert rows == [codec.encode([(Part(text),)])[0][0] for text in texts]


@given(TEXTS)
def test_a_function_that_sees_whole_texts_gives_what_the_same_words_give_run_by_run(text: str) -> None:
    assert OWN.tokens(text) == CODEC.tokens(text)
    assert OWN.encode([(Part(text),)])[0][0].chars == CODEC.encode([(Part(text),)])[0][0].chars


@given(TEXTS, st.sampled_from([CODEC, OWN, CHINESE]))
def test_characters_of_tokens_lie_in_the_text_and_go_from_left_to_right(
    text: str, codec: UlmfitCodec
) -> None:
    row = codec.encode([(Part(text),)])[0][0]
    assert len(row.ids) == len(row.segments) == len(row.part) == len(row.chars) == len(codec.tokens(text))
    assert (row.part[0], row.chars[0]) == (-1, NOTHING)
    assert set(row.part[1:]) <= {0}
    assert all(0 <= span.start < span.end <= len(text) for span in row.chars[1:])
    assert all(a.start <= b.start for a, b in zip(row.chars[1:], row.chars[2:], strict=False))


@given(
    st.lists(
        st.sampled_from(["cat", "sat", "can", ",", "Naïve", "Ünder", "12", "x-y", "U.S.", "東京"]),
        max_size=12,
        unique=True,
    ).map(" ".join)
)
def test_a_plain_token_is_its_characters_in_lower_case(text: str) -> None:
    for codec in (CODEC, CHINESE):
        row = codec.encode([(Part(text),)])[0][0]
        for token, span in zip(codec.tokens(text), row.chars, strict=True):
            assert token in SPECIALS or token == text[span.start : span.end].lower()


def spans(text: str, codec: UlmfitCodec = CODEC) -> list[tuple[str, str]]:
    row = codec.encode([(Part(text),)])[0][0]
    return [
        (token, text[span.start : span.end])
        for token, span in zip(codec.tokens(text), row.chars, strict=True)
    ]


def test_marks_stand_for_the_characters_they_speak_of() -> None:
    assert spans("So&amp;so İs GREAT!!!! no no no?")[1:] == [
        ("xxmaj", "So&amp;so"),
        ("so&&so", "So&amp;so"),
        ("i̇s", "İs"),
        ("xxup", "GREAT"),
        ("great", "GREAT"),
        ("xxrep", "!!!!"),
        ("4", "!!!!"),
        ("!", "!!!!"),
        ("xxwrep", "no no no"),
        ("3", "no no no"),
        ("no", "no no no"),
        ("?", "?"),
    ]
    assert spans("哈哈哈，好ok", CHINESE)[1:] == [
        *(("xxrep", "哈哈哈"), ("3", "哈哈哈"), ("哈", "哈哈哈")),
        *(("，", "，"), ("好", "好"), ("ok", "ok")),
    ]


def test_characters_lead_to_tokens() -> None:
    text = "Well, he can't come."
    row = CODEC.encode([(Part(text),)])[0][0]
    read = CODEC.tokens(text)
    start = text.index("can't")
    first, last = first_token(row, 0, start), last_token(row, 0, start + 5)
    assert first is not None
    assert last is not None
    assert read[first : last + 1] == ["ca", "n't"]


def test_several_parts_are_one_row_with_numbered_fields() -> None:
    ((row,),) = CODEC.encode([(Part("The cat"), Part("it sat"), Part("mat"))], unordered=True)
    read = CODEC.tokens("The cat", "it sat", "mat")
    assert " ".join(read) == "xxbos xxfld 1 xxmaj the cat xxfld 2 it sat xxfld 3 mat"
    assert row.part == [-1, -1, -1, 0, 0, 0, -1, -1, 1, 1, -1, -1, 2]
    assert row.segments == [0] * 6 + [1] * 7
    assert row.chars[8] == Span(0, 2)
    assert row.ids[1] == CODEC.vocab.ids["xxfld"]


def test_backward_turns_rows_around_but_not_token_files() -> None:
    backward = UlmfitCodec(UlmfitCodecConfig(direction="backward"), CODEC.vocab)
    parts = [(Part("The cat sat."),), (Part("a"), Part("b"))]
    assert backward.encode(parts) == [[row.reversed()] for (row,) in CODEC.encode(parts)]
    assert backward.ids(CORPUS) == CODEC.ids(CORPUS)
    assert backward.fingerprint() == CODEC.fingerprint()
    assert "right to left" in backward.describe()


def test_special_tokens_have_version_twos_ids() -> None:
    assert " ".join(CODEC.vocab.words[:9]) == "xxunk xxpad xxbos xxeos xxfld xxrep xxwrep xxup xxmaj"
    assert (CODEC.pad_id, CODEC.unknown_id, CODEC.size) == (1, 0, len(CODEC.vocab))
    assert CODEC.ids(["zyzzyva cat"]) == [[2, 0, CODEC.vocab.ids["cat"]]]
    assert CODEC.ids(["xxpad"]) == [[2, 0]]  # a text cannot look like padding
    assert isinstance(CODEC, Codec)


def test_learning_counts_frequent_words() -> None:
    codec = UlmfitCodec.learn(lambda: ["b a a", "a b c"], UlmfitCodecConfig(min_count=2))
    assert codec.vocab.words[9:] == ("a", "b")
    assert codec.with_vocab(Vocab([*SPECIALS, "c"])).ids(["c a"]) == [[2, 9, 0]]


def test_what_cannot_be_learned_is_said() -> None:
    with pytest.raises(UserError, match="occurs 3 times"):
        UlmfitCodec.learn(lambda: ["one two"], UlmfitCodecConfig())
    with pytest.raises(UserError, match="xxpad"):
        UlmfitCodec(UlmfitCodecConfig(), Vocab(["xxunk", "xxbos"]))
    with pytest.raises(UsageError, match="did you mean 'backward'"):
        UlmfitCodecConfig(direction="backwards")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="max_vocab"):
        UlmfitCodecConfig(max_vocab=9)
    with pytest.raises(UsageError, match="min_count"):
        UlmfitCodecConfig(min_count=0)


def test_the_language_can_be_guessed_and_is_then_fixed() -> None:
    codec = learned("这部电影很好看。", language="auto")
    assert (codec.config.language, codec.config.segmenter) == ("zh", "characters")
    assert codec.describe() == f"single characters (zh) after fastai's v2 rules, {codec.size} ids"
    assert learned(language="auto").config.language == "en"


@pytest.mark.parametrize("codec", [CODEC, OWN, CHINESE])
def test_a_saved_codec_comes_back_equal(codec: UlmfitCodec, tmp_path: Path) -> None:
    codec.save(tmp_path)
    again = UlmfitCodec.load(tmp_path)
    assert (again.config, again.vocab) == (codec.config, codec.vocab)
    assert again.fingerprint() == codec.fingerprint()
    assert again.ids(CORPUS) == codec.ids(CORPUS)
    assert again.describe() == codec.describe()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["codec.json", "vocab.txt"]


def test_fingerprints_tell_codecs_apart() -> None:
    assert len({codec.fingerprint() for codec in (CODEC, OWN, CHINESE, CODEC.with_vocab(CHINESE.vocab))}) == 4


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no codec\.json"):
        UlmfitCodec.load(tmp_path)
    CODEC.save(tmp_path)
    settings = json.loads((tmp_path / "codec.json").read_text())
    for broken in (
        "{",
        "[]",
        json.dumps({**settings, "rules": "v9"}),
        json.dumps({**settings, "langage": "en"}),
    ):
        (tmp_path / "codec.json").write_text(broken)
        with pytest.raises(UserError, match=r"codec\.json"):
            UlmfitCodec.load(tmp_path)


def decoded(tokens: Sequence[str]) -> str:
    codec = CODEC.with_vocab(Vocab(dict.fromkeys([*SPECIALS, *tokens])))
    return codec.decode(codec.vocab.ids[token] for token in tokens)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("xxbos xxrep 4 ! xxwrep 3 good", "!!!! good good good"),  # a repeat is forgotten once done
        ("xxbos xxmaj it was xxup great , was n't it ?", "It was GREAT, wasn't it?"),
        ("xxfld 1 i paid $ 3.50 ( twice ) xxfld 2 xxunk", "i paid $3.50 (twice) xxunk"),
        ('xxmaj he said : " xxmaj go ! " and " no " .', 'He said: "Go!" and "no".'),
        ("a \n\n▁ xxwrep 3 xxup ha", "a\n\n HA HA HA"),
        ("我 爱 北 京 ， xxrep 3 哈 nba 球", "我爱北京，哈哈哈 nba 球"),
        ("xxrep x y xxrep", "y"),  # a language model may write nonsense
        ("xxrep 999999999 y", "y" * 1000),
        ("xxbos xxpad xxpad", ""),
    ],
)
def test_decoding_undoes_the_rules(tokens: str, text: str) -> None:
    assert decoded(tokens.split(" ")) == text


def test_decoded_text_is_read_as_the_same_tokens() -> None:
    text = 'I can\'t believe it, well-known Mr. Smith (of the U.S.) GREAT!!!! paid $3.50: "no no no".'
    read = CODEC.tokens(text)[1:]
    assert CODEC.tokens(decoded(read))[1:] == read


def test_words_may_hold_spaces_which_show_as_bars() -> None:
    codec = learned("Nam Định đẹp", language="vi", segmenter=f"{__name__}:by_blanks")
    assert " ".join(codec.tokens("Nam Định đẹp!!! ok ok ok")) == (
        "xxbos xxmaj nam▁định đẹp xxrep 3 ! xxwrep 3 ok"
    )
    assert spans("Nam Định đẹp", codec)[1:3] == [("xxmaj", "Nam Định"), ("nam▁định", "Nam Định")]


def test_long_documents_take_linear_time() -> None:
    for text in (
        "a a b " * 10_000,
        "word" * 20_000,
        "ACGT" * 20_000 + "x",
        "\n" * 50_000 + "x",
        "的" * 2 + "一二三" * 10_000,
    ):
        for codec in (CODEC, CHINESE):
            assert codec.encode([(Part(text),)])[0][0].ids == codec.ids([text])[0]


def test_real_text_reads_the_same_both_ways(shared: object) -> None:
    path = shared("data/sst")  # type: ignore[operator]
    texts = [
        line
        for file in sorted(path.rglob("*"))
        if file.suffix in {".txt", ".tsv", ".csv"}
        for line in file.read_text("utf-8", "ignore").splitlines()[:200]
    ]
    assert [row.ids for (row,) in CODEC.encode([(Part(text),) for text in texts])] == CODEC.ids(texts)
