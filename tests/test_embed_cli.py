"""pretune embed: layouts of old tools, every sentence in its place, whole files or none, little memory."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.runs import embedding_files
from pretune.runs.embedder import Embedder
from pretune.runs.starts import save_start

LINES = ["It was a good film .", "dull", "", "a very good book", *tiny.texts(9, 5, 8), "dull"]
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def elmo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed_cli") / "elmo"
    save_start(tiny.start("elmo"), folder, {})
    return folder


@pytest.fixture(scope="module")
def wanted(elmo: Path) -> list[Any]:
    return Embedder.load(elmo, device="cpu").embed([line.split() for line in LINES])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES) + "\n", "utf-8")
    return path


def run(*arguments: object, stdin: str | None = None, code: int = 0) -> str:
    """What a command says on stderr."""
    found = CliRunner().invoke(app, ["embed", *map(str, arguments), "--device", "cpu"], input=stdin)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    assert found.exit_code == code, found.stderr
    return " ".join(found.stderr.split())


def test_hdf5_has_a_dataset_a_line_as_bilm_dumped_it(
    elmo: Path, source: Path, tmp_path: Path, wanted: list[Any]
) -> None:
    out = tmp_path / "x.h5"
    run(elmo, source, "--out", out, "--pretokenized", "--quiet")
    with h5py.File(out) as file:
        assert set(file) == {str(k) for k in range(len(LINES))}
        for k, vectors in enumerate(wanted):
            assert file[str(k)].dtype == np.float32
            assert file[str(k)].shape == (3, len(LINES[k].split()), 6)
            assert np.allclose(file[str(k)][()], vectors, atol=1e-6)


def test_allennlps_layout_has_an_index_of_sentences(
    elmo: Path, source: Path, tmp_path: Path, wanted: list[Any]
) -> None:
    kept = [line for line in LINES if line]
    source.write_text("\n".join(kept) + "\n")
    vectors = [v for line, v in zip(LINES, wanted, strict=True) if line]
    for layers, of in (("all", lambda v: v), ("top", lambda v: v[-1]), ("average", lambda v: v.mean(0))):
        out = tmp_path / f"{layers}.hdf5"
        run(elmo, source, "--out", out, "--pretokenized", "--format", "allennlp", "--layers", layers)
        with h5py.File(out) as file:
            index = json.loads(file["sentence_to_index"][0])
            assert file["sentence_to_index"].shape == (1,)
            assert set(index) == set(kept)
            assert index["dull"] == str(len(kept) - 1)  # of two that are the same, the last
            for k, v in enumerate(vectors):
                assert np.allclose(file[str(k)][()], of(v), atol=1e-6)
    out = tmp_path / "without.h5"
    run(elmo, source, "--out", out, "--pretokenized", "--format", "allennlp", "--forget-sentences")
    with h5py.File(out) as file:
        assert "sentence_to_index" not in file


def test_blank_lines_are_empty_arrays_or_named(elmo: Path, source: Path, tmp_path: Path) -> None:
    said = run(elmo, source, "--out", tmp_path / "x.h5", "--format", "allennlp", code=1)
    assert "blank lines, counted from 0: 2;" in said and "--format bilm" in said
    assert not (tmp_path / "x.h5").exists()
    run(elmo, source, "--out", tmp_path / "x.h5", "--format", "bilm")
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["2"].shape == (3, 0, 6)
    (tmp_path / "none.txt").write_text("")
    assert "holds no sentence" in run(elmo, tmp_path / "none.txt", "--out", tmp_path / "y.h5", code=1)


@pytest.mark.parametrize("layers", ["all", "average", "summary"])
def test_parquet_and_safetensors_hold_the_same(
    elmo: Path, source: Path, tmp_path: Path, layers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_files, "GROUP_BYTES", 1000)
    wanted = Embedder.load(elmo, device="cpu").embed([line.split() for line in LINES], layers)
    options = (elmo, source, "--pretokenized", "--layers", layers, "--batch-tokens", 9)
    run(*options, "--out", tmp_path / "x.parquet")
    run(*options, "--out", tmp_path / "x.safetensors")
    file = pyarrow.parquet.ParquetFile(tmp_path / "x.parquet")
    assert layers == "summary" or file.num_row_groups > 1
    rows = file.read().to_pylist()
    tensors = load_file(tmp_path / "x.safetensors")
    assert len(rows) == len(tensors) == len(LINES)
    for k, (row, vectors) in enumerate(zip(rows, wanted)):
        assert row["key"] == k and row["text"] == LINES[k]
        assert row["words"] == LINES[k].split()
        if LINES[k]:
            assert np.allclose(np.array(row["vectors"]), vectors, atol=1e-6)
        assert tensors[str(k)].shape == vectors.shape
        assert np.allclose(tensors[str(k)], vectors, atol=1e-6)


def test_every_kind_of_file_gives_the_same_vectors(elmo: Path, tmp_path: Path, wanted: list[Any]) -> None:
    words = [line.split() for line in LINES]
    as_json = [json.dumps({"text": w if k % 2 else line}) for k, (w, line) in enumerate(zip(words, LINES))]
    (tmp_path / "a.jsonl").write_text("\n".join(as_json) + "\n")
    quoted = [f'"{line}",{k}' for k, line in enumerate(LINES)]
    (tmp_path / "b.csv").write_text("review,stars\n" + "\n".join(quoted) + "\n")
    (tmp_path / "c.tsv").write_text("text\tn\n" + "".join(f"{line}\t1\n" for line in LINES))
    pyarrow.parquet.write_table(pyarrow.table({"text": words}), tmp_path / "d.parquet")
    pyarrow.parquet.write_table(
        pyarrow.table({"text": [*LINES[:2], None, *LINES[3:]]}), tmp_path / "e.parquet"
    )
    for name, more in (
        ("a.jsonl", ()), ("b.csv", ("--text", "review")), ("c.tsv", ()), ("d.parquet", ()), ("e.parquet", ())
    ):  # fmt: skip
        run(elmo, tmp_path / name, *more, "--pretokenized", "--out", tmp_path / "x.safetensors")
        found = load_file(tmp_path / "x.safetensors")
        assert len(found) == len(LINES)
        assert all(np.allclose(found[str(k)], v, atol=1e-6) for k, v in enumerate(wanted)), name
    run(elmo, "-", "--pretokenized", "--out", tmp_path / "x.safetensors", stdin="\n".join(LINES))
    found = load_file(tmp_path / "x.safetensors")
    assert all(np.allclose(found[str(k)], v, atol=1e-6) for k, v in enumerate(wanted))


def test_carried_state_follows_the_lines(elmo: Path, source: Path, tmp_path: Path) -> None:
    run(elmo, source, "--out", tmp_path / "x.safetensors", "--state", "carry", "--batch-size", 1)
    found = load_file(tmp_path / "x.safetensors")
    wanted = Embedder.load(elmo, "carry", device="cpu").embed(LINES, batch_size=1)
    assert all(np.allclose(found[str(k)], v, atol=1e-6) for k, v in enumerate(wanted))
    assert not np.allclose(found["1"], found[str(len(LINES) - 1)], atol=1e-4)  # the same word twice
    said = run(elmo, source, "--out", tmp_path / "y.h5", "--state", "carry", "--batch-tokens", 9, code=2)
    assert "--state carry goes on" in said and "give --batch-size instead" in said


def test_vectors_of_a_vocabulary_are_written_and_used(elmo: Path, source: Path, tmp_path: Path) -> None:
    words = tmp_path / "vocab.txt"
    words.write_text("<S>\n</S>\n<UNK>\ngood\nfilm\n")
    tokens = tmp_path / "tokens.h5"
    run(elmo, words, "--layers", "tokens", "--out", tokens)
    with h5py.File(tokens) as file:
        assert file["embedding"].shape == (5, 3)
        assert [word.decode() for word in file["words"]] == ["<S>", "</S>", "<UNK>", "good", "film"]
    run(elmo, source, "--out", tmp_path / "x.safetensors", "--token-vectors", tokens)
    run(elmo, source, "--out", tmp_path / "y.safetensors")
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in "xy")
    assert all(np.allclose(a[k], b[k], atol=1e-6) for k in b)


def test_a_vocabulary_is_a_word_a_line_of_a_file_or_stdin(elmo: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens.h5"
    said = run(elmo, source, "--layers", "tokens", "--out", out, code=1)
    assert "lines.txt:1: 'It was a good film .' is not one word; --layers tokens wants a word a line" in said
    assert not out.exists()
    assert "2 words in" in run(elmo, "-", "--layers", "tokens", "--out", out, stdin="good\nfilm\n")
    with h5py.File(out) as file:
        assert [word.decode() for word in file["words"]] == ["good", "film"]


def test_counts_of_one_are_singular(elmo: Path, source: Path, tmp_path: Path) -> None:
    source.write_text("dull\n")
    said = run(elmo, source, "--layers", "mix", "--out", tmp_path / "x.h5")
    assert "1 sentence in" in said and "the mix is the mean of 3 layers" in said


def test_aligned_words_of_a_model_with_other_tokens(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ulmfit"
    save_start(tiny.start("ulmfit"), folder, {})
    out = tmp_path / "x.parquet"
    options = (folder, source, "--out", out, "--layers", "top")
    said = run(*options, "--pretokenized", code=2)
    assert "sentence 1 has 6 words, which are 7 tokens" in said and "--align words" in said
    assert not out.exists() and not list(tmp_path.glob(".*"))
    run(*options, "--pretokenized", "--align", "words")
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [row["words"] for row in rows] == [line.split() for line in LINES]
    assert "are 6, 7, 6 wide" in run(folder, source, "--out", out, "--layers", "all", code=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "x.npz"), "name it .h5"),
        (("--out", "x.h5", "--layers", "tops"), "choose one of all"),
        (("--out", "x.h5", "--format", "elmo"), "choose one of bilm, allennlp"),
        (("--out", "x.parquet", "--format", "bilm"), "a layout of .h5"),
        (("--out", "x.h5", "--format", "allennlp", "--layers", "mix"), "all, top or average, not mix"),
        (("--out", "x.h5", "--batch-size", "3", "--batch-tokens", "3"), "not both"),
        (("--out", "x.h5", "--text", "review"), "has lines only"),
        (("--out", "x.h5", "--vocabulary", "v.txt"), "--vocabulary names the words of --token-vectors"),
        (("--out", "x.h5", "--warm-text", "lines.txt"), "--warm-text is for --state warm; --state is zero"),
        (("--out", "x.h5", "--state", "cold"), "--state is 'cold'"),
        (("--out", "x.h5", "--precision", "float64"), "--precision is 'float64'; choose one of float32"),
        (("--out", "x.h5", "--precision", "flaot16"), "--precision is 'flaot16'; did you mean 'float16'?"),
        (("--out", "x.h5", "--forget-sentences"), "is for --format allennlp"),
        (("--out", "x.parquet", "--layers", "tokens"), "are written as .h5"),
        (("--out", "x.h5", "--align", "tokens"), "--align is 'tokens'"),
        *(
            (("--out", "x.h5", "--layers", "tokens", *more), f"{more[0]} means nothing with --layers tokens")
            for more in (
                ("--state", "zero"),
                ("--precision", "int8"),
                ("--batch-size", "3"),
                ("--batch-tokens", "3"),
                ("--pretokenized",),
                ("--format", "bilm"),
                ("--align", "words"),
                ("--text", "review"),
                ("--input-format", "csv"),
            )
        ),
    ],
)
def test_wrong_options_are_answered_before_any_work(
    elmo: Path,
    source: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in run(elmo, source, *options, code=2)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_an_interrupted_run_leaves_the_old_file(elmo: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    out.write_text("old")
    source.write_bytes(b"good\n" * 3 + b"\xff\n")
    assert "lines.txt:4: byte 0xff" in run(elmo, source, "--out", out, code=1)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "x.h5"]


def test_a_missing_library_is_named(
    elmo: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    said = run(elmo, source, "--out", tmp_path / "x.h5", code=1)
    assert "pip install 'pretune[elmo]'" in said


MEASURE = """
import resource, sys
from pretune.cli import app
from pretune.runs import embedder, embedding_files
embedder.WINDOW_BYTES = embedding_files.GROUP_BYTES = 4 << 20
from typer.testing import CliRunner
def embed(name, out):
    said = CliRunner().invoke(app, ["embed", sys.argv[1], name, "--out", out, "--quiet", "--device", "cpu"])
    assert said.exit_code == 0, said.stderr
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for name in ("few", "some", "many"):
    for ending in (".h5", ".parquet", ".safetensors"):
        print(name, embed(name + ".txt", "x" + ending))
