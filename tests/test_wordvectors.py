"""Word vectors: published files to the bit, means over known words only, word2vec that repeats itself."""

from __future__ import annotations

import gzip
import lzma

import numpy as np
import pytest
import torch

from pretune.data.samples import Part, Span, sample
from pretune.errors import UsageError, UserError
from pretune.methods.wordvectors import (
    WORDVECTORS,
    Word2Vec,
    WordCodec,
    WordCodecConfig,
    WordVectorConfig,
    WordVectorEncoder,
    import_vectors,
    read_vectors,
)
from pretune.runs.prepare import Preparation, Texts, prepare
from pretune.tensors.batch import Batch, collate
from pretune.training.loop import Fitting

WORDS = ["the", "cat", "sat", "New York", "naïve"]
TABLE = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
TEXTS = ["The cat sat.", "zebra quagga", "the the cat", "", "sat " * 50]


def text_file(header: bool) -> bytes:
    lines = [f"{word} {' '.join(map(repr, map(float, row)))}" for word, row in zip(WORDS, TABLE, strict=True)]
    return "".join(f"{line}\n" for line in (["5 4"] if header else []) + lines).encode()


def binary_file(feed: bytes = b"\n") -> bytes:
    return b"5 4\n" + b"".join(
        word.encode().replace(b" ", b"_") + b" " + row.tobytes() + feed
        for word, row in zip(WORDS, TABLE, strict=True)
    )


def codec_of(*words: str, lowercase: bool = True) -> WordCodec:
    return WordCodec.of_words(words, WordCodecConfig(lowercase=lowercase))


def batch_of(codec: WordCodec, texts: list[str]) -> Batch:
    return collate(codec.encode([(Part(text),) for text in texts]), codec.pad_id)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
def test_text_files_are_read_to_the_bit(tmp_path, header, ending):
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[ending]
    file = tmp_path / f"vectors.txt{ending}"
    file.write_bytes(pack(text_file(header)))
    words, table = read_vectors(file)
    assert words == WORDS and (table == TABLE).all()


@pytest.mark.parametrize("feed", [b"\n", b""])
def test_binary_files_are_read_to_the_bit(tmp_path, feed):
    file = tmp_path / "vectors.bin.gz"
    file.write_bytes(gzip.compress(binary_file(feed)))
    words, table = read_vectors(file)
    assert words == [word.replace(" ", "_") for word in WORDS] and (table == TABLE).all()


def test_gensim_reads_and_writes_the_same_vectors(tmp_path):
    from gensim.models import KeyedVectors

    vectors = KeyedVectors(4)
    vectors.add_vectors(["a", "b"], TABLE[:2])
    for binary in (True, False):
        vectors.save_word2vec_format(str(tmp_path / "v"), binary=binary)
        words, table = read_vectors(tmp_path / "v")
        assert words == ["a", "b"]
        np.testing.assert_allclose(table, TABLE[:2], rtol=0 if binary else 1e-6)


def test_only_the_first_or_the_needed_words_are_kept_and_of_repeated_ones_the_first(tmp_path):
    file = tmp_path / "v.txt"
    file.write_text("a 1 2\nb 3 4\na 5 6\n<unk> 7 8\nc 9 0\n")
    assert read_vectors(file)[0] == ["a", "b", "c"]
    assert read_vectors(file)[1][0].tolist() == [1, 2]
    assert read_vectors(file, max_words=2)[0] == ["a", "b"]
    assert read_vectors(file, words={"c", "d"})[0] == ["c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 1 2 3\nb 1 2\n", "v:2: has 2 numbers where 3 are expected"),
        (b"a 1 2 3\nb 1 x 3\n", "v:2: the vector of 'b' is malformed"),
        (b"a 1 2 3\nb 1 nan 3\n", "v:2: the vector of 'b' has a value that is not finite"),
        (b"a 1 2 3\n\xff\xfe 1 2 3\n", "v:2: the word .* is not UTF-8"),
        (b"3 4\n" + b"a " + b"\x00" * 16 + b"b " + b"\x00" * 7, "word 2: the file is cut or damaged"),
        (b"no vectors here, just text\n", "v:1: is neither"),
        (b"", "v:1: is neither"),
        (b"5 0\n", "v:1: the header says"),
    ],
)
def test_a_malformed_file_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_vectors(tmp_path / "v")
    assert "\n" not in str(caught.value)


