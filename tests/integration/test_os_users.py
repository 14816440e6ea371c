"""Isolation of the data folder and the embedded database from other OS users, tried as `nobody`."""

import asyncio
import json
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from referral.adapters.postgres import embedded
from referral.adapters.postgres.embedded import SYSTEM_USER, EmbeddedPostgres
from referral.adapters.private_folders import make_private_folder
from referral.core.errors import Unavailable
from referral.package_files import package_folder
from tests.support.api_client import API, PASSWORD
from tests.support.server_processes import NO_DURABILITY
from tests.support.service_process import run_command, running_service
from tests.support.waiting import wait_until

OTHER_USER = "nobody"
SYSTEM_PYTHON = "/usr/bin/python3"
"""An interpreter for every user; that of the tests may be in a home folder."""

SOURCES = Path(__file__).parents[2] / "src"
PACKAGE = package_folder(embedded.POSTGRES_PACKAGE)
PROGRAMS = PACKAGE / "pginstall18" / "bin"

WALK_SCRIPT = """
import json, os, sys
found = []
for folder, folders, files in os.walk(sys.argv[1]):
    for path in (os.path.join(folder, name) for name in folders + files):
        modes = (os.R_OK, os.W_OK, os.X_OK)
        found.append([path, [mode for mode in modes if os.access(path, mode)]])
print(json.dumps(found))
"""

START_AND_STOP = """
import sys
from pathlib import Path
from referral.adapters.postgres.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.url)
server.stop()
"""

QUERY_COMMAND = (PROGRAMS / "psql", "-Atc", "SELECT 1", "-d")

TRUST_ALL = "local all all trust\nlocal replication all trust\n"
"""The pg_hba.conf of earlier releases."""


