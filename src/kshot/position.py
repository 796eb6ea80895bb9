"""Where a training run is, and when it ends."""

import math
import threading
import time
from typing import Literal, TypeAlias

__all__ = ["Position", "Reason", "check_budget"]

Reason: TypeAlias = Literal["steps", "minutes", "patience", "interrupted"]


def check_budget(caller: str, steps: int | None, minutes: float | None) -> None:
    """Raise ValueError where nothing, or nothing sensible, says when a run ends."""
    if steps is None and minutes is None:
        raise ValueError(f"{caller} needs a budget: pass steps=, minutes= or both.")
    for budget in (steps, minutes):
        if budget is not None and not budget >= 0:  # so that NaN, which never ends a run, is refused too
            raise ValueError(f"a budget must be at least 0; found {budget}.")


class Position:
    """The steps and seconds of a run, earlier sittings included, and the best score of its validations so far."""

    def __init__(self) -> None:
        self.step, self.stale = 0, 0  # validations since the best
        self.best: float | None = None
        self.earlier, self.start = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return self.earlier + time.monotonic() - self.start

    def progress(self, steps: int | None, minutes: float | None) -> float:
        """Return the share of a budget that is used, 0 to 1."""
        return min(1.0, max(self.step / (steps or math.inf), self.seconds / (60 * (minutes or math.inf))))

    def ending(
        self, steps: int | None, minutes: float | None, interrupted: threading.Event, patience: int | None = None
    ) -> Reason | None:
        """Return what ends the run here, or None."""
        if steps is not None and self.step >= steps:
            return "steps"
        if minutes is not None and self.seconds >= 60 * minutes:
            return "minutes"
        if patience is not None and self.stale >= patience:
            return "patience"
        return "interrupted" if interrupted.is_set() else None
