from __future__ import annotations

import html
import json
import lzma
import pickle
import re
import sys
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretune.data.rows import NOTHING
from pretune.data.samples import Part, Span
from pretune.data.segment import segmenter
from pretune.data.vocab import Vocab
from pretune.errors import UserError
from pretune.methods.ulmfit.profiles import PROFILES
from pretune.methods.ulmfit.rules import SPECIALS
from pretune.methods.ulmfit.tokens import UlmfitCodec, UlmfitCodecConfig
from pretune.methods.ulmfit.undoing import undone


def codec(rules: str, **settings: object) -> UlmfitCodec:
    return UlmfitCodec(UlmfitCodecConfig(rules=rules, **settings), Vocab(SPECIALS))  # type: ignore[arg-type]


def whole(text: str) -> list[Span]:
    """A user's function, which is shown whole texts: the built-in rules, to be compared with."""
    return segmenter("en", "words")(text)


V1, V07 = codec("v1"), codec("v07")
CODECS = [V1, V07, *(codec(rules, segmenter=f"{__name__}:whole") for rules in ("v1", "v07"))]
CODECS += [codec(rules, language="zh") for rules in ("v1", "v07")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("I can't, won't U.S. $3.50", "i|ca|n't|,|wo|n't|xxup|u.s.|$|3.50"),  # split, then lowered
        ("GREAT!!!! wow!!!", "xxup|great|xxrep|4|!|wow|!|!|!"),  # four of a kind at least
        ("A I Am OK McDonald's iPhone", "a|i|xxmaj|am|xxup|ok|mcdonald|'s|iphone"),
        ("USA-made Élan ΑΒΓ Über-Cool", "xxup|usa|-|made|xxmaj|élan|xxup|αβγ|xxmaj|über|-|xxmaj|cool"),
        ("no no no no! go go go", "no|no|no|no|!|go|go|go"),  # the last one has another sign after it
        ("no no no no no!", "xxwrep|4|no|no|!"),
        ("Ha, Ha, Ha, Ha, ok", "xxwrep|4|xxmaj|ha|,|ok"),
        ("a<br />b", "a|\n |b"),
        ("a<br /><br />b", "a|\n \n |b"),  # spaces stay spaces
        ("\nthe end\n", "\n |the|end|\n "),
        ("and/or C# x\\y", "and|/|or|c|#|x|\\|y"),
        ("3 @.@ 5 1 @,@ 000 <unk> wait...", "3.5|1,000|xxunk|wait|..."),
        ("AT&amp;T it#39;s", "xxup|at&&t|it|'s"),
    ],
)
def test_version_one_marks_capitals_of_words_after_splitting_them(text: str, expected: str) -> None:
    assert V1.tokens(text) == ["xxbos", *(expected.split("|") if expected else [])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("It was GREAT!!!! OK", "it|was|xxup|great|xxrep|4|!|ok"),  # two letters are too few
        ("The Cat McDonald's U.S.", "the|cat|mcdonald|'s|u.s|."),  # no mark for one capital
        ("ΑΒΓ NBC-TV's", "xxup|αβγ|xxup|nbc|-|tv|'s"),
        ("no no no no no!", "xxwrep|4|no|no|!"),
        ("a <br> b<BR >c<br/>", "a|\n |b|\n|c|<|br|/|>"),
        ("a<br /><br />b", "a|\n\n|b"),
        ("and/or C# x\\y", "and|/|or|c|#|x|\\|y"),
        ("3 @.@ 5 1 @,@ 000 <unk>", "3.5|1|@,@|000|u_n"),
        ("the <eos> ends", "the|<eos>|ends"),
    ],
)
def test_version_zero_seven_marks_only_words_in_capitals(text: str, expected: str) -> None:
    assert V07.tokens(text) == ["\n", "xxbos", "xxfld", "1", *(expected.split("|") if expected else [])]


