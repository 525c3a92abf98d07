"""The command line as a user meets it: results, one line for a mistake, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tiny
from pretune.cli import NAMES, app
from pretune.methods import METHODS

FAST = ["--device", "cpu", "--quiet"]
WORDS = [
    "--method",
    "wordvectors",
    "encoder.width=6",
    "codec.min_count=1",
    "recipe.epochs=20",
    "recipe.lr=0.05",
    "recipe.batch_size=4",
]


def run(*arguments: object, stdin: str | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    found = CliRunner().invoke(app, [str(x) for x in arguments], input=stdin)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stdout, found.stderr


def subprocess_environment() -> dict[str, str]:
    source = str(Path(__file__).parent.parent / "src")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [f'"{s.texts[0]}",{s.gold}' for s in tiny.labelled(24)]
    (folder / "train.csv").write_text("review,stars\n" + "\n".join(rows) + "\n")
    rows = [f'"{s.texts[0]}",{s.gold}' for s in tiny.labelled(10, seed=5)]
    (folder / "test.csv").write_text("review,stars\n" + "\n".join(rows) + "\n")
    (folder / "books.txt").write_text("\n\n".join(tiny.texts(40, 3, 30)))
    return folder


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    code, out, err = run(
        "finetune", "classification", data / "train.csv", "--out", data / "model", *WORDS, *FAST
    )
    assert code == 0, err
    assert out.startswith("validation: accuracy")
    return data / "model"


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['pretune', '--help']\n"
        "from pretune.__main__ import main\n"
        "try: main()\n"
        "finally: print([m for m in ('torch', 'sklearn', 'gensim', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, env=subprocess_environment(), check=True)
    assert found.stdout.rstrip().endswith("[]")
    for name in NAMES:
        assert f" {name} " in found.stdout


def test_importing_pretune_imports_no_torch() -> None:
    script = "import sys, pretune; print('torch' in sys.modules, pretune.__version__)"
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, env=subprocess_environment(), check=True)
    assert found.stdout.startswith("False")


@pytest.mark.parametrize("command", NAMES)
def test_every_help_teaches_by_an_example(command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"pretune {command}" in " ".join(out.split())
    assert "xample" in out


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_help_names_the_sizes_of_each_method(command: str) -> None:
    words = " ".join(run(command, "--help")[1].replace("│", " ").split())
    for name, method in METHODS.items():
        assert f"{name}: {', '.join(method.sizes)}" in words


@pytest.mark.parametrize("command", ["import", "pretrain", "adapt"])
def test_help_shows_settings_that_the_command_takes(command: str) -> None:
    words = " ".join(run(command, "--help")[1].replace("│", " ").split())
    assert "recipe." not in words and "patience" not in words


def test_a_command_without_arguments_shows_its_help() -> None:
    code, out, err = run("finetune")
    assert code == 2
    assert "Usage" in out + err


def test_finetune_leaves_a_folder_that_tells_how_it_came_about(model: Path, data: Path) -> None:
    said = json.loads((model / "run.json").read_text())
    assert said["scores"]["accuracy"] >= 0
    assert said["seconds"] > 0
    assert said["peak_memory_bytes"] > 1e6
    assert said["config"]["recipe"]["kind"] == "full"
    assert said["config"]["recipe"]["lr"] == 0.05
    assert said["config"]["start"] == "scratch"
    assert said["data"]["train"]["path"] == str(data / "train.csv")
    assert len(said["history"]) == 20
    assert {path.name for path in data.iterdir()} >= {"model"}
    assert not list(data.glob("*.checkpoints")) and not list(data.glob(".model*"))


def test_predict_writes_one_line_for_each_input_in_order(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    assert run("predict", model, data / "test.csv", "--out", out, "--quiet")[0] == 0
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(answers) == 10
    assert {answer["label"] for answer in answers} <= {"yes", "no"}
    code, said, _ = run("predict", model, data / "test.csv", "--quiet", "--batch-size", 1)
    assert code == 0
    for one, other in zip(answers, map(json.loads, said.splitlines()), strict=True):
        assert one["label"] == other["label"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_predict_reads_texts_from_a_pipe(model: Path) -> None:
    code, out, _ = run("predict", model, "-", "--quiet", stdin="good film\nbad film\n")
    assert code == 0
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["yes", "no"]
    lines = '{"review": "good film"}\n'
    code, out, _ = run("predict", model, "-", "--format", "jsonl", "--quiet", stdin=lines)
    assert code == 0
    assert json.loads(out)["label"] == "yes"


def test_evaluate_prints_scores_intervals_and_confusions(model: Path, data: Path, tmp_path: Path) -> None:
    code, out, _ = run("evaluate", model, data / "test.csv", "--out", tmp_path / "s.json", "--quiet")
    assert code == 0
    for word in ("accuracy", "macro_f1", "95 % interval", "gold", "10 samples"):
        assert word in out
    assert 0 <= json.loads((tmp_path / "s.json").read_text())["scores"]["accuracy"] <= 1


def test_a_plan_is_printed_and_nothing_is_trained(data: Path, tmp_path: Path) -> None:
    given = ["finetune", "classification", data / "train.csv", "--out", tmp_path / "x", "--plan", "--quiet"]
    code, out, err = run(*given, *WORDS[:4], "--recipe", "gradual")
    assert code == 0, err
    for word in ("embedding", "head", "AdamW", "rate", "parameters"):
        assert word in out
    assert list(tmp_path.iterdir()) == []


def test_settings_come_from_a_file_and_the_command_line_is_on_top(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_text(
        'method = "wordvectors"\nseed = 3\nvalid-share = 0.25\ndevice = "cpu"\n'
        "[about]\npaper = 'a comment'\n[encoder]\nwidth = 5\n[codec]\nmin_count = 1\n"
        "[recipe]\nlr = 0.5\nepochs = 2\n"
    )
    given = ["finetune", "classification", data / "train.csv", "--out", tmp_path / "m", "--config", config]
    code, _, err = run(*given, "--seed", 4, "recipe.lr=0.25", "--set", "recipe.clip=none", "--quiet")
    assert code == 0, err
    said = json.loads((tmp_path / "m" / "run.json").read_text())
    assert said["seed"] == 4
    assert said["config"]["recipe"]["lr"] == 0.25
    assert said["config"]["recipe"]["epochs"] == 2
    assert said["config"]["recipe"]["clip"] is None
    assert said["config"]["encoder"]["width"] == 5
    assert said["data"]["valid"]["samples"] == 6


def test_pretrain_and_adapt_end_in_folders_that_finetune_starts_from(data: Path, tmp_path: Path) -> None:
    tiny_ulmfit = [f"encoder.{name}={value}" for name, value in tiny.ENCODER["ulmfit"].items()]
    short = ["pretraining.epochs=1", "pretraining.window=10", "codec.min_count=1"]
    given = ["pretrain", "ulmfit", data / "books.txt", "--out", tmp_path / "old", "--documents", "blank"]
    code, _, err = run(*given, "--held-out", 10, *tiny_ulmfit, *short, *FAST)
    assert code == 0, err
    adapted = ["adaptation.epochs=1", "adaptation.frozen_epochs=0", "adaptation.window=10"]
    given = ["adapt", tmp_path / "old", data / "train.csv", "--text", "review", "--out", tmp_path / "new"]
    code, _, err = run(*given, "--vocabulary", "union", *adapted, *FAST)
    assert code == 0, err
    given = ["finetune", "classification", data / "train.csv", "--from", tmp_path / "new"]
    code, _, err = run(*given, "--out", tmp_path / "m", "recipe.epochs=1", *FAST)
    assert code == 0, err
    assert json.loads((tmp_path / "m" / "run.json").read_text())["config"]["recipe"]["kind"] == "gradual"
    assert not list(tmp_path.glob("*.checkpoints"))


def test_vectors_are_a_start(data: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "glove.txt"
    vectors.write_text("".join(f"{word} {i / 9} {-i / 7} {i % 3}\n" for i, word in enumerate(tiny.WORDS)))
    given = ["finetune", "classification", data / "train.csv", "--vectors", vectors, "--out", tmp_path / "m"]
    code, _, err = run(*given, "encoder.pooling=mean_max", "recipe.epochs=1", *FAST)
    assert code == 0, err
    assert json.loads((tmp_path / "m" / "config.json").read_text())["encoder"] == {
        "width": 3,
        "pooling": "mean_max",
    }


FINETUNE = ["finetune", "classification", "TRAIN", "--out", "OUT", "--quiet"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([*FINETUNE, "--method", "ulmfitt"], 2, "the method is 'ulmfitt'; did you mean 'ulmfit'?"),
        ([*FINETUNE, "--recipe", "gradul"], 2, "the recipe is 'gradul'; did you mean 'gradual'?"),
        ([*FINETUNE, "--size", "huge"], 2, "--size is 'huge'; "),
        ([*FINETUNE, "--kind", "two"], 2, "--kind is 'two'; choose one of one, many, number"),
        ([*FINETUNE, "--device", "tpu", *WORDS], 2, "device is 'tpu'; "),
        ([*FINETUNE, "--text", "reviw"], 1, "did you mean 'review'?"),
        ([*FINETUNE, "--encoding", "utf-99"], 2, "--encoding 'utf-99' is no text encoding"),
        ([*FINETUNE, "--from", "nowhere"], 1, "nowhere: no such model folder"),
        ([*FINETUNE, "--from", "MODEL", "--method", "ulmfit"], 2, "holds wordvectors; leave --method out"),
        ([*FINETUNE, "--from", "MODEL", "codec.language=zh"], 2, "codec.… cannot be chosen anew"),
        ([*FINETUNE, "--from", "MODEL", "encoder.width=9"], 2, "encoder.width comes with the weights of"),
        ([*FINETUNE, "--vectors", "x.txt", "--method", "ulmfit"], 2, "--vectors are for wordvectors"),
        ([*FINETUNE, "recipe.lr=fast"], 2, "recipe.lr is 'fast'; a number is wanted"),
        ([*FINETUNE, "recipe.lrr=1"], 2, "recipe.lrr does not exist; did you mean 'lr'?"),
        ([*FINETUNE, "recip.lr=1"], 2, "a setting's first word is 'recip'; did you mean 'recipe'?"),
        ([*FINETUNE, "--set", "recipe"], 2, "'recipe' is no setting"),
        ([*FINETUNE, "--config", "no.toml"], 2, "no.toml: no such config file"),
        (["finetune", "classificatoin", "TRAIN", "--out", "OUT"], 2, "did you mean 'classification'?"),
        (["finetune", "classification", "no.csv", "--out", "OUT"], 1, "no such file: no.csv"),
        (["finetune", "classification", "TRAIN", "--out", "MODEL"], 1, "add --overwrite"),
        (["finetune", "classification", "TRAIN", "--out", "TRAIN"], 1, "is a file; --out wants a folder"),
        (
            [
                "finetune",
                "classification",
                "TRAIN",
                "--out",
                "OUT",
                "--method",
                "wordvectors",
                "task.hidden=9",
            ],
            2,
            "this head is linear",
        ),
        (["evaluate", "nowhere", "TEST"], 1, "nowhere: no such model folder"),
        (["evaluate", "MODEL", "TEST", "--label", "star"], 1, "did you mean 'stars'?"),
        (["evaluate", "MODEL", "TEST", "--state", "zero"], 2, "--state is for the perplexity of a"),
        (["predict", "MODEL", "no.csv"], 1, "no such file: no.csv"),
        (["adapt", "MODEL", "BOOKS", "--out", "OUT", "--vocabulary", "all"], 2, "--vocabulary is 'all'"),
        (["pretrain", "gpt9", "BOOKS", "--out", "OUT"], 2, "the method is 'gpt9'; "),
        (["pretrain", "ulmfit", "BOOKS", "--out", "OUT", "--documents", "page"], 2, "--documents is 'page'"),
        (["pretrain", "ulmfit", "BOOKS", "--out", "OUT", "--direction", "up"], 2, "--direction is 'up'"),
        (["pretrain", "wordvectors", "BOOKS", "--out", "OUT", "--direction", "both"], 2, "no direction"),
        (["pretrain", "ulmfit", "no.txt", "--out", "OUT"], 1, "no.txt"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    arguments: list[str], code: int, message: str, model: Path, data: Path, tmp_path: Path
) -> None:
    places = {"TRAIN": data / "train.csv", "TEST": data / "test.csv", "BOOKS": data / "books.txt"}
    places |= {"MODEL": model, "OUT": tmp_path / "out"}
    found, out, err = run(*(places.get(argument, argument) for argument in arguments))
    assert found == code, err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    assert message in lines[0]
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["finetun"], ["predict", "x", "y", "--oout", "z"], ["evaluate", "x"]])
def test_a_mistyped_command_or_option_is_a_usage_error(arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "Traceback" not in err


def test_a_config_file_with_an_unknown_option_names_the_nearest(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_text("sede = 3\n")
    given = ["finetune", "classification", data / "train.csv", "--out", tmp_path / "m", "--config", config]
    code, _, err = run(*given)
    assert code == 2
    assert "an option is 'sede'; did you mean 'seed'?" in err


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    given = ["finetune", "classification", str(data / "train.csv"), "--out", str(tmp_path / "m")]
    given += ["--device", "cpu", *WORDS, "recipe.epochs=100000", "recipe.lr=0.001"]
    command = [sys.executable, "-m", "pretune", *given]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=subprocess_environment()
    )
    assert process.stderr is not None
    while line := process.stderr.readline():
        if "loss" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert not (tmp_path / "m").exists()
    assert (tmp_path / "m.checkpoints").is_dir()


def test_evaluate_takes_options_from_a_file_and_refuses_tables(
    model: Path, data: Path, tmp_path: Path
) -> None:
    config, scores = tmp_path / "x.toml", tmp_path / "scores.json"
    config.write_text(f'out = "{scores}"\nseed = 3\n')
    code, _, err = run("evaluate", model, data / "test.csv", "--config", config, "--device", "cpu")
    assert code == 0, err
    assert json.loads(scores.read_text())["samples"] == 10
    config.write_text("[recipe]\nlr = 1.0\n")
    code, _, err = run("evaluate", model, data / "test.csv", "--config", config)
    assert code == 2
    assert "[recipe] has no meaning for this command" in err
