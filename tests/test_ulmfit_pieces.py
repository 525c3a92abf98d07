from __future__ import annotations

import io
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretune.data.rows import NOTHING, first_token, last_token
from pretune.data.samples import Part
from pretune.data.vocab import Vocab
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit.pieces import PieceSegmenter, published_words, read_sentencepiece
from pretune.methods.ulmfit.rules import SPECIALS
from pretune.methods.ulmfit.tokens import UlmfitCodec, UlmfitCodecConfig
from pretune.runs.language_model import LanguageModel
from test_cli import run

sentencepiece = pytest.importorskip(
    "sentencepiece", reason="pieces are learned with SentencePiece: pip install 'pretune[pieces]'"
)

WORDS = "the cat sat on a mat and then it ate what was left of the cake which nobody wanted anyway".split()
CHINESE = "这部电影很好看我们都喜欢看电影北京是中国的首都天气很好今天去公园玩"


def english(lines: int = 400) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randrange(3, 12))).capitalize() + "." for _ in range(lines)]


def chinese(lines: int = 300) -> list[str]:
    draw = random.Random(1)
    starts = [(start, start + draw.randrange(2, 9)) for start in draw.choices(range(28), k=2 * lines)]
    cut = [CHINESE[start:end] for start, end in starts]
    return [f"{one}，{other}。" for one, other in zip(cut[::2], cut[1::2], strict=True)]


def learned(texts: Sequence[str], **settings: object) -> UlmfitCodec:
    config = UlmfitCodecConfig(segmenter="pieces", **settings)  # type: ignore[arg-type]
    return UlmfitCodec.learn(lambda: texts, config)


ENGLISH = learned(english())
ZH = learned([*chinese(), "电影，，，好"], language="zh")
V1 = learned(english(), rules="v1")
CODECS = [ENGLISH, ZH, V1, learned(english(), rules="v07")]


def test_words_are_read_in_pieces_after_the_rules() -> None:
    read = ENGLISH.tokens("The Cat sat!!!!  NOW")
    assert read[:2] == ["xxbos", "xxmaj"]
    assert "".join(read[2:]).replace("▁", " ") == " thexxmaj cat satxxrep 4 !xxup now"
    assert "▁the" in read
    assert ZH.tokens("今天看电影。")[1:] != list("今天看电影。")
    assert "".join(ZH.tokens("今天看电影。")[1:]) == "▁今天看电影。"


def test_special_tokens_stand_once_and_first_and_no_piece_is_one() -> None:
    for codec in CODECS:
        assert codec.vocab.words[:9] == SPECIALS
        assert len(set(codec.vocab.words)) == codec.size
        assert not {f"▁{mark}" for mark in SPECIALS} & set(codec.vocab.words)
        assert "<unk>" not in " ".join(codec.vocab.words)


def test_what_no_piece_covers_is_unknown() -> None:
    (ids,) = ENGLISH.ids(["the ☃ cat ☃☃"])
    assert ids.count(ENGLISH.unknown_id) == 2
    assert ENGLISH.ids(["xxpad"]) == [[2, ENGLISH.unknown_id]]  # a text cannot look like padding


def test_how_many_pieces_follows_the_corpus_or_the_limit() -> None:
    assert ENGLISH.size < 200
    assert learned(english(), max_vocab=50).size <= 50
    with pytest.raises(UserError, match="different characters; give more"):
        learned(english(), max_vocab=15)
    with pytest.raises(UserError, match="pieces"):
        learned(["", " "])
    with pytest.raises(UsageError, match="min_count"):
        UlmfitCodecConfig(segmenter="pieces", min_count=2)


TEXTS = st.lists(
    st.sampled_from(
        [*WORDS, *"  \n!.,İß/☃▁´ﬁ", "GREAT", "!!!!", "go go go", "<br />", "xxrep", "电影", "é", "e\u0301"]
    )
    | st.text(max_size=4)
    | st.just("\ud800"),
    max_size=10,
).map("".join)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=4), st.sampled_from(CODECS))
def test_alignment_and_company_do_not_change_the_pieces(texts: list[str], codec: UlmfitCodec) -> None:
    rows = [row for (row,) in codec.encode([(Part(text),) for text in texts])]
    assert [row.ids for row in rows] == codec.ids(texts)
    assert rows == [codec.encode([(Part(text),)])[0][0] for text in texts]
    for row, text in zip(rows, texts, strict=True):
        own = [span for span, part in zip(row.chars, row.part, strict=True) if part == 0]
        assert set(row.chars[: len(row.chars) - len(own)]) <= {NOTHING}
        assert all(0 <= span.start < span.end <= len(text) for span in own)
        assert [span.start for span in own] == sorted(span.start for span in own)


def test_characters_lead_to_pieces() -> None:
    text = "The cat WANTED cake"
    ((row,),) = ENGLISH.encode([(Part(text),)])
    first, last = first_token(row, 0, text.index("WANTED")), last_token(row, 0, text.index(" cake"))
    assert first is not None and last is not None
    assert "".join(ENGLISH.tokens(text)[first : last + 1]) == "xxup▁wanted"
    assert text[row.chars[-1].start : row.chars[-1].end] == "cake"