PARTS = [*"aI \n\t/#\\.,", "The", "GO", "NBC", "  ", "go go go go ", "no, " * 4, "!!!!", "&amp;", "&#x41;"]
PARTS += [
    "<br />",
    "<br>",
    "'s",
    "can't",
    "U.S.",
    "İ",
    "ß",
    "aaaa",
    "<unk>",
    " @-@ ",
    " @,@ ",
    "xxrep",
    "xxpad",
]
PARTS += ["中文", "哈哈哈哈", "—", "\\n", "ΑΣ", "Ⓐ", "_", "²"]
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=10).map("".join)


@given(st.lists(TEXTS, max_size=4), st.sampled_from(CODECS))
def test_alignment_and_company_do_not_change_the_tokens(texts: list[str], codec: UlmfitCodec) -> None:
    rows = [row for (row,) in codec.encode([(Part(text),) for text in texts])]
    assert [row.ids for row in rows] == codec.ids(texts)
    assert rows == [codec.encode([(Part(text),)])[0][0] for text in texts]


@given(TEXTS, st.sampled_from(["v1", "v07"]))
def test_a_function_that_sees_whole_texts_gives_what_the_same_words_give_run_by_run(
    text: str, rules: str
) -> None:
    own = codec(rules, segmenter=f"{__name__}:whole")
    ours = V1 if rules == "v1" else V07
    assert own.tokens(text) == ours.tokens(text)
    assert own.tokens(f"{text}IIII") == ours.tokens(f"{text}IIII")  # what xxrep repeats is lowered too
    assert own.encode([(Part(text),)]) == ours.encode([(Part(text),)])


@given(TEXTS, st.sampled_from(CODECS))
def test_characters_of_tokens_lie_in_the_text_from_left_to_right(text: str, codec: UlmfitCodec) -> None:
    row = codec.encode([(Part(text),)])[0][0]
    own = [span for span, part in zip(row.chars, row.part, strict=True) if part == 0]
    assert set(row.chars[: len(row.chars) - len(own)]) <= {NOTHING}
    assert all(0 <= span.start < span.end <= len(text) for span in own)
    assert all(a.start <= b.start for a, b in pairwise(own))


def spans(codec: UlmfitCodec, text: str) -> list[tuple[str, str]]:
    row = codec.encode([(Part(text),)])[0][0]
    told = zip(codec.tokens(text), row.chars, row.part, strict=True)
    return [(token, text[span.start : span.end]) for token, span, part in told if part == 0]


def test_marks_stand_for_the_characters_they_speak_of() -> None:
    assert spans(V1, "GREAT-Big no no no no ok!!!!") == [
        *(("xxup", "GREAT"), ("great", "GREAT"), ("-", "-"), ("xxmaj", "Big"), ("big", "Big")),
        *(("xxwrep", "no no no no "), ("4", "no no no no "), ("no", "no no no no ")),
        *(("ok", "ok"), ("xxrep", "!!!!"), ("4", "!!!!"), ("!", "!!!!")),
    ]
    assert spans(V07, "the GREAT's <br> İs") == [
        *(("the", "the"), ("xxup", "GREAT"), ("great", "GREAT"), ("'s", "'s")),
        *(("\n ", "<br> "), ("i̇s", "İs")),
    ]


def test_fields_are_marked_where_a_profile_or_a_setting_says_so() -> None:
    assert V07.tokens("a", "b") == "\n xxbos xxfld 1 a xxfld 2 b".split(" ")
    assert V1.tokens("a", "b") == "xxbos xxfld 1 a xxfld 2 b".split()
    always = codec("v1", mark_fields=True)
    assert always.tokens("a") == "xxbos xxfld 1 a".split()
    ((row,),) = always.encode([(Part("a"),)])
    assert (row.part, row.chars[:3], row.segments) == ([-1, -1, -1, 0], [NOTHING] * 3, [0] * 4)
    assert always.fingerprint() != V1.fingerprint()


