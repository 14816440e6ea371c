"""What other users of the machine reach of the embedded parts: nothing. Tried as `nobody`."""

import asyncio
import json
import os
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

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

OTHER_USER = "nobody"
SYSTEM_PYTHON = "/usr/bin/python3"
"""One that every user may run; that of the tests may be in a home folder."""

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
"""What earlier releases left in pg_hba.conf."""


def run_as_other_user(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as another user of the machine."""
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
    """Ask a database as the other user."""
    return run_as_other_user(*QUERY_COMMAND, url)


def wait_for(holds: Callable[[], object]) -> None:
    """Return as soon as something holds; fails when it does not in time."""
    asyncio.run(wait_until(holds))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, outside of pytest's."""
    place = Path(tempfile.mkdtemp(prefix="referral-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@contextmanager
def started(server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """Run a server until the block ends."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_others_reach_nothing_in_a_used_data_folder(place: Path) -> None:
    """Sockets, keys, mails, figures, locks and logs, be the data folder itself open or not."""
    data = place / "data"
    with running_service(data, "--workers", "2") as service:
        body = {"email": "ann@example.com", "password": PASSWORD}
        assert httpx.post(f"{service.url}{API}/auth/register", json=body).status_code == 201

        wait_for(lambda: list((data / "mail").glob("*.eml")))
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        data.chmod(0o755)  # as earlier releases made it
        walked = run_as_other_user(SYSTEM_PYTHON, "-c", WALK_SCRIPT, data)
        found = {Path(path).name: modes for path, modes in json.loads(walked.stdout)}
        assert {"postgres", "keys", "mail", "metrics", "service.lock"} <= set(found)
        assert not any(found.values()), found
        refused = query(EmbeddedPostgres(data / "postgres").url)
        assert "Permission denied" in refused.stderr


@pytest.mark.parametrize("earlier", ["none", "stopped", "running"])
def test_another_user_who_gets_at_the_socket_is_refused(place: Path, earlier: str) -> None:
    """The server asks the system who connects, on data and beside servers of before as well."""
    folder = place / "postgres"
    before = EmbeddedPostgres(folder, *NO_DURABILITY)
    if earlier != "none":
        before.start()
        (folder / "data" / "pg_hba.conf").write_text(TRUST_ALL)
        before._control("reload" if earlier == "running" else "stop")  # noqa: SLF001
    with started(EmbeddedPostgres(folder, *NO_DURABILITY)) as server:
        folder.chmod(0o755)
        (folder / ".s.PGSQL.5432").chmod(0o777)
        # One that was running takes a moment to read its settings again.
        wait_for(lambda: "Peer authentication failed" in query(server.url).stderr)
        assert subprocess.check_output([*QUERY_COMMAND, server.url], text=True) == "1\n"  # noqa: S603 - psql
    before.stop()


@pytest.fixture
def distant(place: Path) -> Iterator[EmbeddedPostgres]:
    """A server whose folder has a name that is too long for a socket."""
    server = EmbeddedPostgres(place / ("long" * 25) / "postgres", *NO_DURABILITY)
    yield server
    server.stop()


@pytest.fixture
def socket_folder(distant: EmbeddedPostgres) -> Iterator[Path]:
    """Where its socket is instead."""
    folder = Path(distant.url.partition("host=")[2])
    assert folder.parent == Path(tempfile.gettempdir())
    yield folder
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def test_a_long_path_has_its_socket_in_a_private_folder(
    distant: EmbeddedPostgres, socket_folder: Path
) -> None:
    """It is the server's user's alone, and taken again by the next start."""
    for _ in range(2):
        with started(distant):
            assert (socket_folder / ".s.PGSQL.5432").is_socket()
            assert socket_folder.owner() == SYSTEM_USER
            assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_folder_that_another_made_for_the_socket_is_refused(
    distant: EmbeddedPostgres, socket_folder: Path, mode: int
) -> None:
    """Whoever makes it first gets no connection of the service's, nor the folder changed."""
    assert run_as_other_user("mkdir", f"--mode={mode:o}", socket_folder).returncode == 0
    with pytest.raises(Unavailable, match=f"{socket_folder} belongs to the user '{OTHER_USER}'"):
        distant.start()
    assert (socket_folder.owner(), list(socket_folder.iterdir())) == (OTHER_USER, [])


def test_a_socket_folder_that_others_may_enter_is_refused(
    distant: EmbeddedPostgres, socket_folder: Path
) -> None:
    """Also one of our own, since something may be in it already."""
    with started(distant):
        pass
    socket_folder.chmod(0o777)
    with pytest.raises(Unavailable, match=f"Other users may enter {socket_folder}"):
        distant.start()


def test_a_symbolic_link_for_the_socket_is_refused(
    distant: EmbeddedPostgres, socket_folder: Path, place: Path
) -> None:
    """What it leads to keeps its owner."""
    target = place / "target"
    target.mkdir(0o700)
    assert run_as_other_user("ln", "-s", target, socket_folder).returncode == 0
    with pytest.raises(Unavailable, match=f"{socket_folder} is a symbolic link"):
        distant.start()
    assert target.owner() == "root"


def test_root_opens_no_folder_above_the_data(place: Path) -> None:
    """The server's user gets to its data through folders that are closed to it."""
    home = place / "home"
    home.mkdir(0o700)
    data = home / "a folder, with 'signs' & 100 %"
    above = {one: one.stat() for one in (home, *home.parents)}
    done = run_command(data, "migrate")
    assert (done.returncode, done.stderr) == (0, "")
    checked = run_command(data, "check")
    assert checked.returncode == 0, checked.stderr
    assert all(
        (one.stat().st_mode, one.stat().st_uid) == (was.st_mode, was.st_uid)
        for one, was in above.items()
    )
    assert (data / "postgres").owner() == SYSTEM_USER


def test_programs_that_the_servers_user_cannot_reach_are_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root hears which folder is closed and what to do; the folder stays closed."""
    closed = place / "closed"
    programs = closed / "bin"
    programs.mkdir(parents=True)
    closed.chmod(0o700)
    shutil.copy(PROGRAMS / "initdb", programs)
    monkeypatch.setattr(embedded, "_binaries", lambda: programs)
    server = EmbeddedPostgres(place / "postgres")
    with pytest.raises(Unavailable, match=f"may not enter {closed}. Run the service as another"):
        server.start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.parametrize("command", ["run", "migrate"])
def test_root_leaves_the_data_of_another_user_alone(place: Path, command: str) -> None:
    """A command that root runs by mistake does not take the folder away from the service."""
    folder = place / "postgres"
    folder.mkdir(0o700)
    shutil.chown(folder, OTHER_USER)
    done = run_command(place, command)
    assert done.returncode == 1
    assert f"{folder} belongs to the user '{OTHER_USER}'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert folder.owner() == OTHER_USER


def test_a_key_that_another_user_made_is_not_taken(place: Path) -> None:
    """A folder for keys that is somebody else's ends the start."""
    (place / "keys").mkdir()
    shutil.chown(place / "keys", OTHER_USER)
    done = run_command(place, "run", "--port", "18303")
    assert done.returncode == 1
    assert f"{place / 'keys'} belongs to the user '{OTHER_USER}'" in done.stderr


@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.parametrize("url", ["", "postgresql://127.0.0.1:1/referral"])
def test_a_data_folder_that_every_user_may_write_to_is_refused(
    place: Path, key_file: Path, mode: int, url: str
) -> None:
    """With the embedded database or another: mails and figures are in it as well."""
    place.chmod(mode)
    settings = {"database_url": url, "signing_key_file": str(key_file)} if url else {}
    done = run_command(place, "run", "--port", "18303", **settings)
    assert done.returncode == 1
    assert f"Every user may write to {place}" in done.stderr


def test_a_data_folder_that_another_user_could_replace_is_refused(place: Path) -> None:
    """It is theirs, or one above it: they could put keys of their own in place of the service's."""
    shutil.chown(place, OTHER_USER)
    for folder in (place, place / "data"):
        done = run_command(folder, "run", "--port", "18303")
        assert done.returncode == 1
        assert f"{place} belongs to the user '{OTHER_USER}'" in done.stderr


def test_a_link_does_not_close_the_folder_that_it_leads_to(place: Path) -> None:
    """One that other users may enter is refused instead."""
    target = place / "target"
    target.mkdir(0o755)
    (place / "keys").symlink_to(target)
    with pytest.raises(Unavailable, match="leads to a folder that other users may enter"):
        make_private_folder(place / "keys")
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_a_link_to_another_folder_does_not_give_it_away(place: Path) -> None:
    """Root gives the server's user no folder that a symbolic link leads to."""
    target = place / "target"
    target.mkdir()
    (place / "postgres").symlink_to(target)
    with pytest.raises(Unavailable, match="belongs to the user 'root'"):
        EmbeddedPostgres(place / "postgres").start()
    assert target.owner() == "root"


def test_folders_that_others_may_read_are_closed(place: Path) -> None:
    """What an earlier release or a copy left open is closed by the next start."""
    (place / "keys").mkdir(0o755)
    make_private_folder(place / "keys")
    assert stat.S_IMODE((place / "keys").stat().st_mode) == 0o700


def test_a_user_other_than_root_runs_the_server(place: Path) -> None:
    """As themselves, in a folder of their own."""
    shutil.chown(place, OTHER_USER)
    done = run_as_other_user(SYSTEM_PYTHON, "-c", START_AND_STOP, place / "data" / "postgres")
    assert done.returncode == 0, done.stderr
    assert (place / "data" / "postgres" / "data").owner() == OTHER_USER
    refused = run_command(place / "data", "migrate")
    assert (
        f"belongs to the user '{OTHER_USER}' instead of the user '{SYSTEM_USER}'" in refused.stderr
    )
