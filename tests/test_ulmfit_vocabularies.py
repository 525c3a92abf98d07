"""Vocabularies of every kind are read as data, keep their ids, and tell by whose rules texts were read."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

import ulmfit_files as files
from pretune.data.samples import Part
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit.published import read_words
from ulmfit_models import COUNT, WEIGHTS, close, split, started, take


def test_special_tokens_get_our_names_where_they_stand(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["v07"])
    take(*split(files.write(tmp_path, files.v07(weights), files.words("v07")), tmp_path))
    codec, encoder = started(tmp_path / "model")
    ours = ["xxunk", "xxpad", "xxbos", "xxfld", "xxup", "xxrep", "xxwrep"]
    assert list(codec.vocab.words) == [*ours, *files.words("v07")[len(ours) :]]
    assert torch.equal(encoder.embedding_weight, weights["embedding"])
    assert codec.config.rules == "v07"
    assert codec.ids(["the film"])[0][-2:] == [codec.vocab.ids["the"], codec.vocab.ids["film"]]


@pytest.mark.parametrize(
    ("itos", "expected"),
    [
        (files.words("v07"), "v07"),
        (files.words("v1"), "v1"),
        (files.words("v2"), "v2"),
        (["xxunk", "xxpad", "xxbos", "xxfld", "xxup", "xxrep", "xxwrep", *files.ORDINARY], "v1"),
    ],
    ids=["0.7", "1", "2", "1 in its first days"],
)
def test_the_vocabulary_tells_by_whose_rules_texts_were_read(
    itos: list[str], expected: str, tmp_path: Path
) -> None:
    tensors = files.v2(files.lstm(len(itos)))
    path, vocab = files.write(tmp_path, tensors, itos)
    take(path, tmp_path / "told", vocab, codec={"language": "de"})
    codec = started(tmp_path / "told")[0]
    assert (codec.config.rules, codec.config.language) == (expected, "de")
    take(path, tmp_path / "said", vocab, codec={"rules": "v07"})
    assert started(tmp_path / "said")[0].config.rules == "v07"


def test_without_any_sign_the_layout_decides_and_says_so(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path, files.v07(files.lstm(len(files.ORDINARY))), files.ORDINARY)
    notes = take(path, tmp_path / "model", vocab)
    assert any("does not tell by whose rules texts were read; v07 is taken" in note for note in notes)


def test_needed_tokens_that_a_vocabulary_lacks_are_added_as_the_mean_word(tmp_path: Path) -> None:
    weights = files.lstm(COUNT["salesforce"])
    notes = take(
        *split(files.write(tmp_path, files.salesforce(weights), files.words("salesforce")), tmp_path)
    )
    assert "the vocabulary has no xxpad; added at its end, as the mean of all words" in notes
    codec, encoder = started(tmp_path / "model")
    assert codec.vocab.words[:2] == ("xxunk", "xxbos") and codec.pad_id == COUNT["salesforce"]
    assert torch.equal(encoder.embedding_weight[:-1], weights["embedding"])
    assert close(encoder.embedding_weight[-1], weights["embedding"].mean(0))
    assert close(encoder.decoder_bias[-1], weights["bias"].mean())


def test_words_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    itos = files.words("v2")
    stoi = {word: number for number, word in enumerate(itos)}

    def read(name: str, data: bytes | str) -> list[str]:
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_words(path).words

    for number, found in enumerate((itos, tuple(itos), stoi, dict(enumerate(itos)), OrderedDict(stoi))):
        assert read(f"{number}.pkl", pickle.dumps(found)) == itos
    assert read("counted.pkl", pickle.dumps(defaultdict(int, stoi))) == itos
    assert read("list.json", json.dumps(itos)) == read("ids.json", json.dumps(stoi)) == itos
    assert read("words.txt", "\n".join(itos)) == read("more.txt", "\r\n".join(itos) + "\r\n") == itos
    assert read("quotes.txt", 'the\n"\nxxunk\n') == ["the", '"', "xxunk"]
    assert read("spm.vocab", "".join(f"{word}\t-3.2\n" for word in itos)) == itos


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_fastcores_lists_are_read_without_fastcore(protocol: int, tmp_path: Path) -> None:
    foundation = pytest.importorskip("fastcore.foundation", reason="needs fastcore, which fastai brings")
    transforms = pytest.importorskip("fastai.data.transforms", reason="needs fastai, a test oracle")
    both = foundation.L([foundation.L(files.words("v2")), transforms.CategoryMap(["neg", "pos"])])
    (tmp_path / "dls.pkl").write_bytes(pickle.dumps(both, protocol=protocol))
    assert read_words(tmp_path / "dls.pkl") == (files.words("v2"), ("neg", "pos"))


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("false",)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Evil(), "a pickle of (posix|nt).system, which is not read: its code would have to run"),
        ({"a": 0, "b": 2}, "its ids are not the numbers 0 to 1, each once"),
        ([["a", 3], ["neg"]], "id 1 is '3', which is no word"),
        ([], r"holds '\[\]', no list of words"),
        (b"rubbish", "holds .*rubbish.*, no list of words"),
    ],
    ids=["code", "gaps", "numbers", "empty", "bytes"],
)
def test_vocabularies_that_are_none_are_refused(found: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "itos.pkl").write_bytes(pickle.dumps(found))
    with pytest.raises(UserError, match=message):
        read_words(tmp_path / "itos.pkl")


def test_broken_vocabularies_are_refused(tmp_path: Path) -> None:
    whole = pickle.dumps(files.words("v2"), 4)
    endless = whole[:3] + b"\xff" * 8 + whole[11:]  # a frame of more bytes than there are
    for data in (whole[:-30], endless, b"\x8e" + b"\xff" * 7 + b"\x0f."):
        (tmp_path / "itos.pkl").write_bytes(data)
        with pytest.raises(UserError, match="not a pickle, or damaged"):
            read_words(tmp_path / "itos.pkl")
    (tmp_path / "itos.json").write_text("[")
    with pytest.raises(UserError, match="not JSON"):
        read_words(tmp_path / "itos.json")


def test_words_and_rows_must_be_as_many(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path, files.v2(WEIGHTS), files.words("v2")[:-1])
    with pytest.raises(UserError, match=f"has {COUNT['v2'] - 1} words, .* rows for {COUNT['v2']}"):
        take(path, tmp_path / "model", vocab)
    with pytest.raises(UsageError, match=r"--vocab is missing: .* such as .*itos.pkl"):
        take(path, tmp_path / "model")


def test_salesforces_models_read_text_as_it_is_line_by_line(tmp_path: Path) -> None:
    itos = ["<unk>", "<eos>", "The", "film", "was", "good", "GOOD", "."]
    path, vocab = files.write(tmp_path, files.salesforce(files.lstm(len(itos))), itos)
    notes = take(path, tmp_path / "model", vocab)
    assert any("plain is taken for a file laid out like this" in note for note in notes)
    codec = started(tmp_path / "model")[0]
    text, wanted = " The film was GOOD.\n\nthe film <unk> good\n", [1, 2, 3, 4, 6, 7, 1, 0, 3, 0, 5]
    assert codec.ids([text]) == [wanted]
    (row,) = codec.encode([(Part(text),)])[0]
    assert row.ids == wanted and [text[slice(*span)] for span in row.chars[1:3]] == ["The", "film"]
    assert "without text rules" in codec.describe()