@pytest.mark.parametrize("rules", PROFILES)
@pytest.mark.parametrize(
    "text",
    [
        'it can\'t be, well known mr. smith (of the team) paid $3.50: "no way".',
        "NBC showed GREAT things!!!! and more",
        "so so so so so good",
        "我爱北京，哈哈哈哈 nba 球",
    ],
)
def test_every_profile_is_undone(rules: str, text: str) -> None:
    language = "zh" if "我" in text else "en"
    assert undone(codec(rules, language=language).tokens(text)) == text


def test_lines_stay_and_what_starts_a_text_goes() -> None:
    assert undone(V1.tokens("The end.\n\nNext")) == "The end.\n \n Next"
    assert undone(V07.tokens("the end.\n\nnext")) == "the end.\n\nnext"
    assert undone([*V07.tokens("one."), *V07.tokens("two")]) == "one. two"


def test_profiles_tell_codecs_apart_and_are_saved(tmp_path: Path) -> None:
    assert len({codec(rules).fingerprint() for rules in PROFILES}) == len(PROFILES)
    assert "after fastai's v07 rules" in V07.describe()
    V07.save(tmp_path)
    again = UlmfitCodec.load(tmp_path)
    assert again.config == V07.config
    assert again.tokens("GREAT") == V07.tokens("GREAT")


def test_a_folder_of_before_the_profiles_still_loads(tmp_path: Path) -> None:
    codec("v2").save(tmp_path)
    settings = {"language": "en", "segmenter": "words", "max_vocab": 60000, "min_count": 3}
    settings |= {"direction": "forward", "rules": "v2"}
    (tmp_path / "codec.json").write_text(json.dumps(settings))
    assert UlmfitCodec.load(tmp_path).fingerprint() == codec("v2").fingerprint()


@pytest.mark.parametrize("rules", PROFILES)
def test_a_codec_can_be_sent_to_another_process(rules: str) -> None:
    sent = pickle.loads(pickle.dumps(codec(rules)))
    assert sent.tokens("A GREAT film!!!!") == codec(rules).tokens("A GREAT film!!!!")


def test_long_documents_take_linear_time() -> None:
    for text in ("a a b " * 10_000, "word" * 20_000, "a." * 40_000, "\n" * 50_000 + "x", "a" + " ." * 30_000):
        for each in (V1, V07):
            assert each.encode([(Part(text),)])[0][0].ids == each.ids([text])[0]


# Beside fastai 2.8 itself, and beside plain regular expressions over whole texts, split by spaCy.
Words = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def spacy_words() -> Words:
    spacy = pytest.importorskip("spacy", reason="spaCy is a test oracle; pip install 'pretune[spacy]'")
    nlp = spacy.blank("en")
    for mark in (*SPECIALS, "<eos>", "<bos>"):
        nlp.tokenizer.add_special_case(mark, [{"ORTH": mark}])
    return lambda text: [word.text for word in nlp.tokenizer(text)]


@pytest.fixture(scope="module")
def fastai_tokens(spacy_words: Words) -> Words:
    core = pytest.importorskip("fastai.text.core", reason="fastai is a test oracle")
    reader = core.TokenizeWithRules(core.SpacyTokenizer("en"))
    return lambda text: list(next(iter(reader([text]))))


# Smileys stay out: spaCy finds them across spaces, "( :" in one text in thousands, and ours does not.
NASTY = st.lists(st.sampled_from([*PARTS, "go go go", "!!!", "..."]), max_size=10).map("".join)


