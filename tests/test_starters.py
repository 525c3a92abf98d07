"""Starters: installed models that are found by name, in half the bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pretune import Embedder
from pretune.cli import app
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.runs import starters as places
from pretune.runs.beginning import start_of
from pretune.runs.folders import load_weights, save_weights
from pretune.runs.guests import resolved
from pretune.runs.run import load_start
from pretune.runs.starts import save_start as save
from pretune.runs.starts import scratch

TEXTS = ["the cat sat on the mat", "a dog sat on the log", "the end of the day"]


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distribution of three small starters, in a folder for sys.path."""
    site = tmp_path_factory.mktemp("site")
    models = site / "some_starters" / "models"
    for name in ("elmo-en", "wordvectors-en", "wordvectors-zh"):
        method = METHODS[name.split("-")[0]]
        save(scratch(method, "tiny", lambda: TEXTS, 0), models / name, {"parameters": 7, "seconds": 1})
        (models / name / "README.md").write_text(f"# {name}\n\nIts card.\n", "utf-8")
    (site / "some_starters" / "__init__.py").write_text("")
    info = site / "some_starters-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-starters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{places.GROUP}]\nsome-starters = some_starters\n")
    return site


@pytest.fixture
def installed(
    distribution: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[dict[str, places.Starter]]:
    monkeypatch.syspath_prepend(distribution)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "entry_points", only(distribution))
    places.starters.cache_clear()
    yield places.starters()
    places.starters.cache_clear()


def only(site: Path):  # what else is installed must not matter
    from importlib.metadata import distributions

    def entry_points(group: str) -> list[object]:
        (one,) = distributions(path=[str(site)])
        return list(one.entry_points.select(group=group))

    return entry_points


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_are_found_through_the_entry_point(installed: dict[str, places.Starter], distribution: Path) -> None:
    assert list(installed) == ["elmo-en", "wordvectors-en", "wordvectors-zh"]
    assert resolved("elmo-en") == distribution / "some_starters/models/elmo-en"
    assert load_start(Path("elmo-en")).method.name == "elmo"


def test_a_folder_of_that_name_comes_first(installed: dict[str, places.Starter]) -> None:
    Path("elmo-en").mkdir()
    assert resolved("elmo-en") == Path("elmo-en")
    with pytest.raises(UserError, match="no such model folder"):
        load_start(Path("elmo-en"))


def test_a_starter_of_ones_own_needs_no_card_and_odd_names_are_passed_by(
    installed: dict[str, places.Starter], distribution: Path
) -> None:
    models = distribution / "some_starters" / "models"
    made = scratch(METHODS["wordvectors"], "tiny", lambda: TEXTS, 0)
    try:
        for name in ("wordvectors-fr", "mine"):
            save(made, models / name, {"seconds": 1, "config": {"parameters": 9}})
        places.starters.cache_clear()
        listed = run("starters")
        assert "wordvectors-fr" in listed and "9" in listed and "mine" not in listed
        assert "without a card" in run("starters", "wordvectors-fr")
    finally:
        for name in ("wordvectors-fr", "mine"):
            shutil.rmtree(models / name)


def test_a_language_means_what_is_installed(installed: dict[str, places.Starter]) -> None:
    save(scratch(METHODS["wordvectors"], "tiny", lambda: TEXTS, 1), Path("wordvectors-en"), {"seconds": 1})
    assert Path(start_of("en", "wordvectors")) == installed["wordvectors-en"].folder
    assert start_of("wordvectors-en", None) == "wordvectors-en"


