"""Ctrl-C asked for politely: noted, so that the step at hand ends and a checkpoint is written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from pretune.errors import UserError


class Interrupted(UserError):  # noqa: N818, it is no mistake
    """The user stopped the run; the message says how it goes on."""

    exit_code = 130


class Interrupts:
    """Within this context the first SIGINT or SIGTERM sets `noted`; a second one acts at once."""

    def __init__(self) -> None:
        self.noted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.noted and kind is None:  # came after the last step
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
