"""The only place that sleeps."""

import time
from collections.abc import Callable


def eventually(what: str, holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until `holds()`, and fails with `what` if that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.005)
