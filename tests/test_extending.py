"""The example of docs/extending.md works as printed; a folder's foreign code runs only when trusted."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pretune.cli import app
from pretune.errors import UserError
from pretune.runs.run import load_trained

DOCS = Path(__file__).parent.parent / "docs" / "extending.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model trained by the recipe of the docs, from a module in the working folder."""
    found = re.search(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert found
    (tmp_path / "documented.py").write_text(found[1])
    rows = "".join(f"good film {i},pos\nbad film {i},neg\n" for i in range(10))
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRETUNE_TRUST_CODE", raising=False)
    call = ["finetune", "classification", "train.csv", "--method", "wordvectors", "--out", "model"]
    done = CliRunner().invoke(app, [*call, "--recipe", "documented:TopHalf", "--device", "cpu", "--quiet"])
    assert done.exit_code == 0, done.stderr
    return tmp_path / "model"


def test_the_documented_recipe_trains_and_its_folder_answers(folder: Path) -> None:
    assert len(load_trained(folder).answers([])) == 0


def test_code_that_a_folder_names_runs_only_when_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "documented")
    with pytest.raises(UserError, match=r"wants to run documented:TopHalf.*PRETUNE_TRUST_CODE=1"):
        load_trained(folder)
    assert "documented" not in sys.modules
    monkeypatch.setenv("PRETUNE_TRUST_CODE", "1")
    load_trained(folder)