@pytest.mark.parametrize(
    "text",
    [
        "The cat sat on a mat, and then it ATE what was left: the cake, which nobody (not even it) wanted.",
        "left!!!! cake",
        "the the the the the cat",
        "Cat",
    ],
)
def test_pieces_give_back_the_text(text: str) -> None:
    for codec in (learned([*english(), text.lower(), "(),:!"]), learned([*english(), text], rules="v1")):
        (ids,) = codec.ids([text])
        assert codec.decode(ids) == text


def test_chinese_comes_back_without_spaces() -> None:
    for text in ("今天天气很好，我们去公园玩。", "电影，，，很好看。"):
        assert ZH.decode(ZH.ids([text])[0]) == text


def test_backward_and_several_parts_are_as_with_words() -> None:
    backward = UlmfitCodec(replace(ENGLISH.config, direction="backward"), ENGLISH.vocab, ENGLISH.pieces)
    parts = [(Part("The cat"), Part("it sat"))]
    assert backward.encode(parts) == [[row.reversed()] for (row,) in ENGLISH.encode(parts)]
    ((row,),) = ENGLISH.encode(parts)
    read = ENGLISH.tokens("The cat", "it sat")
    assert len(read) == len(row.ids)
    assert [token for token, part in zip(read, row.part, strict=True) if part < 0][:2] == ["xxbos", "xxfld"]
    assert ENGLISH.decode(row.ids) == "The cat it sat"


def test_a_saved_codec_comes_back_equal(tmp_path: Path) -> None:
    ENGLISH.save(tmp_path)
    again = UlmfitCodec.load(tmp_path)
    assert (again.config, again.vocab) == (ENGLISH.config, ENGLISH.vocab)
    assert again.fingerprint() == ENGLISH.fingerprint() != V1.fingerprint()
    assert again.ids(english(20)) == ENGLISH.ids(english(20))
    assert again.describe() == f"unigram pieces (en) after fastai's v2 rules, {ENGLISH.size} ids"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["codec.json", "tokenizer.json", "vocab.txt"]
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        UlmfitCodec.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json: no pieces there"):
        UlmfitCodec.load(tmp_path)


def test_pieces_and_their_segmenter_belong_together() -> None:
    with pytest.raises(UsageError, match="needs the pieces"):
        UlmfitCodec(UlmfitCodecConfig(segmenter="pieces"), ENGLISH.vocab)
    with pytest.raises(UsageError, match="set it to 'pieces'"):
        UlmfitCodec(UlmfitCodecConfig(), ENGLISH.vocab, ENGLISH.pieces)
    assert ENGLISH.with_vocab(Vocab([*SPECIALS, "▁the"])).ids(["the"]) == [[2, 9]]


LEARN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_ulmfit_pieces import chinese, english, learned
learned([*english(), *chinese()], language="zh").save(Path(sys.argv[1]))
"""


def test_learning_twice_gives_the_same_files_in_different_processes(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    learned([*english(), *chinese()], language="zh").save(folders[0])
    subprocess.run(
        [sys.executable, "-c", LEARN, str(folders[1]), str(Path(__file__).parent)],
        check=True,
        env={"PYTHONHASHSEED": "1", "PATH": "", "HOME": str(tmp_path)},
    )
    one, two = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert one == two


def test_without_sentencepiece_learning_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ENGLISH.save(tmp_path)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UsageError, match=r"pip install 'pretune\[pieces\]'"):
        learned(english())
    assert UlmfitCodec.load(tmp_path).ids(["the cat"]) == ENGLISH.ids(["the cat"])  # reading needs none


# SentencePiece's own files.
MARKS = [f"▁{mark}" for mark in SPECIALS]
FASTAI = {"user_defined_symbols": MARKS, "unk_id": 9, "pad_id": -1, "bos_id": -1, "eos_id": -1}


def trained(folder: Path, texts: Sequence[str], **options: object) -> Path:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    path = folder / "spm.model"
    path.write_bytes(model.getvalue())
    return path


def noise() -> list[str]:
    draw = random.Random(2)
    letters = "abcdefghijklmnopt,.!? \t\n\u3000\u00a0´ﬁ①½İß▁é中文，。🙂"
    texts = ["".join(draw.choices(letters, k=draw.randrange(30))) for _ in range(500)]
    words = [*WORDS, *SPECIALS, "<unk>", "<s>", "</s>", "4", "!", "xxunked"]
    return texts + [" ".join(draw.choices(words, k=8)) for _ in range(200)]


@pytest.mark.parametrize(
    "options",
    [
        {"vocab_size": 150, "character_coverage": 0.99999, **FASTAI},  # as fastai 1 and 2 train
        {"vocab_size": 120},
        {"vocab_size": 100, "normalization_rule_name": "identity", "add_dummy_prefix": False},
        {"vocab_size": 120, "model_type": "bpe"},
    ],
    ids=["fastai", "plain", "identity", "bpe"],
)
def test_published_models_give_sentencepieces_own_pieces(tmp_path: Path, options: dict[str, object]) -> None:
    path = trained(tmp_path, [*(text.lower() for text in english()), *chinese()], **options)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ours = read_sentencepiece(path)
    by_run = PieceSegmenter(ours)
    known = set(published_words(path))
    assert published_words(path) == [theirs.IdToPiece(i) for i in range(theirs.GetPieceSize())]
    for text in [*english(50), *chinese(50), *noise()]:
        wanted = [piece if piece in known else None for piece in theirs.EncodeAsPieces(text)]
        read = ours.encode(text)
        assert [piece if n else None for n, piece in zip(read.ids, read.tokens, strict=True)] == wanted, text
        if options.get("add_dummy_prefix", True) and "▁" not in text:
            pieces = [piece for run in text.split() for piece, _, _ in by_run.of_run(run)]
            assert [piece if piece in known else None for piece in pieces] == wanted, text


def test_a_published_model_reads_through_the_codec(tmp_path: Path) -> None:
    path = trained(tmp_path, [text.lower() for text in english()], vocab_size=80, **FASTAI)
    named = [word[1:] if word in MARKS else word for word in published_words(path)]
    codec = UlmfitCodec(
        UlmfitCodecConfig(segmenter="pieces", rules="v1"), Vocab(named), read_sentencepiece(path)
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert codec.ids(["The cat sat"]) == [theirs.EncodeAsIds("xxbos xxmaj the cat sat")]


def test_files_that_are_no_model_are_named(tmp_path: Path) -> None:
    path = trained(tmp_path, english(), vocab_size=60)
    whole = path.read_bytes()
    for broken in (b"", b"\x00\x01", whole[:-5], b"hello world, this is text", whole[:300]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"spm\.model: not a model file of SentencePiece"):
            read_sentencepiece(path)
    with pytest.raises(UserError, match="cannot read"):
        read_sentencepiece(tmp_path / "none.model")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"model_type": "char", "vocab_size": 60}, "words or characters"),
        ({"model_type": "word", "vocab_size": 20}, "words or characters"),
        ({"byte_fallback": True, "vocab_size": 320}, "byte fallback"),
        ({"treat_whitespace_as_suffix": True, "vocab_size": 60}, "spaces at the end"),
        ({"split_by_whitespace": False, "vocab_size": 60}, "span spaces"),
        ({"model_type": "bpe", "user_defined_symbols": ["<br>"], "vocab_size": 60}, "'<br>'"),
    ],
)
def test_kinds_of_model_that_are_not_read_are_named(
    tmp_path: Path, options: dict[str, object], what: str
) -> None:
    path = trained(tmp_path, english(), **options)
    with pytest.raises(UserError, match=what):
        read_sentencepiece(path)


TINY = ["encoder.embedding=8", "encoder.hidden=12", "encoder.layers=2", "pretraining.epochs=1", "--quiet"]
TINY += ["pretraining.window=10", "--device", "cpu", "--documents", "line"]


@pytest.mark.parametrize("segmenter", ["pieces", "characters", "jieba"])
def test_chinese_is_pretrained_and_adapted_by_every_segmenter(tmp_path: Path, segmenter: str) -> None:
    if segmenter == "jieba":
        pytest.importorskip("jieba")
    (tmp_path / "zh.txt").write_text("\n".join(chinese(200)), "utf-8")
    (tmp_path / "more.txt").write_text("\n".join(chinese(80)[::-1]), "utf-8")
    command = ["pretrain", "ulmfit", tmp_path / "zh.txt", "--out", tmp_path / "zh", "--language", "zh"]
    code, _, error = run(*command, f"codec.segmenter={segmenter}", *TINY)
    assert code == 0, error
    adapting = [setting.replace("pretraining", "adaptation") for setting in TINY if "encoder" not in setting]
    command = ["adapt", tmp_path / "zh", tmp_path / "more.txt", "--out", tmp_path / "new"]
    code, _, error = run(*command, "adaptation.frozen_epochs=0", *adapting)
    assert code == 0, error
    assert UlmfitCodec.load(tmp_path / "new").config.segmenter == segmenter
    lm = LanguageModel.load(tmp_path / "new", device="cpu")
    assert lm.perplexity(["北京是中国的首都"]).value < 500
    if segmenter == "pieces":
        code, _, error = run(*command[:3], "--out", tmp_path / "x", "--vocabulary", "union", *adapting)
        assert code != 0
        assert "choose --vocabulary target" in error


def test_languages_without_spaces_are_told_of_pieces() -> None:
    with pytest.raises(UsageError, match="set segmenter to pieces"):
        UlmfitCodec.learn(lambda: ["ภาษาไทย"], UlmfitCodecConfig(language="th"))
    thai = ["ภาษาไทยไม่มีช่องว่าง", "ภาษาไทยยากมาก", "ไม่มีช่องว่าง"] * 20
    codec = learned(thai, language="th")
    assert codec.decode(codec.ids(thai[:1])[0]) == thai[0]
