"""What is recommended: one standard error, what validation and test say, gains and the Pareto front."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest

from pretune.metrics.pareto import dominators
from pretune.runs.cells import Finished
from pretune.runs.comparison import Comparison, Contender, Evidence, Row
from pretune.runs.recommendation import labels_text
from pretune.runs.selection import Cost, optimism_of_epochs, optimism_of_search, simplest
from pretune.runs.verdict import View, judge
from pretune.runs.weighing import Scoring, draw, gains

TFIDF = Contender("tfidf", "linear", "scratch")
VECTORS = Contender("wordvectors", "features", "glove")
BERT = Contender("bert", "full", "books")
SLOW = Contender("elmo", "features", "books")


def evidence(*gaps: tuple[Contender, float, float]) -> list[Evidence]:
    return [Evidence(*who, "validation", 0.8 - gap, 0.0, gap, error) for who, gap, error in gaps]


def costs(**seconds: float) -> dict[Contender, Cost]:
    return {who: Cost(seconds.get(who.method, 1.0), 100.0) for who in (TFIDF, VECTORS, BERT, SLOW)}


def test_the_simplest_within_one_standard_error_is_taken() -> None:
    """ELMo is best; BERT is 1 ± 2 points behind, vectors 3 ± 2, TF-IDF 5 ± 4."""
    found = evidence((SLOW, 0, 0), (BERT, 0.01, 0.02), (VECTORS, 0.03, 0.02), (TFIDF, 0.05, 0.04))
    prices = costs(elmo=100, bert=20, wordvectors=2, tfidf=0.1)
    assert simplest(found, prices) == BERT
    wider = evidence((SLOW, 0, 0), (BERT, 0.01, 0.02), (VECTORS, 0.02, 0.02), (TFIDF, 0.05, 0.04))
    assert simplest(wider, prices) == VECTORS
    assert simplest(found[:1], prices) == SLOW


def test_a_baseline_is_simpler_than_what_trains_faster() -> None:
    found = evidence((BERT, 0, 0), (VECTORS, 0.01, 0.02), (TFIDF, 0.01, 0.02))
    assert simplest(found, costs(bert=9, wordvectors=1, tfidf=5)) == TFIDF


def test_of_what_costs_about_the_same_the_better_is_taken_and_the_faster_before_it() -> None:
    found = evidence((BERT, 0, 0), (VECTORS, 0.01, 0.02))
    assert simplest(found, costs(bert=1.3, wordvectors=1)) == BERT
    assert simplest(found, costs(bert=1.6, wordvectors=1)) == VECTORS
    quick = {BERT: Cost(1.0, 100), VECTORS: Cost(1.0, 1000)}
    assert simplest(found, quick) == VECTORS


def finished(
    who: Contender, seed: int, test: np.ndarray, valid: np.ndarray, size: int = 500, seconds: float = 1.0
) -> Finished:
    """A cell whose answers are right where the arrays are true."""
    right, wrong = int(test.sum()), [("yes" if x else "no") for x in test]
    score = right / len(test)
    row = Row(*who, size, seed, score, {"accuracy": score}, seconds, 1 << 28, 100, 50.0 / seconds)
    golds = [["yes"] * len(x) for x in (test, valid)]
    said = [("yes" if x else "no") for x in valid]
    name = f"{who.method}-{who.start}-{size}-{seed}"
    checked = {"accuracy": float(valid.mean())}
    kept = {"valid_golds": golds[1], "valid_predicted": said}
    return Finished(name, row, "accuracy", checked, golds[0], wrong, [], [], 1, "", **kept)


def share(right: float, number: int, seed: int) -> np.ndarray:
    """So many right, in an order of its own."""
    return np.random.default_rng(seed).permutation(np.arange(number) < round(right * number))


def verdict(cells: list[Finished], **more: float) -> Comparison:
    number = len(cells[0].golds)
    data = {"kind": "one", "labels": ["no", "yes"], "test": number}
    titles = {"tfidf": "TF-IDF", "bert": "BERT", "wordvectors": "word vectors"}
    return judge(cells, View(["text"] * number), "classification", data, titles, **more)


SCRATCH = Contender("bert", "full", "scratch")


def two(valid: tuple[float, float], test: tuple[float, float], seeds: int = 3) -> Comparison:
    """TF-IDF and BERT from scratch, 100 validation and 1,821 test samples, as on SST-2."""
    cells = []
    for s in range(seeds):
        cells.append(finished(TFIDF, s, share(test[0], 1821, 7), share(valid[0], 100, s), seconds=0.2))
        cells.append(
            finished(SCRATCH, s, share(test[1], 1821, 8 + s), share(valid[1], 100, 50 + s), seconds=40)
        )
    return verdict(cells)


def test_two_points_on_100_validation_samples_choose_no_network() -> None:
    found = two((0.60, 0.62), (0.665, 0.599))
    assert found.recommendation.startswith(
        "Use TF-IDF: 66.5 % accuracy on the test data with 500 labels, 6.6"
    )
    assert found.best is not None and found.best.chosen_by == "validation" and found.best.optimism == 0
    assert "puts BERT from scratch first with 62.0 %, but cannot tell it from TF-IDF" in found.recommendation
    assert "it needs no encoder and trains 200 times as fast" in found.recommendation
    (gap,) = [one for one in found.evidence if one.data == "validation" and one.method == "tfidf"]
    assert gap.gap == pytest.approx(0.02) and 0.03 < gap.error < 0.06 and gap.within


def test_a_choice_that_the_test_data_belie_is_said_and_taken_back() -> None:
    found = two((0.50, 0.75), (0.665, 0.599))
    assert found.best is not None and (found.best.method, found.best.chosen_by) == ("tfidf", "test")
    first = found.recommendation.split(". ")[0]
    assert first.startswith(
        "Use TF-IDF: 66.5 % accuracy on the test data with 500 labels; the validation data"
    )
    assert "would take BERT from scratch, which is clearly worse there (59.9 %, p <" in found.recommendation
    assert "The test data made this choice" in found.recommendation


def test_validation_stands_where_the_test_data_do_not_clearly_contradict() -> None:
    found = two((0.50, 0.75), (0.665, 0.660))
    assert found.best is not None and (found.best.method, found.best.chosen_by) == ("bert", "validation")
    assert "TF-IDF is best with 66.5 %, 0.5 points better than it (no significant difference" in (
        found.recommendation
    )


def test_what_choosing_by_test_data_costs_is_stated() -> None:
    """Of alike approaches with independent errors the best is too good by the expected maximum of them."""
    chance = np.random.default_rng(0)
    drawn = {Contender(str(i), "r", "s"): chance.normal(0.7, 0.02, 4000) for i in range(4)}
    means = dict.fromkeys(drawn, 0.7)
    assert optimism_of_search(drawn, means, 1) == pytest.approx(0.02 * 1.03, rel=0.1)
    clear = {who: drawn[who] - 0.3 * i for i, who in enumerate(drawn)}
    assert optimism_of_search(clear, {who: 0.7 - 0.3 * i for i, who in enumerate(drawn)}, 1) < 0.001


def with_epochs(seed: int, scores: list[float]) -> Finished:
    plain = finished(BERT, seed, share(0.5, 10, 0), share(0.5, 10, 0))
    history = [{"epoch": i, "scores": {"accuracy": x}} for i, x in enumerate(scores)]
    return Finished(**{**plain.__dict__, "validation": {"accuracy": max(scores)}, "history": history})


def test_the_best_of_epochs_is_too_good_by_what_it_has_beyond_the_best_for_all_seeds() -> None:
    """Epoch 2 is best over both (0.70); each seed's own best is 0.72 and 0.74."""
    cells = [with_epochs(0, [0.6, 0.68, 0.72]), with_epochs(1, [0.74, 0.72, 0.62, 0.1])]
    assert optimism_of_epochs(cells, "accuracy", 1) == pytest.approx((0.04 + 0.02) / 2)
    assert optimism_of_epochs(cells[:1], "accuracy", 1) == 0
    unlike = Finished(**{**cells[0].__dict__, "validation": {"accuracy": 0.9}})
    assert optimism_of_epochs([unlike, cells[1]], "accuracy", 1) == 0