@settings(deadline=None)
@given(text=NASTY)
def test_version_two_is_fastais_own(fastai_tokens: Words, text: str) -> None:
    for name in ("spacy", "words"):
        assert codec("v2", segmenter=name).tokens(text) == fastai_tokens(text)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def before(text: str, unknown: str, *pairs: tuple[str, str]) -> str:
    """What versions 0.7 and 1 share, over the whole text."""
    text = replaced(text, ("#39;", "'"), ("amp;", "&"), ("#146;", "'"), ("nbsp;", " "), ("#36;", "$"))
    text = replaced(text, ("\\n", "\n"), ("quot;", "'"), ("<br />", "\n"), ('\\"', '"'), ("<unk>", unknown))
    text = html.unescape(replaced(text, (" @.@ ", "."), (" @-@ ", "-"), *pairs, ("\\", " \\ ")))
    text = re.sub(r"(\S)\1{3,}", lambda m: f" xxrep {len(m[0])} {m[1]} ", re.sub("  +", " ", text))
    return re.sub(r"(\b\w+\W+)(\1{3,})", lambda m: f" xxwrep {len(m[2].split()) + 1} {m[1]} ", text)


def version_one(text: str, words: Words) -> list[str]:
    text = re.sub(r"[/#\n]", r" \g<0> ", before(f"xxbos {text}", "xxunk", (" @,@ ", ",")))
    tokens: list[str] = []
    for word in words(re.sub("  +", " ", text)):
        if len(word) > 1 and word.isupper():
            tokens.append("xxup")
        elif len(word) > 1 and word[0].isupper() and word[1:].islower():
            tokens.append("xxmaj")
        tokens.append(word.lower())
    return tokens[1:]


def version_zero_seven(text: str, words: Words) -> list[str]:
    parts = re.findall(r"\w+|\W+", before(f"xbos {text}", "u_n"))
    text = "".join(" xxup " * (len(part) > 2 and part.isupper()) + part.lower() for part in parts)
    text = re.sub("  +", " ", re.sub("[/#]", r" \g<0> ", text))
    return words(re.sub(r"<\s*br\s*/?>", "\n", text))[1:]


@settings(deadline=None)
@given(text=NASTY)
def test_earlier_versions_are_their_rules_over_the_whole_text(spacy_words: Words, text: str) -> None:
    for name in ("spacy", "words"):
        assert codec("v1", segmenter=name).tokens(text)[1:] == version_one(text, spacy_words)
        assert codec("v07", segmenter=name).tokens(text)[4:] == version_zero_seven(text, spacy_words)


def test_the_built_in_words_are_spacys_on_real_text(
    spacy_words: Words, shared: Callable[[str], Path]
) -> None:
    path = shared("data/imdb/test.jsonl.xz")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in islice(lines, 0, 20_000, 500)]
    ours, theirs = codec("v2"), codec("v2", segmenter="spacy")
    assert sum(len(ours.tokens(text)) for text in texts) > 5000
    assert [ours.tokens(text) for text in texts] == [theirs.tokens(text) for text in texts]


def saved_with_spacy(folder: Path) -> None:
    pytest.importorskip("spacy", reason="spaCy is a test oracle; pip install 'pretune[spacy]'")
    codec("v2", segmenter="spacy").save(folder)


def test_a_codec_of_spacy_says_so_and_wants_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_with_spacy(tmp_path)
    settings = json.loads((tmp_path / "codec.json").read_text())
    assert settings["segmenter"] == "spacy"
    assert settings["segmenter_version"].startswith("spaCy 3.")
    assert UlmfitCodec.load(tmp_path).describe().startswith("words by spaCy 3.")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError, match=r"codec\.json: segmenter 'spacy' needs spaCy: pip install"):
        UlmfitCodec.load(tmp_path)


def test_another_version_of_a_segmenter_is_told(tmp_path: Path) -> None:
    saved_with_spacy(tmp_path)
    settings = json.loads((tmp_path / "codec.json").read_text())
    (tmp_path / "codec.json").write_text(json.dumps({**settings, "segmenter_version": "spaCy 3.0.0"}))
    with pytest.warns(UserWarning, match=r"saved with version 'spaCy 3\.0\.0'"):
        UlmfitCodec.load(tmp_path)
