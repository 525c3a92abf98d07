"""compare: cells are paired, kept and never rerun; test data never choose; the verdict says what holds."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import tiny
from made_up import made_up
from pretune.data.demo import Demo
from pretune.data.samples import Sample, sample
from pretune.errors import UsageError, UserError
from pretune.runs import compare as module
from pretune.runs.cells import Cell, Data, Finished, Setting, cell_id
from pretune.runs.compare import Silent, again, compare
from pretune.runs.comparison import Comparison, Contender, Row
from pretune.runs.problem import guess_language, kind_of
from pretune.runs.starts import save_start
from pretune.runs.verdict import View, hardest, holm, judge, recommend
from pretune.runs.watch import watcher

WORDS = {"cat": ["meow", "purr", "tail", "the", "a"], "dog": ["woof", "bark", "tail", "the", "a"]}


def animals(n: int, seed: int, noise: float = 0.1) -> list[Sample]:
    chance = random.Random(seed)
    found = []
    for i in range(n):
        gold = chance.choice(["cat", "dog"])
        text = " ".join([*chance.choices(WORDS[gold], k=6), str(seed * 10_000 + i)])
        told = gold if chance.random() > noise else chance.choice(["cat", "dog"])
        found.append(sample(text, key=f"{seed}:{i}", gold=told))
    return found


TRAIN, TEST = animals(60, 1), animals(40, 2)


def quick(out: Path, **changes: Any) -> Comparison:
    """A comparison that takes no time."""
    options: dict[str, Any] = {"methods": ["tfidf"], "sizes": [20, 40], "seeds": 2, "jobs": 1}
    options |= {"settings": {"tfidf": {"strengths": [10.0]}}} | changes
    return compare(options.pop("train", TRAIN), options.pop("test", TEST), out=out, **options)


class Counter(Silent):
    """Counts trainings; raises once it has seen enough."""

    def __init__(self, enough: int | None = None) -> None:
        self.seen: list[str] = []
        self.enough = enough

    def finished(self, cell: Finished) -> None:
        self.seen.append(cell.id)
        if len(self.seen) == self.enough:
            raise KeyboardInterrupt


def test_everything_promised_is_left(tmp_path: Path) -> None:
    found = quick(tmp_path / "out")
    assert len(found.rows) == 4 and len(found.ranking) == 2
    assert found.best is not None and found.best.size == 40
    for name in ("report.html", "report.md", "comparison.json", "best/config.json"):
        assert (tmp_path / "out" / name).is_file()
    assert not (tmp_path / "out" / "models").exists()
    assert Comparison.load(tmp_path / "out") == found


def test_the_best_model_answers_as_its_cell_did(tmp_path: Path) -> None:
    from pretune.runs.run import load_trained

    found = quick(tmp_path)
    assert found.best is not None
    cells = [Finished.read(path) for path in (tmp_path / "cells").iterdir()]
    chosen = next(c for c in cells if c and (c.row.size, c.row.seed) == (40, found.best.seed))
    answers = load_trained(tmp_path / "best").answers(TEST)
    assert [answer.label for answer in answers] == chosen.predicted
    assert [answer.scores[s.gold] for answer, s in zip(answers, TEST, strict=True)] == pytest.approx(
        chosen.chances, abs=1e-5
    )


def test_finished_cells_are_never_run_again(tmp_path: Path) -> None:
    first = quick(tmp_path)
    counter = Counter()
    second = quick(tmp_path, watch=counter)
    assert counter.seen == [] and second.rows == first.rows
    quick(tmp_path, seeds=3, watch=counter)
    assert len(counter.seen) == 2


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = quick(tmp_path / "whole")
    stopped = Counter(enough=3)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "out", watch=stopped)
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 3
    rest = Counter()
    resumed = quick(tmp_path / "out", watch=rest)
    assert len(rest.seen) == 1 and not set(rest.seen) & set(stopped.seen)
    assert [row.score for row in resumed.rows] == [row.score for row in whole.rows]
    assert resumed.best == whole.best


def test_a_damaged_cell_is_run_again(tmp_path: Path) -> None:
    quick(tmp_path)
    next((tmp_path / "cells").iterdir()).write_text("{", encoding="utf-8")
    counter = Counter()
    quick(tmp_path, watch=counter)
    assert len(counter.seen) == 1


def test_changed_data_or_settings_rerun_only_what_they_touch(tmp_path: Path) -> None:
    quick(tmp_path)
    counter = Counter()
    quick(tmp_path, settings={"tfidf": {"strengths": [1.0]}}, watch=counter)
    assert len(counter.seen) == 4
    counter = Counter()
    quick(tmp_path, test=[*TEST[:-1], animals(1, 3)[0]], watch=counter)
    assert len(counter.seen) == 4
    counter = Counter()
    quick(tmp_path, seeds=1, sizes=[20, 30], watch=counter)
    assert len(counter.seen) == 1


def test_the_chosen_model_comes_back_even_if_an_earlier_run_threw_it_away(tmp_path: Path) -> None:
    first = quick(tmp_path, sizes=[20, 40])
    smaller = quick(tmp_path, sizes=[20])  # its cells are finished, its models were never kept
    assert smaller.best is not None and smaller.best.size == 20 and first.best != smaller.best
    run = json.loads((tmp_path / "best" / "run.json").read_text())
    assert "-20-" in run["cell"]


def test_seeds_draw_the_same_samples_for_everyone_and_sizes_nest() -> None:
    data = Data(tuple(TRAIN), tuple(TEST), "one", 0.25)
    small, large = data.drawn(20, 0), data.drawn(40, 0)
    keys = [{s.key for part in drawn for s in part} for drawn in (small, large)]
    assert len(keys[0]) == 20 and len(keys[1]) == 40 and keys[0] < keys[1]
    assert data.drawn(20, 0) == small and data.drawn(20, 1) != small
    assert len(small[1]) == 5 and not {s.key for s in small[0]} & {s.key for s in small[1]}


def test_the_name_of_a_cell_changes_with_all_that_matters() -> None:
    data = Data(tuple(TRAIN), tuple(TEST), "one", 0.25)
    setting = Setting(Contender("tfidf", "logistic", "scratch"), {"longest": 2})
    cell = Cell(setting, 20, 0)
    others = [
        (replace(cell, seed=1), data),
        (replace(cell, size=21), data),
        (replace(cell, setting=replace(setting, recipe={"longest": 1})), data),
        (replace(cell, setting=replace(setting, fingerprint="other")), data),
        (cell, replace(data, valid_share=0.5)),
        (cell, replace(data, test=data.test[1:])),
        (cell, replace(data, pool=data.pool[1:])),
    ]
    names = {cell_id(*pair) for pair in [(cell, data), *others]}
    assert len(names) == 8
    assert cell_id(cell, data).startswith("tfidf-logistic-scratch-20-seed0-")


def test_test_golds_choose_nothing(tmp_path: Path) -> None:
    wrong = [replace(s, gold="dog" if s.gold == "cat" else "cat") for s in TEST]
    right, turned = quick(tmp_path / "a"), quick(tmp_path / "b", test=wrong)
    assert right.best == turned.best
    assert [r.score for r in right.rows] == pytest.approx([1 - r.score for r in turned.rows])


@pytest.mark.parametrize(
    "methods", [["tfidf"], pytest.param(["tfidf", "wordvectors"], marks=pytest.mark.slow)], ids=len
)
def test_any_number_of_jobs_gives_the_same_results(methods: list[str], tmp_path: Path) -> None:
    options: dict[str, Any] = {"methods": methods, "sizes": [24], "seeds": 2}
    if len(methods) > 1:
        options["settings"] = {"recipe": {"epochs": 1}, "codec": {"min_count": 1}}
    one, two = (quick(tmp_path / str(jobs), jobs=jobs, **options) for jobs in (1, 2))
    assert [(r.contender, r.scores) for r in one.rows] == [(r.contender, r.scores) for r in two.rows]
    cells = [
        [json.loads(path.read_text())["chances"] for path in sorted((tmp_path / jobs / "cells").iterdir())]
        for jobs in ("1", "2")
    ]
    assert cells[0] == [pytest.approx(chances, abs=1e-5) for chances in cells[1]]


def test_word_vectors_learn_from_unlabelled_text_and_from_scratch_share_its_words(tmp_path: Path) -> None:
    found = quick(
        tmp_path,
        methods=["wordvectors"],
        sizes=[24],
        seeds=1,
        unlabelled=[s.texts[0] for s in animals(80, 5)],
        settings={"recipe": {"epochs": 1}, "pretraining": {"epochs": 1}},
    )
    assert {row.start for row in found.rows} == {"unlabelled text", "scratch"}
    assert len({row.parameters for row in found.rows}) == 1
    assert list(found.data["starts"]) == ["word vectors from unlabelled text"]
    counter = Counter()
    quick(
        tmp_path,
        methods=["wordvectors"],
        sizes=[24],
        seeds=1,
        unlabelled=[s.texts[0] for s in animals(80, 6)],  # other text: another start, other cells
        settings={"recipe": {"epochs": 1}, "pretraining": {"epochs": 1}},
        watch=counter,
    )
    assert len(counter.seen) == 2


def test_leaks_are_removed_and_said(tmp_path: Path) -> None:
    found = quick(tmp_path, train=[*TRAIN, replace(TEST[0], key="leak:1")])
    assert found.data["train"] == len(TRAIN)
    assert any("1 training row removed" in note for note in found.notes)


def test_a_test_set_is_held_out_where_none_is_given(tmp_path: Path) -> None:
    found = quick(tmp_path, test=None, test_share=0.25, sizes=[20])
    assert found.data["test"] == 15 and found.data["train"] == 45
    assert any("held out for the test" in note for note in found.notes)


def test_numbers_and_several_labels_are_compared_too(tmp_path: Path) -> None:
    def golds(samples: Sequence[Sample], several: bool) -> list[Sample]:
        counts = [float(s.texts[0].count("meow")) for s in samples]
        return [
            replace(s, gold=tuple(w for w in ("meow", "woof") if w in s.texts[0]) if several else n)
            for s, n in zip(samples, counts, strict=True)
        ]

    for several, metric in ((False, "pearson"), (True, "micro_f1")):
        train, test = golds(TRAIN, several), golds(TEST, several)
        found = quick(tmp_path / metric, train=train, test=test, sizes=[40])
        assert found.metric == metric and found.confusion is None and found.ranking[0].mean > 0.8
        assert found.ranking[0].low <= found.ranking[0].mean <= found.ranking[0].high


def test_only_repeats_a_single_training(tmp_path: Path) -> None:
    whole = quick(tmp_path / "a")
    one = quick(tmp_path / "b", only="tfidf/logistic/scratch/20/1")
    assert [r.score for r in one.rows] == [r.score for r in whole.rows if (r.size, r.seed) == (20, 1)]
    with pytest.raises(UsageError, match="fits no training"):
        quick(tmp_path / "c", only="nothing")


def test_the_command_of_a_cell_is_the_whole_one_narrowed() -> None:
    said = again(
        "pretune compare a.csv --out x --seeds 3 --only '*'", "tfidf/logistic/scratch/20/1", Path("x")
    )
    assert said == "pretune compare a.csv --seeds 3 --only tfidf/logistic/scratch/20/1 --out x-again"


VECTORS: dict[str, Any] = {"methods": ["wordvectors"], "unlabelled": "none"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["tfdif"]}, "did you mean 'tfidf'"),
        ({"recipes": ["gradul"]}, "did you mean 'gradual'"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"jobs": 0}, "--jobs is 0"),
        ({"sizes": [1000]}, "the pool for training has 60 samples"),
        ({"sizes": [2]}, "too small"),
        ({"valid_share": 1.5}, "--valid-share is 1.5"),
        ({"target": 90.0}, "--target is 90; give a score above 0 and at most 1, such as 0.9"),
        ({"settings": {"recip": {}}}, "did you mean 'recipe'"),
        ({"settings": {"recipe": {"epochs": 3}}}, "none of the recipes here"),
        ({"settings": {"tfidf": {"strenght": 1}}}, "strengths"),
        ({**VECTORS, "settings": {"task": {"sampling": "even"}}}, "task.sampling is 'even'"),
        ({**VECTORS, "settings": {"task": {"class_weights": {"cut": 2}}}}, "did you mean 'cat'"),
        (
            {**VECTORS, "recipes": ["ablation-full"], "settings": {"recipe": {"factor": 2}}},
            "recipe.factor is part of what ablation-full means",
        ),
        ({"task": "songs"}, "choose one of classification"),
        ({"from_": ["/nowhere"]}, "no such model folder"),
        ({"vectors": "x.txt"}, "--vectors are for wordvectors"),
        ({"unlabelled": [Path("/nowhere.txt")]}, "no such file or folder"),
        ({"methods": ["wordvectors"], "scratch": False, "unlabelled": "none"}, "nothing is left to compare"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    options = {"settings": {}} | changes
    with pytest.raises(UserError, match=message):
        quick(tmp_path, **options)


def test_recipes_of_one_kind_are_compared_under_their_own_names(tmp_path: Path) -> None:
    found = quick(
        tmp_path,
        **VECTORS,
        recipes=["gradual", "gradual-fastai2", "ablation-last"],
        sizes=[24],
        seeds=1,
        settings={"recipe": {"epochs": 1}, "task": {"sampling": "balanced", "label_smoothing": 0.1}},
    )
    assert {row.recipe for row in found.rows} == {"gradual", "gradual-fastai2", "ablation-last"}
    assert "(ablation-last)" in (tmp_path / "report.html").read_text()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds no earlier comparison"):
        quick(tmp_path)


def test_languages_and_kinds_are_guessed() -> None:
    assert guess_language([sample("这家酒店很好 very nice")]) == "zh"
    assert guess_language([sample("とても良いホテルです")]) == "ja"
    assert guess_language([sample("A fine hotel, 很好")]) == "en"
    assert kind_of([sample("a", gold=1.0)]) == "number" and kind_of([sample("a", gold=("x",))]) == "many"
    with pytest.raises(UserError, match="float, str"):
        kind_of([sample("a", gold=1.0), sample("b", gold="x")])


def test_holm_is_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def cell(
    method: str, start: str, size: int, seed: int, right: float, valid: float, seconds: float = 1.0
) -> Finished:
    """A finished cell that answers the first `right` share of 200 samples rightly."""
    golds = ["yes"] * 200
    predicted = ["yes" if i < right * 200 else "no" for i in range(200)]
    score = predicted.count("yes") / 200
    row = Row(method, "full", start, size, seed, score, {"accuracy": score}, seconds, 1 << 28, 100, 50.0)
    name = f"{method}-{start}-{size}-{seed}"
    return Finished(name, row, "accuracy", {"accuracy": valid}, golds, predicted, [0.5] * 200, [], 1, "")


def verdict(cells: list[Finished]) -> Comparison:
    data = {"kind": "one", "labels": ["no", "yes"]}
    return judge(cells, View(["text"] * 200), "classification", data, {"tfidf": "TF-IDF"})


def test_a_clear_winner_is_said_to_be_one() -> None:
    cells = [cell("tfidf", "scratch", n, s, 0.5 + n / 1000, 0.5) for n in (100, 200) for s in range(3)]
    cells += [cell("b", "books", n, s, 0.75 + n / 1000, 0.8) for n in (100, 200) for s in range(3)]
    found = verdict(cells)
    assert found.ranking[0].p_value is None and (found.ranking[1].p_value or 1) < 0.001
    assert "25.0 points above TF-IDF (p < 0.001)" in found.recommendation
    assert "It leads at every size from 100 labels on." in found.recommendation
    assert "With 100 labels its mean already reaches that of TF-IDF with 200." in found.recommendation


def test_a_lead_that_is_luck_is_said_to_be_luck() -> None:
    cells = [cell("tfidf", "scratch", 100, s, 0.80, 0.5, 0.1) for s in range(3)]
    cells += [cell("b", "books", 100, s, 0.81, 0.8, 60.0) for s in range(3)]
    said = verdict(cells).recommendation
    assert said.startswith("Use b from books: 81.0 % accuracy on the test data with 100 labels, not signif")
    assert "not significantly better than TF-IDF" in said
    assert "TF-IDF cannot be told from it on this test set and trains 600 times as fast." in said


def test_the_hardest_are_those_that_most_get_wrong() -> None:
    cells = [cell("a", "scratch", 100, 0, 0.99, 0.5), cell("b", "scratch", 100, 0, 0.98, 0.5)]
    found = hardest({c.row.contender: [c] for c in cells}, View([f"text {i}" for i in range(200)]), "one")
    assert [one.text for one in found] == ["text 198", "text 199", "text 196", "text 197"]
    assert found[0].said == "answered no by 2 of 2 trainings" and (found[0].wrong, found[2].wrong) == (2, 1)


def test_the_choice_takes_the_best_seed_by_validation() -> None:
    cells = [cell("a", "scratch", 100, seed, 0.5, valid) for seed, valid in enumerate([0.6, 0.9, 0.7])]
    best = verdict(cells).best
    assert best is not None and best.seed == 1


def test_a_recommendation_can_be_made_again_from_the_file() -> None:
    whole = made_up()
    assert recommend(whole)[0].startswith("Use ULMFiT from novels, adapted: 80.0 % accuracy on the test data")
    assert " ".join(recommend(whole)[1:]) == " ".join(whole.reasons)


def csv(path: Path, samples: Sequence[Sample]) -> Path:
    lines = [f"{s.texts[0]},{s.gold}" for s in samples]
    path.write_text("\n".join(["review,stars", *lines]) + "\n")
    return path


def test_the_command_leaves_a_report_and_prints_the_ranking(tmp_path: Path) -> None:
    from pretune.cli import app

    train, test = csv(tmp_path / "train.csv", TRAIN), csv(tmp_path / "test.csv", TEST)
    told = ["--text", "review", "--label", "stars", "--methods", "tfidf", "--sizes", "20,all", "--seeds", "1"]
    out = tmp_path / "out"
    run = CliRunner().invoke(
        app, ["compare", str(train), "--test", str(test), *told, "--jobs", "1", "--out", str(out)]
    )
    assert run.exit_code == 0, run.output
    assert "TF-IDF" in run.output and "Use TF-IDF" in run.output and str(out / "report.html") in run.output
    assert json.loads((out / "comparison.json").read_text())["data"]["name"] == "train.csv"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.csv", "--sizes", "ten", "--out", "o"], "no number of labels"),
        (["--out", "o"], "TRAIN is missing"),
        (["x.csv"], "--out is missing"),
        (["x.csv", "--demo"], "cannot be given with --demo"),
        (["--demo", "--task", "choice"], "--task choice cannot be given with --demo"),
        (["x.csv", "--unlabelled", "none", "--unlabelled", "y", "--out", "o"], "stands alone"),
        (["x.csv", "--methods", "bertt", "--out", "o"], "choose one of"),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_line(arguments: list[str], message: str) -> None:
    from pretune.cli import app

    run = CliRunner().invoke(app, ["compare", *arguments])
    assert run.exit_code == 2 and message in run.output and "Traceback" not in run.output


def test_the_demo_has_settings_for_the_methods_asked_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    command = import_module("pretune.cli.compare")
    monkeypatch.setattr("pretune.data.demo.demo", lambda: Demo(TRAIN, TEST, [], (), []))
    assert command._demo(None, None, None, ("tfidf",), {})["settings"] == {}
    with_ulmfit = command._demo(None, None, None, ("tfidf", "ulmfit"), {"recipe": {"epochs": 1}})
    assert set(with_ulmfit["settings"]) == {"ulmfit", "recipe"}


def test_the_demo_names_all_its_settings_in_one_place() -> None:
    assert (
        module.DEMO.sizes
        and module.DEMO.seeds == 3
        and set(module.DEMO.methods) <= {"tfidf", "wordvectors", "ulmfit"}
    )


def test_a_terminal_sees_a_table_fill(tmp_path: Path) -> None:
    screen = Console(file=StringIO(), force_terminal=True, width=100)
    quick(tmp_path, watch=watcher(screen))
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "TF-IDF" in said and "4 trainings" in said


def test_what_is_no_terminal_gets_a_line_for_every_training(tmp_path: Path) -> None:
    lines = Console(file=StringIO(), width=200)
    quick(tmp_path, watch=watcher(lines))
    said = lines.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert sum(line.startswith("[") for line in said) == 4
    assert "TF-IDF, 40 labels, seed 0: accuracy" in said[-4]


@pytest.mark.slow
def test_a_pretrained_folder_is_adapted_and_its_vocabulary_serves_from_scratch(tmp_path: Path) -> None:
    from pretune.methods import METHODS
    from pretune.runs.run import load_trained, pretrain
    from pretune.training.loop import Fitting

    method, texts = METHODS["ulmfit"], [s.texts[0] for s in animals(60, 9)]
    short = replace(method.pretraining, epochs=1)  # type: ignore[type-var]
    codec = method.codec_config(min_count=1)
    pretrain(
        method,
        lambda: texts,
        None,
        tmp_path / "books",
        size="tiny",
        pretraining=short,
        codec_config=codec,
        fitting=Fitting(quiet=True),
    )
    options: dict[str, Any] = {
        "methods": ["ulmfit"],
        "sizes": [24],
        "seeds": 1,
        "from_": [tmp_path / "books"],
    }
    options["settings"] = {"recipe": {"epochs": 1}, "adaptation": {"epochs": 1}}
    found = quick(tmp_path / "out", **options)
    assert [row.start for row in found.rows if row.start != "scratch"] == ["books, adapted"]
    assert {row.recipe for row in found.rows} == {"gradual", "full"}
    assert len({row.parameters for row in found.rows}) == 1
    assert len(load_trained(tmp_path / "out" / "best").answers(TEST[:3])) == 3
    plain = quick(
        tmp_path / "plain", **options | {"unlabelled": "none", "settings": {"recipe": {"epochs": 1}}}
    )
    assert {row.start for row in plain.rows} == {"books", "scratch"}
    assert plain.data["starts"] == {}


def test_dropout_of_a_given_start_is_chosen_and_its_size_is_not(tmp_path: Path) -> None:
    save_start(tiny.start("bert", seed=5), tmp_path / "bert", {})
    options: dict[str, Any] = {
        "methods": ["bert"],
        "sizes": [24],
        "seeds": 1,
        "from_": [tmp_path / "bert"],
        "unlabelled": "none",
    }
    once = {"epochs": 1, "least_steps": 0}
    plain, dropped = (
        quick(tmp_path / str(p), **options, settings={"recipe": once, "bert": {"encoder": encoder}})
        for p, encoder in ((0, {}), (9, {"dropout": 0.9}))
    )
    for one, other in zip(plain.rows, dropped.rows, strict=True):
        assert one.contender == other.contender and one.parameters == other.parameters
    losses = [
        json.loads(path.read_text())["history"][0]["loss"]
        for p in "09"
        for path in sorted((tmp_path / p / "cells").glob("bert-full-*"))
    ]
    assert len(set(losses)) == len(losses) == 4
    assert load_model_config(tmp_path / "9" / "best")["dropout"] == 0.9
    with pytest.raises(UsageError, match=r"encoder\.layers comes with the weights of --from bert"):
        quick(tmp_path / "wide", **options, settings={"encoder": {"layers": 3}})
    with pytest.raises(UsageError, match="settings for gpt, which is not among --methods bert"):
        quick(tmp_path / "gpt", **options, settings={"gpt": {"recipe": {"epochs": 1}}})


def load_model_config(folder: Path) -> dict[str, Any]:
    """Of the encoder."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())["encoder"]
    return found


@pytest.mark.slow
def test_elmo_is_compared_by_every_recipe_and_its_layers_are_reported(tmp_path: Path) -> None:
    start = tiny.start("elmo")
    save_start(start, tmp_path / "bilm", {})
    found = quick(
        tmp_path / "out",
        methods=(),
        recipes=["features", "gradual", "full"],
        from_=[tmp_path / "bilm"],
        sizes=[24],
        seeds=1,
        unlabelled="none",
        settings={"recipe": {"epochs": 1}},
        only="elmo/*",
    )
    assert {(row.method, row.recipe, row.start) for row in found.rows} == {
        ("elmo", recipe, start) for recipe in ("features", "gradual", "full") for start in ("bilm", "scratch")
    }
    assert [len(mix.weights) for mix in found.mixes if mix.start == "bilm"] == [3]
    assert "Which layers matter?" in (tmp_path / "out" / "report.html").read_text()
