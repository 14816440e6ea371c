"""The generators and linters, installed from their lock files."""

import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "typescript"
WORK = ROOT / ".clients"
"""The folder of the tools and of the generated code."""

VENV = WORK / "venv"
NPM = WORK / "typescript"
PYTHON_LOCK = ROOT / "requirements-clients.lock"
NPM_FILES = [SOURCES / name for name in (".npmrc", "package.json", "package-lock.json")]
STAMP = WORK / "installed"

PIP = (str(VENV / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
ONE_ATTEMPT = ("--retries=0", "--timeout=10", "--dry-run", "--ignore-installed", "--no-deps")


class Unreachable(Exception):
    """A package registry is unreachable."""


def install() -> None:
    """Install the locked versions, unless they are installed in this folder."""
    locks = b"".join(file.read_bytes() for file in (PYTHON_LOCK, *NPM_FILES))
    digest = sha256(str(WORK).encode() + locks).hexdigest()
    if STAMP.exists() and STAMP.read_text() == digest:
        return
    shutil.rmtree(WORK, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(VENV))
    small_package = re.search(r"^types-python-dateutil==\S+", PYTHON_LOCK.read_text(), re.MULTILINE)
    assert small_package
    if not _succeeds(*PIP, *ONE_ATTEMPT, small_package[0]):
        raise Unreachable("the registry of Python packages is unreachable")
    _run(*PIP, "--require-hashes", "--no-deps", "--no-compile", "-r", str(PYTHON_LOCK))
    NPM.mkdir()
    for file in NPM_FILES:
        shutil.copy(file, NPM)
    npm = str(VENV / "bin/npm")
    if not _succeeds(npm, "view", "typescript", "--fetch-retries=0", "--fetch-timeout=10000"):
        raise Unreachable("the registry of npm packages is unreachable")
    _run(npm, "ci", "--no-audit", "--no-fund", "--loglevel=error")
    _register_generated_client()
    STAMP.write_text(digest)


def tool_environment() -> dict[str, str]:
    """Return the environment that finds the tools first, without telemetry."""
    path = os.pathsep.join(
        (str(VENV / "bin"), str(NPM / "node_modules/.bin"), os.environ.get("PATH", os.defpath))
    )
    left_out = {"PYTHONPATH", "MYPYPATH", "VIRTUAL_ENV"}
    inherited = {name: text for name, text in os.environ.items() if name not in left_out}
    return inherited | {"PATH": path, "REDOCLY_TELEMETRY": "off", "SCARF_ANALYTICS": "false"}


def _register_generated_client() -> None:
    """Install openapi-generator's package in place, as its users install it."""
    packages = next(VENV.glob("lib/python*/site-packages"))
    folder = WORK / "python/generated/openapi_generator"
    (packages / "referral_client.pth").write_text(f"{folder}\n")


def _succeeds(*command: str) -> bool:
    return not _call(*command).returncode


def _run(*command: str) -> None:
    completed = _call(*command)
    assert not completed.returncode, completed.stdout


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the commands of this module
        command,
        cwd=NPM if NPM.exists() else WORK.parent,
        env=tool_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )
