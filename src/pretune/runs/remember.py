"""What a run can know of its samples before the first step: frozen layers, and vectors of their words."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pretune.errors import UserError
from pretune.recipes.beside import BesideVectors
from pretune.recipes.frozen import FrozenFeatures
from pretune.recipes.remembered import Asked, megabytes, remembering
from pretune.runs.trained import TrainedModel
from pretune.tasks.base import Task
from pretune.training.devices import find_device
from pretune.training.fitting import Fitting
from pretune.training.progress import progress


def remembered(trained: TrainedModel, asked: Sequence[Asked], fitting: Fitting) -> Task:
    """The task as it is trained, with the layers of a frozen encoder at hand if they fit its memory."""
    encoder, task, codec = trained.model.encoder, trained.learned, trained.start.codec
    with progress(fitting.label, fitting.quiet or int(os.environ.get("RANK", 0)) > 0) as report:
        if isinstance(task, BesideVectors):
            report.note(_known(task, asked[0]))
        if not isinstance(encoder, FrozenFeatures) or not encoder.cache_megabytes:
            return task
        wanted = megabytes(encoder, asked)
        if wanted > encoder.cache_megabytes:
            report.note(
                f"the frozen layers of all samples would take {wanted:,.0f} MB, more than "
                f"recipe.cache_megabytes={encoder.cache_megabytes}: the encoder reads every text every epoch"
            )
            return task
        device = find_device(fitting.device)
        encoder.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device)
        return remembering(encoder, task, codec, asked)


def _known(task: BesideVectors, asked: Asked) -> str:
    """How many tokens have a vector; none at all is a mistake."""
    share = task.share(*asked)
    if not share:
        raise UserError(
            "no word of the training samples is among recipe.vectors; are they of another language?"
        )
    return f"{share * 100:.1f} % of the training tokens have a word vector"
