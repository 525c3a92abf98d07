"""A made-up comparison, for tests of what reports say."""

from __future__ import annotations

from dataclasses import replace

from pretune.runs.comparison import (
    Choice,
    Comparison,
    Contender,
    Curve,
    Evidence,
    Gain,
    Hard,
    Rank,
    Row,
    Standing,
    Test,
)
from pretune.runs.recommendation import recommend

CONTENDERS = {
    Contender("tfidf", "linear", "scratch"): (0.55, 0.16, 0.3),
    Contender("wordvectors", "features", "glove.6B.50d"): (0.60, 0.11, 2.1),
    Contender("wordvectors", "full", "scratch"): (0.49, 0.15, 2.6),
    Contender("ulmfit", "gradual", "novels, adapted"): (0.68, 0.12, 88.0),
    Contender("ulmfit", "full", "scratch"): (0.50, 0.12, 61.0),
}
SIZES = (100, 200, 500, 1000)
TITLES = {"tfidf": "TF-IDF", "wordvectors": "word vectors", "ulmfit": "ULMFiT"}


def made_up() -> Comparison:
    """With the recommendation that its numbers lead to."""
    whole = _numbers()
    first, *reasons = recommend(whole)
    return replace(whole, recommendation=" ".join([first, *reasons]), reasons=reasons)


def _weighed(best: Contender) -> dict[str, list[Evidence] | list[Gain] | list[Curve] | list[Standing]]:
    """What the scores say of the contenders, beside the best of each kind of data."""
    order = sorted(CONTENDERS, key=lambda who: -sum(CONTENDERS[who][:2]))
    top = sum(CONTENDERS[best][:2])
    means = {who: sum(CONTENDERS[who][:2]) for who in order}
    evidence = [
        Evidence(*who, data, means[who], 0.01 * (data == "validation"), top - means[who], error)
        if who == best
        else Evidence(*who, data, means[who], 0.0, top - means[who], error, 0.002)
        for data, error in (("validation", 0.03), ("test", 0.012))
        for who in order
    ]
    sizes = [1000.0, 2000.0, 4000.0, 10_000.0]
    curves = [
        Curve(
            *who,
            mean + 0.1,
            3.2,
            0.5,
            0.85,
            4000 if who == best else None,
            2500 if who == best else None,
            None,
            [
                {"size": n, "score": mean + 0.1 - 3.2 * n**-0.5, "low": mean - 0.01, "high": mean + 0.09}
                for n in sizes
            ],
        )
        for who, mean in means.items()
    ]
    gains = [
        Gain(*who, "full", size, 0.2 * 100 / size, 0.1 * 100 / size - 0.02, 0.3 * 100 / size)
        for who in order
        if who.start != "scratch"
        for size in reversed(SIZES)
    ]
    standings = [
        Standing(*who, who.start != "scratch" or who.method == "tfidf", None)
        if who.start != "scratch" or who.method == "tfidf"
        else Standing(*who, False, order[1]._asdict())
        for who in order
    ]
    return {"evidence": evidence, "gains": gains, "learning_curves": curves, "standings": standings}


def _numbers() -> Comparison:
    rows, ranking = [], []
    for size_number, size in enumerate(SIZES):
        for who, (base, gain, seconds) in CONTENDERS.items():
            mean = base + gain * size_number / 3
            scores = [mean - 0.011, mean + 0.002, mean + 0.009]
            rows += [
                Row(
                    *who,
                    size,
                    seed,
                    score,
                    {"accuracy": score},
                    seconds * size / 1000,
                    400 << 20,
                    2_000_000,
                    800.0,
                )
                for seed, score in enumerate(scores)
            ]
            p = None if who.method == "ulmfit" and who.start != "scratch" else 0.002
            ranking.append(Rank(*who, size, mean, 0.0102, mean - 0.025, mean + 0.024, p))
    ranking.sort(key=lambda rank: (-rank.size, -rank.mean))
    best = next(iter(who for who in CONTENDERS if who.start == "novels, adapted"))
    return Comparison(
        "classification",
        "accuracy",
        {
            "name": "reviews.csv",
            "train": 4000,
            "valid": 200,
            "test": 1821,
            "kind": "one",
            "labels": ["negative", "positive"],
            "machine": "2 cores",
            "starts": {"ULMFiT from novels, adapted": 93.0},
        },
        rows,
        ranking,
        "",
        {"pretune": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        titles=TITLES,
        best=Choice(*best, 1000, 1, 0.81),
        tests=[Test(*who, 0.05, 0.0004, 0.0002, 0.002) for who in CONTENDERS if who != best],
        confusion={"labels": ["negative", "positive"], "counts": [[780, 132], [211, 698]]},
        hardest=[
            Hard(
                "If you're <b>not</b> a fan, this might be like trying to eat Brussels sprouts.",
                "positive",
                "answered negative by 15 of 15 trainings",
                15,
                15,
            ),
            Hard(
                "A string of tautly | orchestrated episodes *that* never quite come together.",
                "negative",
                "answered positive by 14 of 15 trainings",
                14,
                15,
            ),
        ],
        notes=[
            "12 training texts that are also in the test data were removed.",
            "The column of labels was guessed: stars.",
        ],
        commands=[
            "pretune compare reviews.csv --text review --label stars --out report",
            "pretune finetune classification report/splits/1000-seed0.train.jsonl --seed 0 --out model",
        ],
        **_weighed(best),
    )
