"""A made-up comparison, for tests of what reports say."""

from __future__ import annotations

from pretune.runs.comparison import Choice, Comparison, Contender, Hard, Rank, Row, Test

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
            "test": 1821,
            "kind": "one",
            "labels": ["negative", "positive"],
            "machine": "2 cores",
            "starts": {"ULMFiT from novels, adapted": 93.0},
        },
        rows,
        ranking,
        "Use ULMFiT from novels, adapted: 80.0 % accuracy with 1,000 labels, 8.7 points above word vectors "
        "from glove.6B.50d (p < 0.001). It leads from 100 labels on. With 200 labels it is as good as TF-IDF "
        "with 1,000. One training takes 88 s and 400 MB; it answers 800 samples a second.",
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
    )
