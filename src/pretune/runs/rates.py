"""The learning-rate finder for pretraining, adaptation and tasks, and the plot of what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pretune.data.rows import Codec
from pretune.data.samples import Sample
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError
from pretune.methods.base import Method, Pretraining, Vocabulary
from pretune.recipes.base import Recipe, auxiliary
from pretune.runs.files import write_bytes
from pretune.runs.remember import remembered
from pretune.runs.run import load_start
from pretune.runs.starts import Corpus, Start, adopted, for_task, scratch
from pretune.runs.trained import join
from pretune.tasks.base import Task
from pretune.training.fitting import Fitting
from pretune.training.lr_find import FoundRates, find_rates
from pretune.training.sources import SampleSource
from pretune.training.stage import stage_numbered

FORMATS = (".svg", ".png", ".pdf")
CUT = 5  # last rates that the plot leaves out, as fastai's: there the loss is off the scale


@runtime_checkable
class Finding(Protocol):
    """Pretraining that can look for its rate."""

    def find_rates(
        self, encoder: Encoder, codec: Codec, corpus: Corpus, fitting: Fitting, stage: int = -1
    ) -> FoundRates: ...


def pretraining_rates(
    method: Method,
    corpus: Corpus,
    size: str,
    pretraining: Pretraining,
    codec_config: Any,
    encoder_config: Any,
    fitting: Fitting,
    stage: int = -1,
) -> FoundRates:
    """As `pretrain` would begin; of several directions the first."""
    search = _finding(method, pretraining)
    if isinstance(codec_config, Mapping):
        codec_config = next(iter(codec_config.values()))
    start = scratch(method, size, corpus, fitting.seed, codec_config, encoder_config=encoder_config)
    return search.find_rates(start.encoder, start.codec, corpus, fitting, stage)


def adaptation_rates(
    folder: Path,
    corpus: Corpus,
    adaptation: Pretraining | None,
    vocabulary: Vocabulary | None,
    fitting: Fitting,
    stage: int = -1,
) -> FoundRates:
    """As `adapt` would begin; of an ensemble the first member."""
    loaded = load_start(folder)
    old = loaded[0] if isinstance(loaded, list) else loaded
    search = _finding(old.method, adaptation or old.method.adaptation)
    new = adopted(old, corpus, vocabulary, fitting.seed)
    return search.find_rates(new.encoder, new.codec, corpus, fitting, stage)


def task_rates(
    start: Start | list[Start],
    task: Task,
    recipe: Recipe,
    train: Sequence[Sample],
    fitting: Fitting,
    stage: int = -1,
) -> FoundRates:
    """As `finetune` would begin the stage with that number, the last if none is given; of several starts
    the first."""
    if not train:
        raise UserError("there is no sample to learn from")
    one = start[0] if isinstance(start, list) else start
    trained = join(for_task(one, auxiliary(recipe)), task.fitted_to(train), recipe, fitting.seed)
    source = SampleSource(trained.learned, one.codec, train, recipe.batch_size, fitting.seed)
    source.task = remembered(trained, [(train, source.rows)], fitting)
    chosen = stage_numbered(recipe.stages(trained.model.encoder, trained.model.head), stage)
    return find_rates(trained.model, chosen, source, fitting)


def check_plot(path: Path) -> None:
    """Raise before the search if its plot could not be drawn."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: a plot is drawn as {', '.join(FORMATS)}; choose another ending")


def draw(found: FoundRates, path: Path) -> None:
    """Losses over rates, suggestions marked, into an SVG, PNG or PDF file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    check_plot(path)
    rates, losses = found.rates[:-CUT], found.losses[:-CUT]
    with rc_context({"svg.hashsalt": "pretune", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(rates, losses, color="0.35")
        for number, (name, rate) in enumerate(found.suggestions.items()):
            nearest = min(range(len(rates)), key=lambda i: abs(rates[i] - rate))
            axes.plot(rate, losses[nearest], "o", color=f"C{number}", label=f"{name} {rate:.2g}")
        axes.set(xscale="log", xlabel="rate", ylabel="loss, smoothed")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        whole = BytesIO()
        kind = path.suffix.lower().removeprefix(".")
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        figure.savefig(whole, format=kind, metadata=undated, dpi=144)
    write_bytes(path, whole.getvalue())


def _finding(method: Method, pretraining: Pretraining) -> Finding:
    if not isinstance(pretraining, Finding):
        raise UsageError(f"the pretraining of {method.name} has no rate to look for")
    return pretraining
