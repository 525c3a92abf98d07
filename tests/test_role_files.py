"""Files of semantic roles: PropBank, CoNLL 2012, CoNLL 2005 and JSON lines give one sample a predicate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pretune.data.role_questions import role_question
from pretune.data.roles import read_roles
from pretune.data.samples import Sample, Span
from pretune.errors import UsageError, UserError

# Three predicates; the first has a reference.
WORDS = "Ann who sings wants to leave".split()
PREDICATES = ["-", "-", "sing.01", "want.01", "-", "leave.01"]
COLUMNS = [
    ["(ARG1*)", "(R-ARG1*)", "(V*)", "*", "*", "*"],
    ["(ARG0*", "*", "*)", "(V*)", "(ARG1*", "*)"],
    ["(ARG0*", "*", "*)", "*", "*", "(V*)"],
]
TAGS = [
    ("B-ARG1", "B-R-ARG1", "B-V", "O", "O", "O"),
    ("B-ARG0", "I-ARG0", "I-ARG0", "B-V", "B-ARG1", "I-ARG1"),
    ("B-ARG0", "I-ARG0", "I-ARG0", "O", "O", "B-V"),
]
BARE = ["Oh", "no"]  # a sentence without a predicate


def write(folder: Path, text: str, name: str = "a.conll") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def propbank(behind: bool = True) -> str:
    """doc, sentence, token, word, part of speech, parse, lemma, frame, one column a predicate; tabs."""
    lines = [
        "\t".join(
            ["d", "0", str(i), word, "X", "*", "-", PREDICATES[i], *(c[i] for c in COLUMNS)][
                : None if behind else 8
            ]
        )
        for i, word in enumerate(WORDS)
    ]
    bare = ["\t".join(["d", "1", str(i), word, "X", "*", "-", "-"]) for i, word in enumerate(BARE)]
    return "\n".join([*bare, "", *lines, ""])


def conll2012() -> str:
    """The same with sense, speaker, name and coreference, between spaces; a noun has a sense alone."""
    lines = []
    for i, word in enumerate(WORDS):
        frame = PREDICATES[i] if i else "01"
        lines.append(
            "  ".join(
                ["d", "0", str(i), word, "X", "*", "-", frame, "-", "-", "*", *(c[i] for c in COLUMNS), "-"]
            )
        )
    bare = [f"d 0 {i} {word} X * - - - - * -" for i, word in enumerate(BARE)]
    return "\n".join(["#begin document (d); part 000", *bare, "", *lines, "", "#end document"])


def conll2005() -> str:
    """word, part of speech, chunk, clause, name, target, one column a target; spaces."""
    lines = [
        f"{word:10} NN  B-NP (S* * {PREDICATES[i].split('.')[0]:8} " + " ".join(f"{c[i]:>9}" for c in COLUMNS)
        for i, word in enumerate(WORDS)
    ]
    return "\n".join([*lines, "", *(f"{word} UH O * (X*) -" for word in BARE), ""])


def plain(samples: list[Sample]) -> list[tuple[str, str]]:
    return [(s.texts[0], s.texts[0][s.marks[0].start : s.marks[0].end]) for s in samples]


@pytest.mark.parametrize("text", [propbank(), conll2012(), conll2005()])
def test_every_predicate_is_a_sample(tmp_path: Path, text: str) -> None:
    found = read_roles(write(tmp_path, text))
    sentence = " ".join(WORDS)
    assert plain(found.samples) == [(sentence, "sings"), (sentence, "wants"), (sentence, "leave")]
    assert [s.gold for s in found.samples] == TAGS
    assert [len(s.parts[0].words) for s in found.samples] == [6, 6, 6]
    first = next(i for i, line in enumerate(text.split("\n"), 1) if " ".join(WORDS[:1]) in line)
    assert [s.key for s in found.samples] == [f"a.conll:{first + k}" for k in (2, 3, 5)]
    assert found.notes == [
        "a.conll: 2 sentences, 1 of them without a predicate left out; 3 predicates, 5 arguments of 3 roles: "
        "'ARG1' 2, 'ARG0' 2, 'R-ARG1' 1"
    ]
    bare = read_roles(tmp_path / "a.conll", labelled=False).samples
    assert [s.marks for s in bare] == [s.marks for s in found.samples]
    assert all(s.gold is None for s in bare)


def test_predicates_are_enough_where_roles_are_asked_for(tmp_path: Path) -> None:
    wanted = plain(read_roles(write(tmp_path, propbank())).samples)
    assert (
        plain(read_roles(write(tmp_path, propbank(behind=False), "b.conll"), labelled=False).samples)
        == wanted
    )
    two = "".join(f"{word} {said}\n" for word, said in zip(WORDS, PREDICATES, strict=True))
    assert plain(read_roles(write(tmp_path, two, "c.conll"), labelled=False).samples) == wanted
    with pytest.raises(UserError, match=r"c.conll: no layout of CoNLL 2005, CoNLL 2012 or PropBank"):
        read_roles(tmp_path / "c.conll")


def test_columns_of_any_other_layout_are_named(tmp_path: Path) -> None:
    other = "".join(
        f"{PREDICATES[i]} " + " ".join(c[i] for c in COLUMNS) + "\n" for i in range(len(WORDS))
    )  # props alone: words are in a file of their own
    with pytest.raises(UserError, match="paste the file of words before that of props"):
        read_roles(write(tmp_path, other, "props"))
    marked = "".join(
        f"{i + 1} {word} {PREDICATES[i]} " + " ".join(c[i] for c in COLUMNS) + "\n"
        for i, word in enumerate(WORDS)
    )
    found = read_roles(write(tmp_path, marked, "b"), text=["1"], label=["2"])
    assert [s.gold for s in found.samples] == TAGS and found.samples[0].texts[0] == " ".join(WORDS)


def test_a_sentence_whose_only_sense_is_a_nouns_has_no_predicate(tmp_path: Path) -> None:
    text = conll2012()
    noun = "\n".join(
        f"d 0 {n} {word} X * - {'01' if n else '-'} - - * -" for n, word in enumerate(["Big", "plan"])
    )
    read = read_roles(write(tmp_path, text))
    also = read_roles(write(tmp_path, text.replace("#end", f"{noun}\n\n#end"), "a.conll"))
    assert plain(also.samples) == plain(read.samples)


def test_words_of_a_verb_that_is_several_keep_their_tags(tmp_path: Path) -> None:
    text = "They - (A0*)\nbusted bust (V*\nup - *)\nthree - (A1*)\n"
    (one,) = read_roles(write(tmp_path, text)).samples
    assert one.gold == ("B-A0", "B-V", "I-V", "B-A1")
    assert one.marks == (Span(5, 11),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no word"),
        ("Ann - *\nsings sing\n", r"a.conll:2: 2 columns, where the sentence began with 3"),
        ("Ann - *\nsings sing (V*\n", r"a.conll:2: \(V\* in column 2 never ends"),
        ("Ann - (A0*\nwho - (A1*)\nsings sing (V*)\n", r"a.conll:2: '\(A1\*\)' in column 2 is no argument"),
        ("Ann - *)\nsings sing (V*)\n", r"a.conll:1: '\*\)' in column 2 is no argument that begins"),
        ("Ann -\nsings -\n", "none of 1 sentences has a predicate in column 1"),
    ],
)
def test_mistakes_of_files_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_roles(write(tmp_path, text))


def test_mistakes_of_options_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, conll2005())
    with pytest.raises(UsageError, match=r"--label is 'target'; give one column's number"):
        read_roles(path, label=["target"])
    with pytest.raises(UserError, match=r"a.conll:8: no column 9, there are 6"):
        read_roles(path, label=["9"])
    short = "".join(f"{word} {said} *\n" for word, said in zip(WORDS, PREDICATES, strict=True))
    with pytest.raises(UserError, match="0 predicates in column 1, but 1 columns of arguments"):
        read_roles(write(tmp_path, short, "b"), label=["1"])
    with pytest.raises(UsageError, match=r"--format is 'csv'; choose one of conll, jsonl"):
        read_roles(path, format="csv")
    with pytest.raises(UserError, match=r"a.csv: semantic roles are read from CoNLL's columns"):
        read_roles(write(tmp_path, "a,b\n", "a.csv"))
    with pytest.raises(UsageError, match="--text and --label are columns of CoNLL's files"):
        read_roles(write(tmp_path, "{}", "a.jsonl"), text=["0"])


def test_a_line_of_json_names_its_predicate(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"words": ["Ann", "sings"], "predicate": 1, "labels": ["B-ARG0", "B-V"]}\n\n'
        '{"text": "Ann sings!", "words": [[0, 3], [4, 9]], "predicate": [4, 9], "labels": ["O", "B-V"]}\n',
        "a.jsonl",
    )
    one, other = read_roles(path).samples
    assert one.gold == ("B-ARG0", "B-V") and one.marks == other.marks == (Span(4, 9),)
    assert one.parts[0].words == other.parts[0].words == (Span(0, 3), Span(4, 9))
    assert [one.key, other.key] == ["a.jsonl:1", "a.jsonl:3"] and other.texts == ("Ann sings!",)
    assert role_question({"words": ["take", "off", "it"], "predicate": [0, 2]}).marks == (Span(0, 8),)
    assert role_question({"text": "Ann sings", "predicate": [4, 9]}).parts[0].words == ()
    assert role_question({"text": None, "words": ["Ann", "sings"], "predicate": [1, 2]}).marks == (
        Span(4, 9),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "Ann sings",
            r"a.jsonl:1: 'Ann sings' asks nothing; roles are those of a given predicate: \{\"words\"",
        ),
        ('{"text": "Ann sings"}', "asks nothing; roles are those of a given predicate"),
        ('{"text": "Ann sings", "predicate": [4, 10]}', r"the predicate is '\[4, 10\]'; .* at most 9"),
        ('{"text": "Ann sings", "predicate": 1}', "characters of the text"),
        ('{"words": ["Ann"], "predicate": 1}', r"the predicate is '1'; .* in words, counted from 0"),
        ('{"words": ["Ann"], "predicate": [0, 0]}', "end exclusive"),
        ('{"words": ["Ann", " "], "predicate": 0}', "give a list of texts, none of them blank"),
        ('{"text": "Ann", "words": [[0, 2], [1, 3]], "predicate": [0, 1]}', "of each, in order"),
        ('{"text": " ", "predicate": [0, 1]}', "give the sentence"),
        ('{"words": ["Ann"], "predicate": 0}', "no labels; give a list"),
        ('{"words": ["Ann"], "predicate": 0, "labels": ["O", "O"]}', "2 labels for 1 words"),
        ("\n", "holds no line"),
    ],
)
def test_mistakes_of_lines_say_what_is_needed(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_roles(write(tmp_path, line, "a.jsonl"))


def test_propbank_is_read_whole(shared: Callable[[str], Path]) -> None:
    path = shared("data/propbank-ewt/dev.gold_conll.xz")
    found = read_roles(path)
    assert found.columns == (3, 7)
    assert len(found.samples) == 4976  # as the catalogue says
    assert "1,973 sentences, 438 of them without a predicate" in found.notes[0]
    assert found.samples[0].texts == ("From the AP comes this story :",)
    assert found.samples[0].gold == ("B-ARG2", "I-ARG2", "I-ARG2", "B-V", "B-ARG1", "I-ARG1", "O")
    verbs = [s.texts[0][a:b] for s in found.samples[:3] for a, b in s.marks]
    assert verbs == ["comes", "nominated", "replace"]
