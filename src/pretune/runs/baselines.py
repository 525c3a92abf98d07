"""The plain baselines that a comparison may show beside encoders: a table, light to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Baseline:
    """A method without an encoder. Its module has `fit(task, train, valid)` and `load(folder)`."""

    title: str
    module: str
    recipe: str  # what the report calls how it learns
    refitted: str  # what it does once validation has been scored, in a sentence
    heeds: tuple[str, ...] = ()  # settings of the task that mean something to it


BASELINES = {
    "tfidf": Baseline(
        "TF-IDF", "pretune.runs.tfidf", "logistic", "TF-IDF is refitted on all once its penalty is chosen."
    ),
    "unigram": Baseline(
        "most frequent tag",
        "pretune.runs.unigram",
        "counts",
        "The most frequent tags are counted in all.",
        ("scheme", "written", "constrained", "language", "segmenter"),
    ),
    "window": Baseline(
        "sliding window",
        "pretune.runs.sliding_window",
        "overlap",
        "Of the sliding window training chooses the length of answers, and validation where to give none.",
        ("no_answer", "null_threshold", "n_best", "language"),
    ),
    "rolecounts": Baseline(
        "role counts",
        "pretune.runs.role_counts",
        "counts",
        "Roles are counted in all.",
        ("language", "segmenter"),
    ),
    "strings": Baseline(
        "same strings",
        "pretune.runs.same_strings",
        "counts",
        "Mentions and links of the same strings are counted in all.",
        ("max_width", "singletons", "language", "segmenter"),
    ),
}
