"""What the numbers of a recipe, or of pretraining, may be, checked where they are given."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any, Final

from pretune.errors import UsageError

LIMITS: Final = {  # the least, the most; None is allowed where the field allows it
    "lr": (0, inf),
    "factor": (1, inf),
    "epochs": (1, inf),
    "least_steps": (0, inf),
    "layer_decay": (0, 1),
    "reinitialize_top": (0, inf),
    "n_transfer": (-1, inf),
    "thaw_epochs": (1, inf),
    "batch_size": (1, inf),
    "warmup": (0, 1),
    "cut_frac": (0, 1),
    "ratio": (1, inf),
    "beta1": (0, 0.9999),
    "beta2": (0, 0.999999),
    "eps": (0, 1),
    "weight_decay": (0, inf),
    "clip": (0, inf),
    "dropout": (0, 0.99),
    "bilstm": (0, inf),
    "bilstm_layers": (1, inf),
    "characters": (0, inf),
    "auxiliary": (0, inf),
    "alpha": (0, inf),
    "beta": (0, inf),
    "lambda_": (0, inf),
    "max_vectors": (1, inf),
    "cache_megabytes": (0, inf),
    "frozen_epochs": (0, inf),
    "frozen_lr": (0, inf),
    "drop_mult": (0, inf),
    "restarts": (0, 1),
    "beta1_at_peak": (0, 0.9999),
    "non_monotone": (0, inf),
}


def check(settings: Any, table: str = "recipe") -> None:
    """Raise `UsageError` for a number outside its limits, naming both."""
    for name, said in vars(settings).items():
        if name in LIMITS and said is not None:
            least, most = LIMITS[name]
            if not (isfinite(said) and least <= said <= most):
                limits = f"at least {least}" if most == inf else f"between {least} and {most}"
                raise UsageError(f"{table}.{name} is {said}; it must be {limits}")
