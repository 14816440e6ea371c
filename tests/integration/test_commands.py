"""The `referral` command with real processes, signals and folders."""

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
    """The parent of the data folders."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def folder(home: Path) -> Iterator[Path]:
    """A data folder that does not exist yet; the tests with kills share it to save time."""
    folder = home / "killed"
    yield folder
    server = EmbeddedPostgres(folder / "postgres")
    server.start()
    server.stop()


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    """A service with two processes and its own data folder."""
    with running_service(home / "served", "--workers", "2") as service:
        assert register(service, ANN).status_code == 201
        yield service


@pytest.fixture
def service_folder(home: Path, service: Service) -> Path:
    """The data folder of the running service."""
    assert service.process.poll() is None
    return home / "served"


def database_pid(folder: Path) -> int | None:
    """Return the process id of the embedded server from its pid file, or None."""
    pid_file = folder / "postgres" / "data" / "postmaster.pid"
    return int(pid_file.read_text().split()[0]) if pid_file.exists() else None


def register(service: Service, email: str) -> httpx.Response:
    """Register an account."""
    body = {"email": email, "password": PASSWORD}
    return httpx.post(f"{service.url}{API}/auth/register", json=body)


def log_in(service: Service, email: str) -> httpx.Response:
    """Request tokens."""
    form = {"grant_type": "password", "username": email, "password": PASSWORD}
    return httpx.post(f"{service.url}{API}/auth/token", data=form)


def test_first_run_creates_everything_and_stops_on_sigterm(folder: Path) -> None:
    """SIGTERM stops service and database within 15 seconds, with exit code 0."""
    with running_service(folder) as service:
        assert register(service, ANN).status_code == 201
        assert database_pid(folder)
        assert service.stop() == 0
    assert database_pid(folder) is None
    assert not (folder / "postgres" / ".s.PGSQL.5432").exists()


def test_kill_9_of_the_service_loses_no_account(folder: Path) -> None:
    """After kill -9 the next start finds the running database and every account."""
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


def test_kill_9_of_the_database_loses_no_account(folder: Path) -> None:
    """After kill -9 of both, the next start recovers every account."""
    with running_service(folder) as service:
        assert register(service, "eve@example.com").status_code == 201
        database = database_pid(folder)
        assert database
        service.process.kill()
        service.process.wait()
        os.kill(database, 9)
    with running_service(folder) as service:
        assert log_in(service, "eve@example.com").status_code == 200


def test_both_processes_accept_a_token(service: Service) -> None:
    """A token of one process is valid at the other: they share keys and database."""
    headers = {"Authorization": f"Bearer {log_in(service, ANN).json()['access_token']}"}
    responses = [httpx.get(f"{service.url}{API}/me", headers=headers) for _ in range(12)]
    assert [response.status_code for response in responses] == [200] * 12


def test_second_service_on_a_data_folder_is_rejected(
    service: Service, service_folder: Path
) -> None:
    """A second service on the same folder exits with 1, even on a free port."""
    second = run_command(service_folder, "run", "--port", str(free_port()))
    assert second.returncode == 1
    assert f"Another service uses {service_folder}" in second.stderr
    assert httpx.get(f"{service.url}/health/ready").status_code == 200


def test_links_follow_host_and_port(home: Path) -> None:
    """Without a public URL, issuer, share links and log follow the options of `run`."""
    options = ("--host", "0.0.0.0", "--workers", "2")  # noqa: S104 - reachable from this machine too
    with running_service(home / "port", *options, public_url="") as service:
        metadata = httpx.get(f"{service.url}/.well-known/oauth-authorization-server").json()
        assert metadata["issuer"] == service.url
        assert metadata["service_documentation"] == f"{service.url}/docs"
        followed = httpx.get(f"{service.url}/r/NONE")
        assert followed.headers["Location"] == f"{service.url}/join"
        assert httpx.get(followed.headers["Location"]).status_code == 200
        assert f"{service.url}/redoc" in service.log.read_text()


def test_used_port_is_named(service: Service, tmp_path: Path) -> None:
    """A used port is reported before anything is created."""
    port = service.url.rpartition(":")[2]
    second = run_command(tmp_path / "other", "run", "--port", port)
    assert second.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in second.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("a..b", "a..b:8000"),
        ("nowhere.invalid", "nowhere.invalid:8000"),
        ("fe80::1%lo", "[fe80::1%lo]:8000"),
    ],
)
def test_host_that_cannot_be_bound_is_named(tmp_path: Path, host: str, authority: str) -> None:
    """An unknown or unsupported host is reported without a traceback."""
    result = run_command(tmp_path / "var", "run", "--host", host)
    assert result.returncode == 1
    assert f"Cannot listen on {authority}: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "var").exists()


def test_all_invalid_settings_are_reported_together(tmp_path: Path) -> None:
    """Every invalid setting is named, and the exit code is 2."""
    invalid = {"public_url": "ftp://x", "access_token_minutes": "soon", "log_level": "loud"}
    result = run_command(tmp_path / "var", "run", **invalid)
    assert result.returncode == 2
    named = [line.partition(":")[0] for line in result.stderr.splitlines()]
    assert sorted(named) == [
        "REFERRAL_ACCESS_TOKEN_MINUTES",
        "REFERRAL_LOG_LEVEL",
        "REFERRAL_PUBLIC_URL",
    ]
    assert not (tmp_path / "var").exists()


def test_migrate_works_beside_a_running_service(service: Service, service_folder: Path) -> None:
    """A migration neither stops the service nor the embedded database."""
    result = run_command(service_folder, "migrate")
    assert (result.returncode, result.stdout) == (0, "The schema is up to date.\n")
    assert log_in(service, ANN).status_code == 200


def test_unknown_setting_is_reported(service_folder: Path) -> None:
    """A misspelt setting is a warning and stops nothing."""
    result = run_command(service_folder, "migrate", databaze_url="postgresql://db/referral")
    assert result.returncode == 0
    assert "REFERRAL_DATABAZE_URL" in result.stderr


def test_help_lists_the_commands(tmp_path: Path) -> None:
    """`--help` lists the commands and creates nothing."""
    result = run_command(tmp_path / "var", "--help")
    assert result.returncode == 0
    commands = result.stdout.partition("Commands:")[2].split()
    assert {"run", "migrate"} <= set(commands)
    assert not (tmp_path / "var").exists()