def test_optimism_is_taken_off_before_contenders_are_compared() -> None:
    lucky = [with_epochs(0, [0.5, 0.5, 0.9]), with_epochs(1, [0.9, 0.5, 0.5])]
    steady = [finished(TFIDF, s, share(0.5, 10, 0), share(0.8, 10, 0)) for s in range(2)]
    found = {one.method: one for one in verdict([*lucky, *steady]).evidence if one.data == "validation"}
    assert found["bert"].mean == 0.9 and found["bert"].optimism == pytest.approx(0.2)
    assert found["tfidf"].gap == 0 and found["bert"].gap == pytest.approx(0.1)


def test_a_gain_is_the_mean_difference_over_seeds_and_examples() -> None:
    chance = np.random.default_rng(1)
    tables = {who: chance.random((3, 300)) < p for who, p in ((BERT, 0.8), (SCRATCH, 0.6))}
    here = {
        who: [finished(who, s, row, row[:20]) for s, row in enumerate(table)] for who, table in tables.items()
    }
    scoring = Scoring("accuracy", 1)
    (gain,) = gains(here, draw(here, scoring), scoring, 500)
    direct = (tables[BERT].astype(float) - tables[SCRATCH]).mean()
    assert gain.contender == BERT and gain.gain == pytest.approx(direct)
    error = np.sqrt((0.8 * 0.2 + 0.6 * 0.4) / 900)
    assert gain.low < direct < gain.high and 1.5 * error < gain.high - direct < 5 * error
    fewer = {BERT: here[BERT][1:], SCRATCH: here[SCRATCH]}
    (less,) = gains(fewer, draw(fewer, scoring), scoring, 500)
    assert less.gain == pytest.approx((tables[BERT][1:].astype(float) - tables[SCRATCH][1:]).mean())
    assert gains({BERT: here[BERT]}, draw(here, scoring), scoring, 500) == []


