from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from pretune.data import demo as module
from pretune.data.demo import LEXEME, LIBRARIES, TEST, TRAIN, Demo, demo
from pretune.data.prose import LONGEST, MASK, edges, masked, packed, prose, sentences
from pretune.errors import UserError

ELSEWHERE = """
import sys
from pretune.data import demo
demo.LIBRARIES = {"matplotlib": "matplotlib", "numpy": "numpy"}
found = demo.demo()
assert not {"matplotlib", "numpy", "torch"} & set(sys.modules)
sys.stdout.buffer.write(repr((found.train, found.test, found.unlabelled)).encode())
"""


@pytest.fixture(scope="module")
def data() -> Demo:
    return demo()


def test_every_process_finds_the_same_data_and_imports_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], env=environment, capture_output=True, check=True
    ).stdout
    monkeypatch.setattr(module, "LIBRARIES", {"matplotlib": "matplotlib", "numpy": "numpy"})
    found = demo()  # under another hash seed
    assert there == repr((found.train, found.test, found.unlabelled)).encode()


def test_every_library_has_as_many_passages(data: Demo) -> None:
    assert Counter(sample.gold for sample in data.train) == dict.fromkeys(LIBRARIES, TRAIN)
    assert Counter(sample.gold for sample in data.test) == dict.fromkeys(LIBRARIES, TEST)
    assert data.labels == tuple(LIBRARIES)
    assert sum(len(text.split()) for text in data.unlabelled) > 300_000
    assert all(24 <= len(text.split()) <= LONGEST for s in (*data.train, *data.test) for text in s.texts)
    assert Counter(sample.gold for sample in data.train[:100]).most_common(1)[0][1] < 40  # in no order


def test_no_module_and_no_sentence_is_on_both_sides(data: Demo) -> None:
    train, test = ({s.key.rpartition(":")[0] for s in side} for side in (data.train, data.test))
    assert not train & test
    assert min(Counter(name.split("/")[0] for name in test).values()) >= 10

    def ends(texts: list[str]) -> set[str]:
        return {end for text in texts for sentence in sentences(text) for end in edges(sentence)}

    tested = ends([s.texts[0] for s in data.test])
    learned = ends([s.texts[0] for s in data.train] + data.unlabelled)
    assert len(tested & learned) < 0.002 * len(tested)  # sentences that are cut apart otherwise when joined
    everything = [s.texts[0] for s in (*data.train, *data.test)] + data.unlabelled
    assert len({text.lower() for text in everything}) == len(everything)


def test_nothing_gives_the_library_away(data: Demo) -> None:
    names = re.compile(
        r"numpy|\bnp\b|ndarray|scipy|scikit|sklearn|torch|matplotlib|pyplot|\w_\w|\b[a-z]\w+\.[a-z]\w|`|>>>",
        re.I,
    )
    texts = [s.texts[0] for s in (*data.train, *data.test)] + data.unlabelled
    given = [
        match[0] for text in texts for match in names.finditer(re.sub(r"\b(e\.g|i\.e|w\.r\.t)\.", "", text))
    ]
    assert given == []


def test_the_notes_name_versions_and_sizes(data: Demo) -> None:
    assert "numpy 2" in data.notes[0] or "numpy 1" in data.notes[0]
    assert data.notes[1].startswith("2000 training and 750 test passages from different modules")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIBRARIES", {"lost-library": "no_such_package_here"})
    with pytest.raises(UserError, match="lost-library, which is not installed: pip install lost-library"):
        demo()


TRICKY = r'''
# a comment with """ in it, and don't
quote = "'"; other = '"'; escaped = "\""; empty = ""; three = "three \"\"\" of them"; byte = b"#"

def function():
    """Has "quotes" and 'quotes' and \""" in it # and no comment."""

class Thing:
    r"""Has a backslash: \alpha."""
'''


@pytest.mark.parametrize("source", [TRICKY, inspect.getsource(ast), inspect.getsource(inspect)])
def test_the_lexer_finds_every_docstring_that_the_parser_finds(source: str) -> None:
    found = {match["text"] for match in LEXEME.finditer(source)}
    lines = source.splitlines(keepends=True)
    wanted = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            text = node.body[0]
            whole = "".join(lines[text.lineno - 1 : text.end_lineno]).strip().lstrip("r")
            wanted |= {whole} if whole.startswith('"""') else set()
    assert len(wanted) > 1
    assert wanted <= found


def test_only_prose_is_left_of_a_docstring() -> None:
    docstring = """Return the `a`-th root.  It is computed by :func:`numpy.linalg.eig` in double precision,
    see e.g. the notes.

    .. versionadded:: 1.2
       Since long ago it has been here for you to use.

    Parameters
    ----------
    a : array_like, optional
        The order of the root, which must be positive.
    tol (float, optional): The tolerance below which iteration stops.

    Notes
    -----
    The answer is found by iteration::

        while True: this is code that nobody reads.

    .. note:: Short of memory.
       Large inputs are split before they are worked on.
    Then $x = 1$ holds for all of the values in it.

    Examples
    --------
    >>> root(2)
    This is an output that looks like prose.

    References
    ----------
    Somebody wrote about this in a book.
    """
    assert prose(docstring) == [
        "It is computed by something in double precision, see e.g. the notes.",
        "The order of the root, which must be positive.",
        "The tolerance below which iteration stops.",
        "Large inputs are split before they are worked on.",
    ]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("NumPy and SciPy arrays.", "something arrays."),
        ("An `ndarray`, see numpy.ndarray.T.", f"A {MASK}, see {MASK}."),
        (
            "Use scikit-learn's `fit(X, y)` and __call__, i.e. RandomForest.",
            f"Use {MASK}'s {MASK}, i.e. {MASK}.",
        ),
        (
            "PyTorch-like TorchScript (np.float64) with *args* and float32.",
            f"{MASK}-like {MASK} ({MASK}) with {MASK}.",
        ),
        ("Rather than `x` it is a 2-D plot of the FFT.", f"Rather than {MASK} it is a 2-D plot of the FFT."),
    ],
)
def test_names_and_identifiers_are_masked(sentence: str, expected: str) -> None:
    assert masked(sentence) == expected


def test_passages_are_as_long_as_they_may_be() -> None:
    kept = [" ".join(["word"] * 25) + "." for _ in range(5)]
    assert [len(passage.split()) for passage in packed(kept)] == [50, 50, 25]
