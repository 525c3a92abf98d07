"""--lr-find and --cache on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from pretune.runs.starts import save_start
from test_cli import FAST, run

SMALL = ["encoder.embedding=6", "encoder.hidden=7", "encoder.layers=2", "codec.min_count=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rates")
    rows = [f'"{s.texts[0]}",{s.gold}' for s in tiny.labelled(24)]
    (folder / "train.csv").write_text("review,stars\n" + "\n".join(rows) + "\n")
    (folder / "books.txt").write_text("\n\n".join(tiny.texts(60, 3, 30)))
    (folder / "lines.txt").write_text("\n".join(tiny.texts(60, 4, 30)))
    for method in ("ulmfit", "elmo"):
        save_start(tiny.start(method), folder / method, {})
    return folder


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        (["pretrain", "ulmfit", "books.txt", *SMALL], "pretraining.lr"),
        (["pretrain", "ulmfit", "books.txt", *SMALL, "pretraining.optimizer=sgd"], "pretraining.sgd.lr"),
        (["adapt", "ulmfit", "books.txt"], "adaptation.lr"),
        (["adapt", "elmo", "books.txt", "adaptation.streams=2"], "adaptation.lr"),
        (["finetune", "classification", "train.csv", "--from", "ulmfit", "--lr-find-stage", 1], "recipe.lr"),
    ],
)
def test_a_search_prints_suggestions_draws_a_plot_and_trains_nothing(
    command: list[object], setting: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    before = sorted(data.iterdir())
    code, out, err = run(*command, "--lr-find", tmp_path / "rates.svg", *FAST)
    assert code == 0, err
    assert all(name in out for name in ("valley", "minimum", "steep", f"{setting}=")), out
    drawn = (tmp_path / "rates.svg").read_text("utf-8")
    assert "</svg>" in drawn and "loss, smoothed" in drawn and "valley" in drawn
    assert sorted(data.iterdir()) == before and [p.name for p in tmp_path.iterdir()] == ["rates.svg"]


def test_a_plot_is_the_same_each_time_and_may_be_a_picture(data: Path, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "c.png"):
        run("adapt", data / "ulmfit", data / "books.txt", "--lr-find", tmp_path / name, *FAST)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr-find", "rates.txt"], "rates.txt: a plot is drawn as .svg, .png, .pdf"),
        (["--lr-find", "rates.svg", "--resume"], "leave --resume out"),
        (["--lr-find-stage", 1, "--out", "x"], "give --lr-find PLOT as well"),
        (["--lr-find", "rates.svg", "--lr-find-stage", 7], "there is no stage 7"),
        ([], "--out is missing"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments: list[object], message: str, data: Path) -> None:
    code, _, err = run("adapt", data / "ulmfit", data / "books.txt", *arguments, *FAST)
    assert code == 2 and message in " ".join(err.split()), err


def test_a_setting_that_the_stage_takes_a_share_of_is_said(data: Path, tmp_path: Path) -> None:
    command = ["finetune", "classification", data / "train.csv", "--from", data / "ulmfit"]
    code, out, err = run(*command, "--recipe", "gradual-fastai2", "--lr-find", tmp_path / "a.svg", *FAST)
    assert code == 0, err
    assert "the highest rate of stage 'all' is 0.05 × recipe.lr" in " ".join(out.split())
    (row,) = [line.strip("│ ").split() for line in out.splitlines() if "valley" in line]
    assert float(row[4]) == pytest.approx(20 * float(row[2]), rel=0.06)


def test_the_embedding_alone_has_a_rate_of_its_own(data: Path, tmp_path: Path) -> None:
    command = ["adapt", data / "ulmfit", data / "books.txt", "--lr-find-stage", 1]
    code, out, err = run(*command, "--lr-find", tmp_path / "a.svg", *FAST)
    assert code == 0 and "choose one as adaptation.frozen_lr=" in out, err


def test_a_stage_without_a_rate_is_refused(data: Path, tmp_path: Path) -> None:
    command = ["finetune", "classification", data / "train.csv", "--from", data / "ulmfit", "recipe.lr=0"]
    code, _, err = run(*command, "--lr-find", tmp_path / "a.svg", *FAST)
    assert code == 2 and "rate is 0" in err


def test_methods_without_a_rate_say_so(data: Path, tmp_path: Path) -> None:
    plot = tmp_path / "rates.svg"
    code, _, err = run("pretrain", "wordvectors", data / "books.txt", "--lr-find", plot, *FAST)
    assert code == 2 and "has no rate to look for" in err


def test_evaluate_looks_back_with_a_cache(data: Path, tmp_path: Path) -> None:
    scores = {}
    for name, options in {
        "zero": [],
        "carry": ["--state", "carry"],
        "cache": ["--cache", 50, "--cache-lambda", 0.3, "--cache-theta", 0.5],
    }.items():
        file = tmp_path / f"{name}.json"
        code, _, err = run(
            "evaluate", data / "ulmfit", data / "lines.txt", *options, "--out", file, "--device", "cpu"
        )
        assert code == 0, err
        scores[name] = json.loads(file.read_text())
    assert scores["zero"]["state"] == "zero" and scores["carry"]["state"] == "carry"
    assert scores["cache"]["cache"] == {"window": 50, "weight": 0.3, "theta": 0.5}
    assert scores["cache"]["perplexity"]["value"] < scores["carry"]["perplexity"]["value"]
    # read on from text to text, the marks at their beginnings are predicted as well
    assert scores["carry"]["perplexity"]["targets"] > scores["zero"]["perplexity"]["targets"]


def test_two_directions_are_scored_one_by_one(data: Path, tmp_path: Path) -> None:
    small = [*SMALL, "pretraining.epochs=1", "pretraining.streams=2", "--direction", "both"]
    code, _, err = run("pretrain", "ulmfit", data / "books.txt", *small, "--out", tmp_path / "both", *FAST)
    assert code == 0, err
    for options in ([], ["--state", "carry"], ["--cache", 50]):
        code, _, err = run("evaluate", tmp_path / "both", data / "lines.txt", *options)
        assert code == 1 and "several language models; choose one of" in " ".join(err.split()), err
    code, _, err = run("predict", tmp_path / "both", data / "lines.txt")
    assert code == 1 and f"--from {tmp_path / 'both'}`" in err.replace("\n", ""), err


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("ulmfit", ["--cache", 50, "--state", "zero"], "leave --state zero out"),
        ("ulmfit", ["--cache-theta", 0.5], "give --cache WORDS too"),
        ("ulmfit", ["--cache", 50, "--cache-lambda", 2], "must lie between 0 and 1"),
        ("elmo", ["--cache", 50], "read by ulmfit"),
    ],
)
def test_a_cache_that_makes_no_sense_is_refused(
    folder: str, options: list[object], message: str, data: Path
) -> None:
    code, _, err = run("evaluate", data / folder, data / "lines.txt", *options, "--device", "cpu")
    assert code in (1, 2) and message in " ".join(err.split()), err
