"""A model scores the spans of a file right, whichever scheme the file writes them in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pretune.cli import app
from pretune.data.json_spans import read_tagged
from pretune.metrics.tagging import Chunk, written

SENTENCES = [
    (f"{who} {verb} {where} .".split(), [(0, len(who.split()), "P"), (-2, -1, "L")])
    for who in ("Ann", "Bob Ray", "Cy Van Dam")
    for verb in ("saw", "left", "likes")
    for where in ("Rome", "Oslo")
]


def conll(path: Path, scheme: str, some: slice = slice(None)) -> Path:
    said = []
    for words, spans in SENTENCES[some]:
        own = [Chunk(a % len(words), b % len(words) or len(words), kind) for a, b, kind in spans]
        tags = written(own, len(words), scheme)  # type: ignore[arg-type]
        said.append("".join(f"{word} {tag}\n" for word, tag in zip(words, tags, strict=True)))
    path.write_text("\n".join(said), encoding="utf-8")
    return path


def jsonl(path: Path) -> Path:
    """The same spans by their characters."""
    lines = []
    for words, ((_, count, _), _) in SENTENCES:
        text, who = " ".join(words), len(" ".join(words[:count]))
        place = text.index(words[-2])
        spans = [[0, who, "P"], [place, place + len(words[-2]), "L"]]
        lines.append(json.dumps({"text": text, "spans": spans}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(x) for x in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("scheme", ["bioes", "bmes", "bilou", "iob1", "iob2"])
def test_golds_are_those_of_the_scheme_asked_for(tmp_path: Path, scheme: str) -> None:
    wanted = [sample.gold for sample in read_tagged(conll(tmp_path / "a.conll", scheme)).samples]
    spans = read_tagged(jsonl(tmp_path / "a.jsonl"), scheme=scheme)  # type: ignore[arg-type]
    assert [sample.gold for sample in spans.samples] == wanted
    assert ("compared in" in spans.notes[-1]) == (scheme != "iob2")
    for other in ("bmes", "iob2"):
        columns = read_tagged(conll(tmp_path / "b.conll", other), scheme=scheme)  # type: ignore[arg-type]
        same_letters = {scheme, other} == {"iob1", "iob2"}
        assert [sample.gold for sample in columns.samples] == wanted or same_letters


def test_a_model_is_scored_alike_on_files_of_every_scheme(tmp_path: Path) -> None:
    scheme = "bmes"
    files = {x: conll(tmp_path / f"{x}.conll", x) for x in (scheme, "iob2")}
    train = conll(tmp_path / "train.conll", scheme, slice(4, None))
    valid = conll(tmp_path / "valid.conll", "iob2", slice(4))
    options = "--method wordvectors --device cpu -q codec.min_count=1 encoder.width=16 recipe.lr=0.05"
    model = tmp_path / "model"
    run("finetune", "tagging", train, "--valid", valid, "--out", model, *options.split(), "recipe.epochs=20")
    assert json.loads((model / "run.json").read_text())["scores"]["strict_f1"] > 0.5
    found = {}
    for file in (*files.values(), jsonl(tmp_path / "spans.jsonl")):
        out = tmp_path / "scores.json"
        run("evaluate", model, file, "--out", out, "-q")
        found[file.stem] = json.loads(out.read_text())["scores"]
    assert found["spans"] == found["iob2"] == found[scheme] and found["spans"]["strict_f1"] > 0.5