def test_a_cut_archive_or_a_missing_file_is_a_clear_error(tmp_path):
    (tmp_path / "v.gz").write_bytes(gzip.compress(text_file(True))[:-20])
    with pytest.raises(UserError, match="cannot decompress"):
        read_vectors(tmp_path / "v.gz")
    (tmp_path / "v.xz").write_bytes(b"plain text")
    with pytest.raises(UserError, match="cannot decompress"):
        read_vectors(tmp_path / "v.xz")
    with pytest.raises(UserError, match="no such file"):
        read_vectors(tmp_path / "w")


def test_imported_vectors_are_found_by_their_words(tmp_path):
    (tmp_path / "v.txt").write_bytes(text_file(False))
    codec, encoder = import_vectors(tmp_path / "v.txt", pooling="mean_max")
    assert not codec.config.lowercase  # "New York" has capitals
    assert encoder.summary_width == 8
    encoded = encoder(batch_of(codec, ["cat"]))
    assert (encoded.layers[0][0, 0].detach().numpy() == TABLE[1]).all()


def test_glove_is_read_as_published(shared):
    folder = shared("data/glove-6b-50d")
    codec, encoder = import_vectors(folder / "glove.6B.50d.100k.txt.xz", max_words=2000)
    assert codec.size == 2001 and codec.config.lowercase
    the = encoder.embedding.weight[codec.vocab.ids["the"]]
    torch.testing.assert_close(the[:4].detach(), torch.tensor([0.418, 0.24968, -0.41242, 0.1217]))
    normed = torch.nn.functional.normalize(encoder.embedding.weight.detach(), dim=1)
    nearest = (normed @ normed[codec.vocab.ids["france"]]).topk(5).indices.tolist()
    assert {"paris", "italy"} <= {codec.vocab.words[i] for i in nearest}


def test_a_text_does_not_feel_its_neighbours_or_padding():
    codec = codec_of("the", "cat", "sat", ".")
    for pooling in ("mean", "mean_max"):
        encoder = WordVectorEncoder(WordVectorConfig(8, pooling), codec.size)
        together = encoder(batch_of(codec, TEXTS)).summary
        for text, summary in zip(TEXTS, together, strict=True):
            torch.testing.assert_close(
                encoder(batch_of(codec, [text])).summary[0], summary, atol=1e-6, rtol=0
            )


def test_unknown_words_do_not_count_and_a_text_of_them_is_zero():
    codec = codec_of("cat", "sat")
    encoder = WordVectorEncoder(WordVectorConfig(8, "mean_max"), codec.size)
    summary = encoder(batch_of(codec, ["cat sat", "cat quux sat", "quux", ""])).summary
    torch.testing.assert_close(summary[0], summary[1])
    assert not summary[2:].any()


def test_rows_say_which_characters_each_word_covers():
    codec = codec_of("cat")
    (row,) = codec.encode([(Part("A cat!"), Part("cats"))])[0]
    assert row.ids == [0, 1, 0, 0]
    assert row.part == [0, 0, 0, 1] and row.segments == [0, 0, 0, 1]
    assert row.chars == [Span(0, 1), Span(2, 5), Span(5, 6), Span(0, 4)]
    (given,) = codec.encode([(Part("acatb", (Span(1, 4),)),)])[0]
    assert given.ids == [1]


def test_a_codec_learns_frequent_words_and_comes_back_from_its_folder(tmp_path):
    corpus = ["The cat the CAT", "the dog", "猫 the"]
    codec = WordCodec.learn(lambda: iter(corpus), WordCodecConfig(min_count=2))
    assert codec.vocab.words == ("<unk>", "the", "cat")
    codec.save(tmp_path)
    loaded = WordCodec.load(tmp_path)
    assert loaded.config == codec.config and loaded.encode([(Part("cat"),)]) == codec.encode([(Part("cat"),)])
    assert "3 words" in loaded.describe()
    (tmp_path / "codec.json").write_text('{"colour": 1}')
    with pytest.raises(UserError, match=r"codec\.json"):
        WordCodec.load(tmp_path)


CORPUS = [
    "the king rules the land",
    "the queen rules the land",
    "a dog bites a man",
    "a cat bites a man",
] * 30


def trained(pretraining: Word2Vec, seed: int = 0, encoder: WordVectorEncoder | None = None):
    codec = WordCodec.learn(lambda: iter(CORPUS), WordCodecConfig())
    torch.manual_seed(0)
    encoder = encoder or WordVectorEncoder(WordVectorConfig(16), codec.size)
    said = pretraining.run(encoder, codec, lambda: iter(CORPUS), None, Fitting(seed=seed))
    return codec, encoder, said


