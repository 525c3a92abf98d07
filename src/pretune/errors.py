"""Mistakes that a user can mend: one clear message, never a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from string import digits


class UserError(Exception):
    """Bad input: the message names the file, row or option and what to do. Exit code 1."""

    exit_code = 1


class UsageError(UserError):
    """A wrong option or argument. Exit code 2."""

    exit_code = 2


def choose(what: str, said: str, possible: Iterable[str]) -> UsageError:
    """The error for a name that is none of the possible ones, with the nearest first."""
    names = list(possible)
    near = get_close_matches(said, names, n=1)
    alike = [
        name for name in names if name.rstrip(digits) == said.rstrip(digits)
    ]  # float64: float32, float16
    hint = f"did you mean {near[0]!r}? " if near and len(alike) < 2 else ""
    return UsageError(f"{what} is {said!r}; {hint}choose one of {', '.join(names)}")
