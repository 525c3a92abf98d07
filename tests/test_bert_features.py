"""Features of BERT: the last four layers side by side, and the JSON lines of `extract_features.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.data.samples import Part
from pretune.errors import UsageError
from pretune.runs.bert_features import features
from pretune.runs.embedder import Embedder
from pretune.runs.starts import Start, save_start
from pretune.tensors.batch import collate

LINES = ["the good film", "a poor plot ||| it was dull and very bad", "great"]


@pytest.fixture(scope="module")
def start() -> Start:
    return tiny.start("bert", 3, layers=4)


def blocks(start: Start, *texts: str) -> list[np.ndarray]:
    """Each block's output for one text or pair, special tokens included."""
    start.encoder.eval()
    start.encoder.purpose("task")
    rows = start.codec.encode([tuple(map(Part, texts))])
    with torch.no_grad():
        return [h[0].numpy() for h in start.encoder(collate(rows, start.codec.pad_id)).layers[1:]]


def test_each_line_has_its_tokens_with_the_layers_asked_for(start: Start) -> None:
    found = list(features(start, LINES, (-1, -2), batch_size=2))
    assert [one["linex_index"] for one in found] == [0, 1, 2]
    tokens = [t["token"] for t in found[1]["features"]]
    assert tokens[0] == "[CLS]" and tokens.count("[SEP]") == 2
    alone = blocks(start, "a poor plot", "it was dull and very bad")
    for index in (-1, -2):
        values = [next(x["values"] for x in t["layers"] if x["index"] == index) for t in found[1]["features"]]
        np.testing.assert_allclose(values, alone[index], atol=2e-6)
        assert values[0] == [round(x, 6) for x in values[0]]


def test_a_layer_that_is_not_there_is_a_mistake(start: Start) -> None:
    with pytest.raises(UsageError, match="layer -5 is none of this encoder, which has 4"):
        list(features(start, LINES, (-5,)))


def test_the_last_four_stand_side_by_side_the_top_one_first(start: Start) -> None:
    (found,) = Embedder.of(start).embed(["the good film"], layers="concat4")
    words = slice(1, len(found) + 1)  # between [CLS] and [SEP]
    wanted = np.concatenate([h[words] for h in blocks(start, "the good film")[::-1]], -1)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_fewer_than_four_layers_of_one_width_are_told(start: Start) -> None:
    with pytest.raises(UsageError, match="concat4 wants 4 layers of one width"):
        Embedder.of(tiny.start("wordvectors")).embed(["the"], layers="concat4")


def test_the_command_line_writes_them(start: Start, tmp_path: Path) -> None:
    save_start(start, tmp_path / "bert", {})
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    call = ["embed", str(tmp_path / "bert"), str(tmp_path / "lines.txt"), "--device", "cpu", "--out"]
    done = CliRunner().invoke(app, [*call, str(tmp_path / "f.jsonl"), "--layers", "concat4"])
    assert done.exit_code == 0, done.output
    written = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written == json.loads(json.dumps(list(features(start, LINES))))
    assert [x["index"] for x in written[0]["features"][0]["layers"]] == [-1, -2, -3, -4]
    done = CliRunner().invoke(app, [*call, str(tmp_path / "g.jsonl"), "--layers", "summary"])
    assert done.exit_code == 2 and not (tmp_path / "g.jsonl").exists()
    done = CliRunner().invoke(app, [*call, str(tmp_path / "g.jsonl"), "--align", "words"])
    assert done.exit_code == 2 and "--align means nothing with an --out called .jsonl" in done.output
    assert not (tmp_path / "g.jsonl").exists()


@pytest.mark.parametrize("method", ["elmo", "wordvectors"])
def test_what_has_no_layers_over_numbered_tokens_has_no_such_lines(method: str) -> None:
    with pytest.raises(UsageError, match=f"{method} has no layers over the tokens of a vocabulary"):
        list(features(tiny.start(method), LINES))