"""


def test_memory_does_not_grow_with_the_file_whatever_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "elmo"
    save_start(tiny.start("elmo", projection_dim=64, dim=64), folder, {})
    line = "it was a good film and not a bad book " * 10 + "\n"
    for name, count in (("few", 10), ("some", 150), ("many", 650)):
        (tmp_path / f"{name}.txt").write_text(line * count)
    said = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    peaks = [float(line.split()[1]) for line in said.stdout.splitlines()]
    assert peaks[-1] - peaks[5] < 30  # MB; the vectors of the 500 lines more are 73 for each kind of file


@pytest.fixture
def example(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, Any]]:
    """Runs one beside `source`: what it prints, and what it leaves with, 0 or a message."""

    def run_example(name: str, *arguments: str) -> tuple[str, Any]:
        monkeypatch.chdir(source.parent)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        code: Any = 0
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        return capsys.readouterr().out, code

    return run_example


@pytest.mark.parametrize(
    "arguments",
    [("tf_hub_elmo.py",), ("play.py", "neighbours", "{}", "lines.txt", "good", "it was a good film"),
     ("play.py", "substitutes", "{}", "good", "it was a good film"), ("play.py", "--help")],
)  # fmt: skip
def test_examples_run(
    elmo: Path, example: Callable[..., tuple[str, Any]], arguments: tuple[str, ...]
) -> None:
    said, code = example(arguments[0], *(x.format(elmo) for x in arguments[1:]))
    assert code == 0 and said.strip()
    assert arguments[0] != "tf_hub_elmo.py" or "100% of 6 texts right" in said


@pytest.mark.parametrize("arguments", [("tf_hub_elmo.py", "nowhere"), ("state.py", "nowhere", "lines.txt")])
def test_examples_answer_a_mistake_in_one_line(
    source: Path, example: Callable[..., tuple[str, Any]], arguments: tuple[str, ...]
) -> None:
    if arguments[0] == "state.py":
        source.write_text("a film\n" * 80)
    _, code = example(*arguments)
    assert code.startswith("error: nowhere: no such model folder") and "\n" not in code


def test_the_effect_of_the_state_is_measured(
    elmo: Path, tmp_path: Path, example: Callable[..., tuple[str, Any]]
) -> None:
    (tmp_path / "many.txt").write_text("\n".join(tiny.texts(110, 4, 6)) + "\n")
    said, code = example("state.py", str(elmo), "many.txt")
    assert code == 0
    rows = {line[:46].strip(): [float(x) for x in line[46:].split()] for line in said.splitlines()[1:]}
    assert rows["zero, the order turned round"] == [0.0] * 6
    assert max(rows["zero against carry"]) > 0