def test_the_pareto_front_of_hand_cases() -> None:
    assert dominators([(3, 1), (2, 2), (1, 3)]) == [None, None, None]
    assert dominators([(3, 3), (2, 2), (3, 1)]) == [None, 0, 0]
    assert dominators([(1, 1), (1, 1)]) == [None, None]
    assert dominators([(1, 1), (1, 2), (2, 2)]) == [1, 2, None]


def test_standings_weigh_score_time_memory_and_speed() -> None:
    found = two((0.60, 0.62), (0.665, 0.599))
    tfidf, scratch = found.standings
    assert tfidf.efficient and tfidf.dominated_by is None
    assert not scratch.efficient and scratch.dominated_by == TFIDF._asdict()


def learning() -> list[Finished]:
    """BERT by the law 0.9 - 2 n^-0.5, TF-IDF always 70 %, 2,000 test samples."""
    cells = []
    for size in (100, 200, 400, 800):
        for s in range(2):
            right = 0.9 - 2 * size**-0.5
            cells.append(finished(BERT, s, share(right, 2000, s), share(right, 40, s), size, 40.0))
            cells.append(finished(TFIDF, s, share(0.7, 2000, 9), share(0.7, 40, s), size))
    return cells


def test_curves_say_how_many_labels_a_target_takes() -> None:
    found = verdict(learning(), target=0.86)
    curve = next(one for one in found.learning_curves if one.method == "bert")
    assert curve.labels == pytest.approx(2500, rel=0.25)
    assert curve.labels_low is not None and curve.labels_low < 2500 < (curve.labels_high or 8001)
    flat = next(one for one in found.learning_curves if one.method == "tfidf")
    assert flat.labels is None and flat.target == 0.86
    early = next(one for one in verdict(learning(), target=0.6).learning_curves if one.method == "tfidf")
    assert early.labels == early.labels_low == 100  # below the smallest size the curve says nothing
    assert labels_text(early, (100, 800), "labels").startswith(
        "at most 100 labels, the fewest that were tried"
    )
    assert [point["size"] for point in curve.band][::5] == [800, 2560, 8000]
    assert "By its learning curve BERT from books reaches 86.0 % with about 2," in found.recommendation
    best = fmean(cell.row.score for cell in learning() if cell.row.method == "bert" and cell.row.size == 800)
    assert verdict(learning()).learning_curves[0].target == pytest.approx(best)


def test_two_sizes_have_no_curve() -> None:
    assert verdict([cell for cell in learning() if cell.row.size < 400]).learning_curves == []


def test_cells_of_an_earlier_version_count_by_their_seeds() -> None:
    cells = []
    for s, gap in enumerate((0.0, 0.04, 0.02)):
        for who, mean in ((BERT, 0.8 + gap), (TFIDF, 0.8)):
            one = finished(who, s, share(0.7, 50, s), share(0.8, 10, s))
            bare = {"valid_golds": [], "valid_predicted": [], "validation": {"accuracy": mean}}
            cells.append(Finished(**{**one.__dict__, **bare}))
    found = verdict(cells)
    (tfidf,) = [one for one in found.evidence if one.data == "validation" and one.method == "tfidf"]
    assert tfidf.gap == pytest.approx(0.02) and tfidf.error == pytest.approx(0.02 / np.sqrt(3))
    assert "its error is over seeds alone" in found.recommendation
