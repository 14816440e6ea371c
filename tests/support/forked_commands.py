"""Commands of the service in processes that are forked from one which has imported them.

The imports take a second of a processor, and the tests run hundreds of commands.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from referral.cli import COMMANDS, main

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        f"referral.cli.{module}"
        for module in sorted({path.split(":")[0] for path in COMMANDS.values()})
    ]
)


def run_forked(
    arguments: Sequence[str], variables: Mapping[str, str], stdin: str | None, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run `referral` with these arguments and this environment until it exits."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("in", "out", "err")]
        streams[0].write_text(stdin or "")
        process = context.Process(target=_run, args=(list(arguments), dict(variables), streams))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), seconds)
        output = [stream.read_text() if stream.exists() else "" for stream in streams[1:]]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(list(arguments), process.exitcode, *output)


def _run(arguments: list[str], variables: dict[str, str], streams: list[Path]) -> None:
    """Replace the standard streams and the environment, as a shell does, and run the command."""
    flags = os.O_WRONLY | os.O_CREAT
    for number, (stream, mode) in enumerate(zip(streams, (os.O_RDONLY, flags, flags), strict=True)):
        os.dup2(os.open(stream, mode, 0o600), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - multiprocessing has closed it
    os.environ.clear()
    os.environ.update(variables)
    main(arguments, prog_name="referral")