def test_word2vec_gives_the_same_vectors_again_and_others_for_another_seed():
    codec, first, said = trained(Word2Vec())
    assert said["words"] == codec.size - 1 and said["loss"] > 0
    assert torch.equal(first.embedding.weight, trained(Word2Vec())[1].embedding.weight)
    assert not torch.equal(first.embedding.weight, trained(Word2Vec(), seed=1)[1].embedding.weight)
    assert not first.embedding.weight[0].any()


def test_word2vec_brings_words_of_like_neighbours_together_and_its_loss_down():
    codec, encoder, said = trained(Word2Vec(epochs=30, window=2, sample=0))
    assert said["loss"] < trained(Word2Vec(epochs=1, window=2, sample=0))[2]["loss"]
    normed = torch.nn.functional.normalize(encoder.embedding.weight.detach(), dim=1)
    king, queen, dog = (normed[codec.vocab.ids[word]] for word in ("king", "queen", "dog"))
    assert king @ queen > king @ dog


def test_adaptation_starts_from_the_vectors_that_are_there():
    _, encoder, _ = trained(Word2Vec())
    before = encoder.embedding.weight.detach().clone()
    trained(Word2Vec(start="encoder", lr=1e-3, epochs=1), encoder=encoder)
    torch.testing.assert_close(encoder.embedding.weight.detach(), before, atol=0.01, rtol=0)
    assert not torch.equal(encoder.embedding.weight, before)


def test_a_start_that_was_stopped_while_learning_is_made_when_asked_for_again(tmp_path, monkeypatch):
    wanted = Preparation("words", "pretrain", "wordvectors", 0, texts=Texts(texts=tuple(CORPUS)), size="tiny")
    whole = Word2Vec._learned

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Word2Vec, "_learned", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(wanted, tmp_path / "start")
    monkeypatch.setattr(Word2Vec, "_learned", whole)
    prepare(wanted, tmp_path / "start")
    assert (tmp_path / "start" / "config.json").is_file()


def test_long_documents_are_trained_on_to_their_end():
    codec = codec_of("a", "b", "c")
    encoder = WordVectorEncoder(WordVectorConfig(4), codec.size)
    before = encoder.embedding.weight.detach().clone()
    document = "a b " * 6000 + "c b " * 300
    Word2Vec(epochs=1).run(encoder, codec, lambda: iter([document]), None, Fitting())
    assert not torch.equal(encoder.embedding.weight[3], before[3])


def test_word2vec_says_what_it_cannot_do(monkeypatch):
    codec, encoder, _ = trained(Word2Vec(epochs=1))
    with pytest.raises(UsageError, match="resume"):
        Word2Vec().run(encoder, codec, lambda: iter(CORPUS), None, Fitting(resume=True))
    with pytest.raises(UserError, match="no word that the codec knows"):
        Word2Vec().run(encoder, codec, lambda: iter(["zzz"]), None, Fitting())
    monkeypatch.setitem(__import__("sys").modules, "gensim.models", None)
    with pytest.raises(UserError, match=r"pretune\[vectors\]"):
        Word2Vec().run(encoder, codec, lambda: iter(CORPUS), None, Fitting())


def test_adopted_words_keep_their_vectors_under_new_ids():
    old_codec, new_codec = codec_of("a", "b", "c"), codec_of("c", "new", "a")
    old, new = (WordVectorEncoder(WordVectorConfig(4), 4) for _ in range(2))
    fresh = new.embedding.weight[2].detach().clone()
    WORDVECTORS.adopt(old, old_codec, new, new_codec)
    assert torch.equal(new.embedding.weight[1], old.embedding.weight[3])
    assert torch.equal(new.embedding.weight[3], old.embedding.weight[1])
    assert torch.equal(new.embedding.weight[2], fresh) and not new.embedding.weight[0].any()
    with pytest.raises(UserError, match="5 wide"):
        WORDVECTORS.adopt(old, old_codec, WordVectorEncoder(WordVectorConfig(5), 4), new_codec)


def test_the_method_builds_what_its_sizes_say():
    codec = WORDVECTORS.learn_codec(lambda: iter(CORPUS), WORDVECTORS.codec_config())
    for size, width in {"tiny": 64, "small": 100, "base": 300}.items():
        encoder = WORDVECTORS.build(WORDVECTORS.sizes[size], codec)
        assert encoder.width == encoder.summary_width == width
        assert encoder.groups() == [encoder.embedding]
    assert codec.encode([sample("the cat").parts])[0][0].ids
