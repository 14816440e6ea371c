"""The `referral` command as its users meet it: real processes, signals and folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from referral.adapters.postgres.embedded import EmbeddedPostgres
from tests.support.api_client import API, PASSWORD
from tests.support.service_process import Service, free_port, run_command, running_service

ANN = "ann@example.com"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for data folders."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def folder(home: Path) -> Iterator[Path]:
    """A data folder where nothing is yet; the tests that kill share it, to save time."""
    folder = home / "killed"
    yield folder
    server = EmbeddedPostgres(folder / "postgres")
    server.start()
    server.stop()


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    """A service of two workers on a data folder of its own."""
    with running_service(home / "served", "--workers", "2") as service:
        assert register(service, ANN).status_code == 201
        yield service


@pytest.fixture
def service_options(home: Path, service: Service) -> Path:
    """The data folder of the service that runs."""
    assert service.process.poll() is None
    return home / "served"


def database_pid(folder: Path) -> int | None:
    """Return the process of the embedded server, as it notes it itself while it runs."""
    noted = folder / "postgres" / "data" / "postmaster.pid"
    return int(noted.read_text().split()[0]) if noted.exists() else None


def register(service: Service, email: str) -> httpx.Response:
    """Make an account."""
    body = {"email": email, "password": PASSWORD}
    return httpx.post(f"{service.url}{API}/auth/register", json=body)


def log_in(service: Service, email: str) -> httpx.Response:
    """Ask for tokens."""
    form = {"grant_type": "password", "username": email, "password": PASSWORD}
    return httpx.post(f"{service.url}{API}/auth/token", data=form)


def test_a_first_run_makes_all_it_needs_and_ends_on_sigterm(folder: Path) -> None:
    """SIGTERM ends the service within 15 seconds, with exit code 0, and the database with it."""
    with running_service(folder) as service:
        assert register(service, ANN).status_code == 201
        assert database_pid(folder)
        assert service.stop() == 0
    assert database_pid(folder) is None
    assert not (folder / "postgres" / ".s.PGSQL.5432").exists()


def test_nothing_is_lost_by_kill_9(folder: Path) -> None:
    """After kill -9 the next start serves at once, with every account of before."""
    with running_service(folder) as service:
        assert register(service, "bob@example.com").status_code == 201
        database = database_pid(folder)
        service.process.kill()
        service.process.wait()
    with running_service(folder) as service:
        assert database_pid(folder) == database
        assert log_in(service, ANN).status_code == 200
        assert log_in(service, "bob@example.com").status_code == 200
    assert database_pid(folder) is None


def test_nothing_is_lost_when_the_database_is_killed_as_well(folder: Path) -> None:
    """After a crash of everything the next start recovers every account."""
    with running_service(folder) as service:
        assert register(service, "eve@example.com").status_code == 201
        database = database_pid(folder)
        assert database
        service.process.kill()
        service.process.wait()
        os.kill(database, 9)
    with running_service(folder) as service:
        assert log_in(service, "eve@example.com").status_code == 200


def test_two_workers_serve(service: Service) -> None:
    """Tokens of one worker are good at the other: both read the same keys and database."""
    headers = {"Authorization": f"Bearer {log_in(service, ANN).json()['access_token']}"}
    answers = [httpx.get(f"{service.url}{API}/me", headers=headers) for _ in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 12


def test_a_data_folder_has_one_service(service: Service, service_options: Path) -> None:
    """A second service on the same folder says so and ends, though its port is free."""
    second = run_command(service_options, "run", "--port", str(free_port()))
    assert second.returncode == 1
    assert f"Another service runs on {service_options}" in second.stderr
    assert httpx.get(f"{service.url}/health/ready").status_code == 200


def test_a_port_that_is_taken_is_named(service: Service, tmp_path: Path) -> None:
    """Who starts on a taken port is told which, before anything is made."""
    taken = service.url.rpartition(":")[2]
    second = run_command(tmp_path / "other", "run", "--port", taken)
    assert second.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{taken}" in second.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("host", ["a..b", "nowhere.invalid", "fe80::1%lo"])
def test_a_host_that_is_none_of_ours_is_named(tmp_path: Path, host: str) -> None:
    """A name without an address, or what the server cannot listen on, is told in words."""
    done = run_command(tmp_path / "var", "run", "--host", host)
    assert done.returncode == 1
    assert f"Cannot listen on {host}:8000: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "var").exists()


def test_bad_settings_are_told_all_at_once(tmp_path: Path) -> None:
    """Every bad setting is named with its fault, and the exit code is 2."""
    bad = {"public_url": "ftp://x", "access_token_minutes": "soon", "log_level": "loud"}
    done = run_command(tmp_path / "var", "run", **bad)
    assert done.returncode == 2
    named = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert sorted(named) == [
        "REFERRAL_ACCESS_TOKEN_MINUTES",
        "REFERRAL_LOG_LEVEL",
        "REFERRAL_PUBLIC_URL",
    ]
    assert not (tmp_path / "var").exists()


def test_migrate_works_beside_a_running_service(service: Service, service_options: Path) -> None:
    """The schema can be brought up to date without stopping the service, nor the database."""
    done = run_command(service_options, "migrate")
    assert (done.returncode, done.stdout) == (0, "The schema is up to date.\n")
    assert log_in(service, ANN).status_code == 200


def test_a_setting_that_does_not_exist_is_pointed_out(service_options: Path) -> None:
    """A slip of the pen in a setting's name is told, and does not stop anything."""
    done = run_command(service_options, "migrate", databaze_url="postgresql://db/referral")
    assert done.returncode == 0
    assert "REFERRAL_DATABAZE_URL" in done.stderr


def test_help_shows_the_commands(tmp_path: Path) -> None:
    """`--help` lists what one can do, and touches nothing."""
    done = run_command(tmp_path / "var", "--help")
    assert done.returncode == 0
    shown = done.stdout.partition("Commands:")[2].split()
    assert {"run", "migrate"} <= set(shown)
    assert not (tmp_path / "var").exists()
