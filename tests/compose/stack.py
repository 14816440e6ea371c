"""The containers of compose.yaml, from a copy of the repository with its own .env."""

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.service_process import free_port

REPOSITORY = Path(__file__).parents[2]
UP_SECONDS = 900
HEALTHY_SECONDS = 60
PAUSE = 0.2
STOP_SECONDS = "20"


@dataclass(frozen=True)
class Stack:
    """The running containers."""

    folder: Path
    url: str
    mail_url: str

    def make(self, target: str) -> None:
        """Run a target of the Makefile."""
        _run(self.folder, "make", target)

    def compose(self, *arguments: str) -> str:
        """Run a command of Compose, by its plugin or its stand-alone program."""
        return _run(self.folder, *_compose(), *arguments)

    def container_ids(self, service: str) -> list[str]:
        """Return the ids of a service's containers."""
        return self.compose("ps", "-q", service).split()

    def wait_until_healthy(self, container: str) -> None:
        """Wait until the health check of a container passes."""
        command = ("docker", "inspect", "-f", "{{.State.Health.Status}}", container)
        deadline = time.monotonic() + HEALTHY_SECONDS
        while _run(self.folder, *command).strip() != "healthy":
            assert time.monotonic() < deadline, self.compose("logs", "--no-color")
            time.sleep(PAUSE)

    def restart(self, container: str) -> None:
        """Restart a container, and wait until it is healthy."""
        _run(self.folder, "docker", "restart", "-t", STOP_SECONDS, container)
        self.wait_until_healthy(container)


@contextmanager
def running_stack() -> Iterator[Stack]:
    """Run `make up`, and remove everything with its data when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="referral-stack-"))
    _copy(folder)
    web, mail = free_port(), free_port()
    url = f"http://127.0.0.1:{web}"
    stack = Stack(folder, url, f"http://127.0.0.1:{mail}")
    stack.make(".env")
    _set(
        folder / ".env",
        WEB_PORT=web,
        MAIL_PORT=mail,
        REFERRAL_PUBLIC_URL=url,
        FRONT_NETWORK=f"10.{random.randrange(200, 250)}.{random.randrange(256)}.0/24",  # noqa: S311
        RATE=100_000,
        REFERRAL_LIMIT_REGISTER="off",
        REFERRAL_LIMIT_TOKEN="off",  # noqa: S106 - a limit
        REFERRAL_LIMIT_LOOKUP="off",
        REFERRAL_LIMIT_CODES="off",
        REFERRAL_LIMIT_MAIL="off",
    )
    try:
        stack.make("up")
        for service in ("api", "nginx"):
            stack.wait_until_healthy(stack.container_ids(service)[0])
        yield stack
        stack.make("down")
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")
        shutil.rmtree(folder)


def _copy(folder: Path) -> None:
    names = _run(REPOSITORY, "git", "ls-files", "-co", "--exclude-standard").splitlines()
    for name in names:
        source, target = REPOSITORY / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _set(file: Path, **values: object) -> None:
    kept = [line for line in file.read_text().splitlines() if line.partition("=")[0] not in values]
    file.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in values.items()), ""]))


def _compose() -> tuple[str, ...]:
    try:
        _run(REPOSITORY, "docker", "compose", "version")
    except ChildProcessError:
        return ("docker-compose",)
    return ("docker", "compose")


def _run(folder: Path, *command: str) -> str:
    result = subprocess.run(  # noqa: S603 - commands of an operator
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=UP_SECONDS
    )
    if result.returncode:
        raise ChildProcessError(f"{' '.join(command)} failed: {result.stdout}{result.stderr}")
    return result.stdout