def test_a_language_means_the_usual_ones(installed: dict[str, places.Starter]) -> None:
    names = [Path(x).name for x in places.expanded(["en", "mine"])]
    assert names == ["elmo-en", "wordvectors-en", "mine"]
    assert [Path(x).name for x in places.expanded(["en"], ["tfidf", "wordvectors"])] == ["wordvectors-en"]
    with pytest.raises(UsageError, match=r"no starter of bert; there are elmo-en, wordvectors-en"):
        places.expanded(["en"], ["bert"])
    with pytest.raises(UserError, match="starters are there for en, zh only"):
        places.expanded(["de"])
    with pytest.raises(UsageError, match="give one of elmo-en, wordvectors-en"):
        resolved("en")


def test_backward_ones_are_not_meant_by_a_language(tmp_path: Path) -> None:
    assert places.Starter("ulmfit-en", tmp_path, "ulmfit", "en").usual
    assert not places.Starter("ulmfit-en-backward", tmp_path, "ulmfit", "en").usual


def test_without_any_a_language_is_told_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "entry_points", lambda group: [])
    places.starters.cache_clear()
    try:
        with pytest.raises(UserError, match="pip install pretune-starters"):
            places.expanded(["en"])
        assert "pip install pretune-starters" in run("starters")
    finally:
        places.starters.cache_clear()


def test_commands_take_them(installed: dict[str, places.Starter], tmp_path: Path) -> None:
    rows = "".join(f'{{"text": "{text} {i}", "label": "{i % 2}"}}\n' for i, text in enumerate(TEXTS * 6))
    Path("train.jsonl").write_text(rows)
    Path("texts.txt").write_text("\n".join(TEXTS))
    said = ("--from", "en", "--method", "wordvectors", "recipe.epochs=1", "--out", "m")
    run("finetune", "classification", "train.jsonl", *said)
    assert json.loads(Path("m/config.json").read_text())["method"] == "wordvectors"
    run("embed", "elmo-en", "texts.txt", "--out", "x.safetensors", "--layers", "average")
    assert np.isfinite(Embedder.load("elmo-en").embed(TEXTS[:1], layers="average")[0]).all()
    run("adapt", "wordvectors-zh", "texts.txt", "--documents", "line", "--held-out", "0", "--out", "adapted")
    report = ("--sizes", "12", "--seeds", "1", "--unlabelled", "none", "--jobs", "1", "--out", "report")
    quick = ("recipe.epochs=1", "--methods", "elmo,wordvectors", "--no-scratch")
    run("compare", "train.jsonl", "--from", "en", *quick, *report)
    ranking = json.loads(Path("report/comparison.json").read_text())["ranking"]
    assert {row["start"] for row in ranking} == {"elmo-en", "wordvectors-en"}


def test_the_list_and_a_card(installed: dict[str, places.Starter]) -> None:
    listed = run("starters")
    assert all(name in listed for name in installed)
    assert "Its card." in run("starters", "elmo-en")
    assert run("starters", "elmo-en", "--folder").strip() == str(installed["elmo-en"].folder)
    refused = CliRunner().invoke(app, ["starters", "elmo"])
    assert refused.exit_code == 2 and "elmo-en" in refused.output


def test_halves_fill_a_network_of_floats(tmp_path: Path) -> None:
    start = scratch(METHODS["wordvectors"], "tiny", lambda: TEXTS, 0)
    save_weights(start.encoder, tmp_path / "whole.safetensors")
    save_weights(start.encoder, tmp_path / "half.safetensors", halves=True)
    halves = load_file(tmp_path / "half.safetensors")
    other = scratch(METHODS["wordvectors"], "tiny", lambda: TEXTS, 1).encoder
    load_weights(other, tmp_path / "half.safetensors")
    for name, weight in start.encoder.state_dict().items():
        filled = other.state_dict()[name]
        assert filled.dtype == weight.dtype
        if weight.dtype == torch.float32:
            assert halves[name].dtype == torch.float16
            assert torch.equal(filled, weight.half().float())
    with torch.no_grad():
        next(start.encoder.parameters()).fill_(1e6)
    with pytest.raises(UserError, match="65504"):
        save_weights(start.encoder, tmp_path / "beyond.safetensors", halves=True)
