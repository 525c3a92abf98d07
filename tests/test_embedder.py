"""Embedder: the same vectors in any company, where the originals had them, and what words they are of."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bilm
import pretune
import tiny
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.methods.elmo import ELMo
from pretune.methods.elmo.release import Release
from pretune.runs.embedder import Embedder
from pretune.runs.readings import Reading
from pretune.runs.run import finetune
from pretune.runs.starts import Start, save_start
from pretune.runs.token_vectors import write_token_vectors
from pretune.tasks.classification import Classification
from pretune.training.loop import Fitting

Shared = Callable[[str], Path]
TEXTS = ["It was a good film .", "", "a", *tiny.texts(12, 4, 9), "unheard-of wörds 电影"]


def saved(start: Start, folder: Path) -> Path:
    save_start(start, folder, {})
    return folder


@pytest.fixture(scope="module", params=["elmo", "ulmfit", "wordvectors"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny.start(request.param), tmp_path_factory.mktemp("embed") / request.param)


@pytest.fixture(scope="module")
def elmo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny.start("elmo"), tmp_path_factory.mktemp("embed") / "elmo")


class Fixture:
    """AllenNLP's small biLM, its sentences and what came out of the top layer."""

    def __init__(self, shared: Shared, folder: Path) -> None:
        self.published = shared("fixtures/elmo/allennlp")
        codec, encoder = bilm.read(
            Release(self.published / "options.json", self.published / "lm_weights.hdf5")
        )
        self.folder = saved(Start("elmo", METHODS["elmo"], codec, encoder, encoder.config), folder / "elmo")
        columns = json.loads((self.published / "sentences.json").read_text())
        self.sentences = [columns[k][step].split() for step in range(10) for k in range(3)]

    def top(self, number: int) -> Any:
        found = bilm.arrays_of(self.published / f"lm_embeddings_{number % 3}.hdf5")[str(number // 3)]
        return np.concatenate(found, -1)


@pytest.fixture
def fixture(shared: Shared, tmp_path: Path) -> Fixture:
    return Fixture(shared, tmp_path)


def layers_of(vectors: Any) -> list[Any]:
    return list(vectors)


def differ(some: list[Any], others: list[Any]) -> float:
    assert len(some) == len(others)
    pairs = [pair for a, b in zip(some, others) for pair in zip(layers_of(a), layers_of(b), strict=True)]
    assert all(a.shape == b.shape for a, b in pairs)
    return max((float(np.abs(a - b).max()) for a, b in pairs if a.size), default=0.0)


@pytest.mark.parametrize("state", ["zero", "warm"])
def test_vectors_do_not_depend_on_batch_order_or_neighbours(folder: Path, state: Any) -> None:
    if folder.name == "wordvectors" and state == "warm":
        pytest.skip("keeps no state")
    embedder = Embedder.load(folder, state, device="cpu")
    alone = [embedder.embed([text])[0] for text in TEXTS]
    for how in ({"batch_size": 1}, {"batch_size": 5}, {"batch_size": 100}, {"batch_tokens": 11}):
        assert differ(embedder.embed(TEXTS, **how), alone) < 1e-6
    turned = embedder.embed(TEXTS[::-1], batch_size=4)[::-1]
    assert differ(turned, alone) < 1e-6


def test_every_choice_of_layers_has_its_shape(folder: Path) -> None:
    embedder = Embedder.load(folder, device="cpu")
    encoder = embedder.encoder
    widths = encoder.layer_widths()
    for text, found in zip(TEXTS, embedder.embed(TEXTS)):
        words = embedder.words(text)
        assert [x.shape for x in layers_of(found)] == [(len(words), width) for width in widths]
    everything = embedder.embed(TEXTS)
    for layers in ("top", "average", "mix"):
        found = embedder.embed(TEXTS, layers)
        assert [x.shape for x in found] == [(len(embedder.words(text)), encoder.width) for text in TEXTS]
        for a, b in zip(everything, found):
            alike = [x for x in layers_of(a) if x.shape[-1] == encoder.width]
            assert np.allclose(b, alike[-1] if layers == "top" else np.mean(alike, 0), atol=1e-6)
    summaries = embedder.embed(TEXTS, "summary")
    assert {x.shape for x in summaries} == {(encoder.summary_width,)}
    assert np.isfinite(np.stack(summaries)).all()


def test_an_empty_sentence_has_no_vector_but_all_layers(elmo: Path) -> None:
    embedder = Embedder.load(elmo, device="cpu")
    assert [x.shape for x in embedder.embed(["", []])] == [(3, 0, 6)] * 2
    assert embedder.embed([]) == []


def test_budgets_count_real_tokens(elmo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder.load(elmo, device="cpu")
    seen: list[int] = []
    forward = ELMo.forward

    def counted(self: ELMo, batch: Any, carry: Any = None) -> Any:
        seen.append(int(batch.mask.sum()))
        return forward(self, batch, carry)

    monkeypatch.setattr(ELMo, "forward", counted)
    texts = tiny.texts(40, 2, 9)
    embedder.embed(texts, batch_tokens=20)
    assert max(seen) <= 20
    assert all(a + 1 > 20 - 9 for a in seen[:-1])  # no batch is left half empty
    assert sum(seen) == sum(len(text.split()) for text in texts)


def test_words_that_are_given_are_kept_to_or_refused(folder: Path) -> None:
    words = ["don't", "stop", "New York", "!", "Great"]
    embedder = Embedder.load(folder, device="cpu")
    if folder.name == "ulmfit":
        with pytest.raises(UsageError, match=r"sentence 2 has 5 words, which are .* align"):
            embedder.embed([["stop"], words])
    else:
        assert embedder.embed([words], "top")[0].shape[0] == 5
    aligned = Embedder.load(folder, device="cpu", align="words")
    assert aligned.embed([words], "top")[0].shape[0] == 5
    assert aligned.words(words) == words


def test_aligned_words_are_the_means_of_their_tokens(tmp_path: Path) -> None:
    folder = saved(tiny.start("ulmfit"), tmp_path / "ulmfit")
    plain, aligned = Embedder.load(folder, device="cpu"), Embedder.load(folder, device="cpu", align="words")
    words = ["Good-film", "it", "GREAT"]
    tokens = plain.embed(["Good-film it GREAT"], "top")[0]
    assert plain.words("Good-film it GREAT") == ["Good", "Good", "-", "film", "it", "GREAT", "GREAT"]
    found = aligned.embed([words], "top")[0]
    wanted = [tokens[:4].mean(0), tokens[4], tokens[5:].mean(0)]
    assert np.allclose(found, wanted, atol=1e-6)
    segmented = aligned.embed(["Good-film it GREAT"], "top")[0]
    assert aligned.words("Good-film it GREAT") == ["Good", "-", "film", "it", "GREAT"]
    assert np.allclose(segmented[3:], found[1:], atol=1e-6)


def test_a_backward_model_gives_vectors_in_the_order_of_the_text(tmp_path: Path) -> None:
    start = tiny.start("ulmfit")
    backward: Any = type(start.codec)
    codec = backward(type(start.codec.config)(direction="backward"), start.codec.vocab)  # type: ignore[attr-defined]
    reading = Reading.of(codec, "a good film")
    assert reading.words == ["a", "good", "film"]
    assert [reading.row.ids[t] for t in reading.kept] == [codec.vocab.ids[w] for w in reading.words]  # type: ignore[union-attr]


def test_carried_state_is_the_originals_in_batches_of_three(fixture: Fixture) -> None:
    embedder = Embedder.load(fixture.folder, "carry", device="cpu")
    found = embedder.embed(fixture.sentences, "top", batch_size=3)
    for number, top in enumerate(found):
        assert np.allclose(top, fixture.top(number), atol=1e-6)  # as the release compares


def test_carried_state_one_by_one_is_the_dump_of_bilm(fixture: Fixture) -> None:
    """`dump_bilm_embeddings` reads a sentence a batch; what it would give is worked out by hand."""
    some = [*fixture.sentences[:4], [], *fixture.sentences[4:7]]
    embedder = Embedder.load(fixture.folder, "carry", device="cpu")
    found = embedder.embed(some, batch_size=1)
    carry, other = None, Embedder.load(fixture.folder, device="cpu")
    for sentence, vectors in zip(some, found):
        (wanted,), carry = other.step([sentence], carry=carry)
        assert differ([vectors], [wanted]) == 0.0
    assert found[4].shape == (3, 0, 32)
    assert differ(found[:1], other.embed(some[:1])) < 1e-6
    assert differ(found[1:2], other.embed(some[1:2])) > 0.01


def test_an_empty_sentence_moves_the_state_by_its_two_marks_alone(elmo: Path) -> None:
    embedder = Embedder.load(elmo, device="cpu")
    alone, together = embedder.step([""])[1], embedder.step(["", "a good film"])[1]
    word = embedder.step([[""]])[1]
    for a, b, c in zip(flat(alone), flat(together), flat(word)):
        assert torch.allclose(a, b[:1], atol=1e-6)
        assert not torch.allclose(a, c, atol=1e-4)


def flat(carry: Any) -> list[torch.Tensor]:
    return [carry] if isinstance(carry, torch.Tensor) else [x for part in carry for x in flat(part)]


def test_warm_is_the_state_after_its_text(elmo: Path) -> None:
    warm = Embedder.load(elmo, "warm", device="cpu", warm_text="It was dull. A great book!")
    zero = Embedder.load(elmo, device="cpu")
    _, carry = zero.step(["It was dull."])
    _, carry = zero.step(["A great book!"], carry=carry)
    wanted, _ = zero.step(["the film"], carry=carry)
    assert differ(warm.embed(["the film"]), wanted) < 1e-6
    assert differ(warm.embed(["the film"]), zero.embed(["the film"])) > 1e-4
    assert differ(warm.embed(["the film"] * 3)[:1], wanted) < 1e-6
    builtin = Embedder.load(elmo, "warm", device="cpu").embed(["the film"])
    assert differ(builtin, Embedder.load(elmo, "warm", device="cpu").embed(["the film"])) == 0.0


def test_a_language_has_its_own_warm_text(tmp_path: Path) -> None:
    start = tiny.start("elmo")
    chinese: Any = type(start.codec)(type(start.codec.config)(language="zh"), start.codec.vocab)  # type: ignore
    folder = saved(Start("zh", start.method, chinese, start.encoder, start.encoder_config), tmp_path / "zh")
    zh = Embedder.load(folder, "warm", device="cpu")
    en = Embedder.load(saved(start, tmp_path / "en"), "warm", device="cpu")
    assert differ(zh.embed([["a"]]), en.embed([["a"]])) > 1e-5


def test_wrong_choices_are_answered(elmo: Path, tmp_path: Path) -> None:
    carry = Embedder.load(elmo, "carry", device="cpu")
    with pytest.raises(UsageError, match="give batch_size instead"):
        carry.embed(["a"], batch_tokens=10)
    with pytest.raises(UsageError, match="choose one of all"):
        carry.embed(["a"], layers="tops")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="takes a list"):
        carry.embed("a")
    with pytest.raises(UsageError, match="state is 'cold'"):
        Embedder.load(elmo, "cold")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is for state warm"):
        Embedder.load(elmo, warm_text="a")
    with pytest.raises(UsageError, match="precision is 'bf16'"):
        Embedder.load(elmo, precision="bf16")
    vectors = saved(tiny.start("wordvectors"), tmp_path / "vectors")
    with pytest.raises(UsageError, match="wordvectors keeps no state"):
        Embedder.load(vectors, "carry", device="cpu").embed(["a"])
    with pytest.raises(UsageError, match="only ELMo can read with"):
        Embedder.load(vectors, precision="int8")
    with pytest.raises(UsageError, match="are ELMo's"):
        Embedder.load(vectors).outputs(["a"])
    ulmfit = saved(tiny.start("ulmfit"), tmp_path / "ulmfit")
    with pytest.raises(UsageError, match="batches of one sentence"):
        Embedder.load(ulmfit, "carry", device="cpu").embed(["a", "a good film"])
    with pytest.raises(UserError, match="no such model folder"):
        Embedder.load(tmp_path / "nowhere")


def test_low_precision_is_near_and_does_not_depend_on_the_batch(elmo: Path) -> None:
    exact = Embedder.load(elmo, device="cpu").embed(TEXTS)
    for precision, near in (("float16", 1e-2), ("int8", 0.1)):
        embedder = Embedder.load(elmo, device="cpu", precision=precision)
        assert 0 < differ(embedder.embed(TEXTS), exact) < near
        assert differ(embedder.embed(TEXTS, batch_size=1), embedder.embed(TEXTS)) < 1e-5


def test_a_finetuned_folder_gives_its_learned_mix(tmp_path: Path) -> None:
    samples = tiny.labelled(20)
    recipe = tiny.recipe("features", epochs=8, lr=0.3)
    fitting = Fitting(device="cpu", quiet=True)
    start = tiny.start("elmo")
    trained, _ = finetune(start, Classification.of(samples), recipe, samples, [], fitting)
    trained.save(tmp_path / "model", {})
    embedder = Embedder.load(tmp_path / "model", device="cpu")
    learned = trained.model.encoder.mix  # type: ignore[union-attr, attr-defined]
    shares, gamma = learned.shares().numpy(), float(learned.gamma.detach())
    assert abs(shares - 1 / 3).max() > 0.01
    everything, mixed = embedder.embed(TEXTS), embedder.embed(TEXTS, "mix")
    for a, b in zip(everything, mixed):
        assert np.allclose(gamma * np.einsum("l,ltd->td", shares, a), b, atol=1e-5)
    assert "learned with the task" in embedder.mixing
    before = Embedder.load(saved(start, tmp_path / "before"), device="cpu")
    assert differ(before.embed(TEXTS), everything) < 1e-6  # features leave the encoder as it was
    assert "has learned no mix" in before.mixing


def test_outputs_are_those_of_tf_hub(elmo: Path) -> None:
    embedder = Embedder.load(elmo, device="cpu")
    texts = ["a good film.", "dull", "it  was "]
    found = embedder.outputs(texts)
    assert {name: x.shape for name, x in found.items()} == {
        "word_emb": (3, 3, 3),
        "lstm_outputs1": (3, 3, 6),
        "lstm_outputs2": (3, 3, 6),
        "elmo": (3, 3, 6),
        "default": (3, 6),
        "sequence_len": (3,),
    }
    assert found["sequence_len"].tolist() == [3, 1, 2]  # "film." is one word: only spaces split
    layers = embedder.embed([["a", "good", "film."]])[0]
    assert np.allclose(found["lstm_outputs2"][0], layers[2], atol=1e-6)
    assert np.allclose(np.tile(found["word_emb"][0], 2), layers[0], atol=1e-6)
    assert np.allclose(found["elmo"][0], layers.mean(0), atol=1e-6)
    assert not found["elmo"][1, 1:].any()
    assert np.allclose(found["default"][1], found["elmo"][1, 0], atol=1e-6)  # padding is not counted
    padded = embedder.outputs([["dull", "", ""], ["it", "was", "x"]], sequence_len=[1, 2])
    assert padded["elmo"].shape == (2, 2, 6)
    assert np.allclose(padded["elmo"][0, 0], found["elmo"][1, 0], atol=1e-6)


def test_vectors_of_a_vocabulary_take_the_place_of_the_network(elmo: Path, tmp_path: Path) -> None:
    embedder = Embedder.load(elmo, device="cpu")
    words = ["<S>", "</S>", "<UNK>", "good", "film", "good", "x" * 60, "x" * 70]
    write_token_vectors(embedder.start, words, tmp_path / "tokens.h5")
    table = bilm.arrays_of(tmp_path / "tokens.h5")["embedding"]
    assert table.shape == (8, 3) and table.dtype == np.float32
    assert np.allclose(table[3], embedder.embed([["good"]])[0][0, 0, :3], atol=1e-6)
    assert np.allclose(table[3], table[5], atol=1e-6)
    assert np.allclose(table[6], table[7], atol=1e-6)  # 48 bytes are read
    fast = Embedder.load(elmo, device="cpu", token_vectors=tmp_path / "tokens.h5")
    cache = fast.encoder.cache  # type: ignore[attr-defined]
    known = cache.misses
    assert differ(fast.embed([["good", "film"]]), embedder.embed([["good", "film"]])) < 1e-6
    assert cache.misses == known
    assert differ(fast.embed(TEXTS), embedder.embed(TEXTS)) < 1e-6  # and the network for all other words
    assert cache.misses > known


def test_published_vectors_of_a_vocabulary_are_ours(fixture: Fixture) -> None:
    embedder = Embedder.load(
        fixture.folder,
        device="cpu",
        token_vectors=fixture.published / "elmo_token_embeddings.hdf5",
        vocabulary=fixture.published / "vocab_test.txt",
    )
    plain = Embedder.load(fixture.folder, device="cpu")
    assert differ(embedder.embed(fixture.sentences), plain.embed(fixture.sentences)) < 2e-6


def test_vectors_of_another_model_are_refused(fixture: Fixture, elmo: Path, tmp_path: Path) -> None:
    vectors, words = fixture.published / "elmo_token_embeddings.hdf5", fixture.published / "vocab_test.txt"
    with pytest.raises(UsageError, match="give the vocabulary"):
        Embedder.load(fixture.folder, token_vectors=vectors)
    with pytest.raises(UserError, match="made by another model"):
        Embedder.load(elmo, token_vectors=vectors, vocabulary=words)
    short = tmp_path / "short.txt"
    short.write_text("a\nb\n")
    with pytest.raises(UserError, match=r"458 vectors, .* 2 words"):
        Embedder.load(fixture.folder, token_vectors=vectors, vocabulary=short)
    moved = tmp_path / "moved.txt"
    lines = words.read_text("utf-8").split("\n")
    moved.write_text("\n".join([*lines[1:], lines[0]]), "utf-8")
    with pytest.raises(UserError, match="is not this model's"):
        Embedder.load(fixture.folder, token_vectors=vectors, vocabulary=moved)
    with pytest.raises(UserError, match="no such file"):
        Embedder.load(fixture.folder, token_vectors=tmp_path / "none.h5")


def test_a_stream_is_read_in_windows(elmo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder.load(elmo, device="cpu")
    monkeypatch.setattr("pretune.runs.embedder.WINDOW", 4)
    texts, asked = tiny.texts(10, 6), []

    def endless() -> Any:
        for text in texts:
            asked.append(text)
            yield text

    stream = embedder.stream(endless())
    first = next(stream)
    assert len(asked) == 4
    rest = [first, *stream]
    assert differ([x.vectors for x in rest], embedder.embed(texts, batch_size=1)) < 1e-6
    assert [x.words for x in rest] == [text.split() for text in texts]


def test_the_public_name_is_there() -> None:
    assert pretune.Embedder is Embedder
    assert all(a <= b for a, b in pairwise(pretune.__all__))