def run_as_other_user(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as another user."""
    return subprocess.run(  # noqa: S603 - our own command
        command,
        user=OTHER_USER,
        group="nogroup",
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": f"{SOURCES}:{PACKAGE.parent}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def query(url: str) -> subprocess.CompletedProcess[str]:
    """Query a database as the other user."""
    return run_as_other_user(*QUERY_COMMAND, url)


def wait_for(holds: Callable[[], object]) -> None:
    """Wait until the condition holds; fails after a time."""
    asyncio.run(wait_until(holds))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder outside of pytest's that every user may enter."""
    open_folder = Path(tempfile.mkdtemp(prefix="referral-"))
    open_folder.chmod(0o755)
    yield open_folder
    shutil.rmtree(open_folder)


@contextmanager
def running_server(server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """Run a server until the block ends."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_other_users_cannot_read_the_data_folder(open_folder: Path) -> None:
    """Sockets, keys, e-mails, metrics and locks are closed, even if the folder itself is open."""
    data = open_folder / "data"
    with running_service(data, "--workers", "2") as service:
        body = {"email": "ann@example.com", "password": PASSWORD}
        assert httpx.post(f"{service.url}{API}/auth/register", json=body).status_code == 201

        wait_for(lambda: list((data / "mail").glob("*.eml")))
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        data.chmod(0o755)  # as earlier releases made it
        walk = run_as_other_user(SYSTEM_PYTHON, "-c", WALK_SCRIPT, data)
        access = {Path(path).name: modes for path, modes in json.loads(walk.stdout)}
        assert {"postgres", "keys", "mail", "metrics", "service.lock"} <= set(access)
        assert not any(access.values()), access
        result = query(EmbeddedPostgres(data / "postgres").url)
        assert "Permission denied" in result.stderr


@pytest.mark.parametrize("previous", ["none", "stopped", "running"])
def test_other_user_is_rejected_at_the_socket(open_folder: Path, previous: str) -> None:
    """Peer authentication is on for new, for existing and for running servers."""
    data = open_folder / "postgres"
    existing = EmbeddedPostgres(data, *NO_DURABILITY)
    if previous != "none":
        existing.start()
        (data / "data" / "pg_hba.conf").write_text(TRUST_ALL)
        existing._control("reload" if previous == "running" else "stop")  # noqa: SLF001
    with running_server(EmbeddedPostgres(data, *NO_DURABILITY)) as server:
        data.chmod(0o755)
        (data / ".s.PGSQL.5432").chmod(0o777)
        # A running server reloads its settings after a moment.
        wait_for(lambda: "Peer authentication failed" in query(server.url).stderr)
        assert subprocess.check_output([*QUERY_COMMAND, server.url], text=True) == "1\n"  # noqa: S603 - psql
    existing.stop()


@pytest.fixture
def long_path_server(open_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server whose path is too long for a Unix socket."""
    server = EmbeddedPostgres(open_folder / ("long" * 25) / "postgres", *NO_DURABILITY)
    yield server
    server.stop()


@pytest.fixture
def socket_folder(long_path_server: EmbeddedPostgres) -> Iterator[Path]:
    """The folder of its socket, in the temporary folder."""
    folder = Path(long_path_server.url.partition("host=")[2])
    assert folder.parent == Path(tempfile.gettempdir())
    yield folder
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def test_socket_of_a_long_path_is_in_a_private_folder(
    long_path_server: EmbeddedPostgres, socket_folder: Path
) -> None:
    """The folder belongs to the server's user, and the next start uses it again."""
    for _ in range(2):
        with running_server(long_path_server):
            assert (socket_folder / ".s.PGSQL.5432").is_socket()
            assert socket_folder.owner() == SYSTEM_USER
            assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_socket_folder_of_another_user_is_rejected(
    long_path_server: EmbeddedPostgres, socket_folder: Path, mode: int
) -> None:
    """The service does not start, and the folder stays unchanged."""
    assert run_as_other_user("mkdir", f"--mode={mode:o}", socket_folder).returncode == 0
    with pytest.raises(Unavailable, match=f"{socket_folder} belongs to the user '{OTHER_USER}'"):
        long_path_server.start()
    assert (socket_folder.owner(), list(socket_folder.iterdir())) == (OTHER_USER, [])


def test_open_socket_folder_is_rejected(
    long_path_server: EmbeddedPostgres, socket_folder: Path
) -> None:
    """Even our own folder is rejected, as it may hold another user's files."""
    with running_server(long_path_server):
        pass
    socket_folder.chmod(0o777)
    with pytest.raises(Unavailable, match=f"Other users can enter {socket_folder}"):
        long_path_server.start()


def test_symbolic_link_as_socket_folder_is_rejected(
    long_path_server: EmbeddedPostgres, socket_folder: Path, open_folder: Path
) -> None:
    """The target of the link keeps its owner."""
    target = open_folder / "target"
    target.mkdir(0o700)
    assert run_as_other_user("ln", "-s", target, socket_folder).returncode == 0
    with pytest.raises(Unavailable, match=f"{socket_folder} is a symbolic link"):
        long_path_server.start()
    assert target.owner() == "root"


def test_parent_folders_stay_closed(open_folder: Path) -> None:
    """The server's user reaches its data without an open parent folder."""
    home = open_folder / "home"
    home.mkdir(0o700)
    data = home / "a folder, with 'signs' & 100 %"
    stats = {path: path.stat() for path in (home, *home.parents)}
    migrated = run_command(data, "migrate")
    assert (migrated.returncode, migrated.stderr) == (0, "")
    checked = run_command(data, "check")
    assert checked.returncode == 0, checked.stderr
    assert all(
        (path.stat().st_mode, path.stat().st_uid) == (before.st_mode, before.st_uid)
        for path, before in stats.items()
    )
    assert (data / "postgres").owner() == SYSTEM_USER


def test_unreachable_programs_are_reported(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the closed folder and the fix; the folder stays closed."""
    closed = open_folder / "closed"
    programs = closed / "bin"
    programs.mkdir(parents=True)
    closed.chmod(0o700)
    shutil.copy(PROGRAMS / "initdb", programs)
    monkeypatch.setattr(embedded, "_binaries", lambda: programs)
    server = EmbeddedPostgres(open_folder / "postgres")
    with pytest.raises(Unavailable, match=f"cannot enter {closed}. Run the service as another"):
        server.start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.parametrize("command", ["run", "migrate"])
def test_root_does_not_take_data_of_another_user(open_folder: Path, command: str) -> None:
    """A command that root runs by mistake fails and changes no owner."""
    folder = open_folder / "postgres"
    folder.mkdir(0o700)
    shutil.chown(folder, OTHER_USER)
    result = run_command(open_folder, command)
    assert result.returncode == 1
    assert f"{folder} belongs to the user '{OTHER_USER}'" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert folder.owner() == OTHER_USER


def test_key_folder_of_another_user_is_rejected(open_folder: Path) -> None:
    """The service does not start."""
    (open_folder / "keys").mkdir()
    shutil.chown(open_folder / "keys", OTHER_USER)
    result = run_command(open_folder, "run", "--port", "18303")
    assert result.returncode == 1
    assert f"{open_folder / 'keys'} belongs to the user '{OTHER_USER}'" in result.stderr


@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.parametrize("url", ["", "postgresql://127.0.0.1:1/referral"])
def test_world_writable_data_folder_is_rejected(
    open_folder: Path, key_file: Path, mode: int, url: str
) -> None:
    """With an external database too, as e-mails and metrics are in the folder as well."""
    open_folder.chmod(mode)
    settings = {"database_url": url, "signing_key_file": str(key_file)} if url else {}
    result = run_command(open_folder, "run", "--port", "18303", **settings)
    assert result.returncode == 1
    assert f"Every user can write to {open_folder}" in result.stderr


def test_data_folder_of_another_user_is_rejected(open_folder: Path) -> None:
    """The owner of the folder or of its parent could replace the keys."""
    shutil.chown(open_folder, OTHER_USER)
    for folder in (open_folder, open_folder / "data"):
        result = run_command(folder, "run", "--port", "18303")
        assert result.returncode == 1
        assert f"{open_folder} belongs to the user '{OTHER_USER}'" in result.stderr


def test_link_to_an_open_folder_is_rejected(open_folder: Path) -> None:
    """The target of the link keeps its mode."""
    target = open_folder / "target"
    target.mkdir(0o755)
    (open_folder / "keys").symlink_to(target)
    with pytest.raises(Unavailable, match="links to a folder that other users can enter"):
        make_private_folder(open_folder / "keys")
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_link_to_a_folder_of_root_is_rejected(open_folder: Path) -> None:
    """The target of the link keeps its owner."""
    target = open_folder / "target"
    target.mkdir()
    (open_folder / "postgres").symlink_to(target)
    with pytest.raises(Unavailable, match="belongs to the user 'root'"):
        EmbeddedPostgres(open_folder / "postgres").start()
    assert target.owner() == "root"


def test_open_private_folder_is_closed(open_folder: Path) -> None:
    """The next start closes a folder that an earlier release or a copy left open."""
    (open_folder / "keys").mkdir(0o755)
    make_private_folder(open_folder / "keys")
    assert stat.S_IMODE((open_folder / "keys").stat().st_mode) == 0o700


def test_unprivileged_user_can_run_the_server(open_folder: Path) -> None:
    """The server runs as the same user in a folder of theirs."""
    shutil.chown(open_folder, OTHER_USER)
    result = run_as_other_user(
        SYSTEM_PYTHON, "-c", START_AND_STOP, open_folder / "data" / "postgres"
    )
    assert result.returncode == 0, result.stderr
    assert (open_folder / "data" / "postgres" / "data").owner() == OTHER_USER
    rejected = run_command(open_folder / "data", "migrate")
    assert (
        f"belongs to the user '{OTHER_USER}' instead of the user '{SYSTEM_USER}'" in rejected.stderr
    )
