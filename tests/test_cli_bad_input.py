"""Every malformed file through the commands: one line, exit code 1 or 2, nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pretune.cli import app
from test_bad_input import CASES

OPTION = {
    "text": "--text",
    "label": "--label",
    "kind": "--kind",
    "label_separator": "--label-separator",
    "format": "--format",
    "encoding": "--encoding",
}


def options(said: dict[str, Any]) -> list[str]:
    """The options of `read_samples` as a user types them."""
    words = []
    for name, value in said.items():
        if name == "labelled":
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            words += [OPTION[name], str(one)]
    return words


@pytest.mark.parametrize("command", ["compare", "finetune"])
@pytest.mark.parametrize(
    ("file", "content", "said", "message"),
    [case[1:] for case in CASES if case[3].get("labelled", True)],
    ids=[case[0] for case in CASES if case[3].get("labelled", True)],
)
def test_a_malformed_file_is_answered_in_one_line(
    command: str, file: str, content: bytes, said: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path, out = tmp_path / file, tmp_path / "out"
    path.write_bytes(content)
    task = ["classification"] if command == "finetune" else []
    call = [command, *task, str(path), *options(said), "--out", str(out), "--device", "cpu"]
    found = CliRunner().invoke(app, call)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    assert found.exit_code in (1, 2)
    errors = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, found.stderr
    assert re.search(message, errors[0])
    assert "Traceback" not in found.stderr
    assert not out.exists()


@pytest.mark.parametrize("command", ["compare", "finetune"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\n" + "".join(f"good film {i},pos\n" for i in range(20)), r"pos.*two"),
        ("text,label\ngood film,pos\n", r"1 (labelled )?(sample|row|label)|only one|two"),
        ("text,label\ngood film,pos\nbad film,neg\n", r"sample|label|row"),
    ],
    ids=["one class", "one row", "two rows"],
)
def test_too_little_to_learn_from_is_answered_in_one_line(
    command: str, content: str, message: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "a.csv", tmp_path / "out"
    path.write_text(content)
    task = ["classification"] if command == "finetune" else []
    found = CliRunner().invoke(app, [command, *task, str(path), "--out", str(out), "--device", "cpu"])
    assert found.exit_code in (1, 2), found.stdout + found.stderr
    errors = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, found.stderr
    assert re.search(message, errors[0])
    assert not out.exists()


@pytest.mark.parametrize("command", ["compare", "finetune", "predict"])
def test_an_unknown_option_is_a_usage_error(command: str) -> None:
    found = CliRunner().invoke(app, [command, "--lables", "x"])
    assert found.exit_code == 2
    assert "Traceback" not in found.stderr
