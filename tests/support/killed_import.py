"""`referral` in a process that kills itself at a step: a statement or a write of rejected lines.

Run as `python -m tests.support.killed_import STEP BATCH_LINES ARGUMENTS…`.
"""

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

from referral.adapters import import_files
from referral.adapters.postgres.connection import DatabaseConnection
from referral.adapters.rejected_lines import RejectedLinesFile
from referral.cli import main

STEPS = (
    (DatabaseConnection, "fetch_sql"),
    (DatabaseConnection, "execute_sql"),
    (RejectedLinesFile, "write"),
    (RejectedLinesFile, "publish"),
)


def kill_at(last_step: int) -> None:
    """Kill this process before, or just after, a step: even numbers are before."""
    steps = count()

    def die_at_the_step() -> None:
        if next(steps) == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in STEPS:
        setattr(owner, name, _surround(getattr(owner, name), die_at_the_step))


def _surround(function: Callable[..., Any], hook: Callable[[], None]) -> Callable[..., Any]:
    if function.__code__.co_flags & 0x80:  # a coroutine function

        async def surround_coroutine(*arguments: Any) -> Any:
            hook()
            result = await function(*arguments)
            hook()
            return result

        return surround_coroutine

    def surround(*arguments: Any) -> Any:
        hook()
        result = function(*arguments)
        hook()
        return result

    return surround


if __name__ == "__main__":
    kill_at(int(sys.argv[1]))
    import_files.BATCH_LINES = int(sys.argv[2])
    main(sys.argv[3:], prog_name="referral")
