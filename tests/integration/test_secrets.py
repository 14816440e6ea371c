"""What neither the database nor the log may hold, and what an answer's time may not tell."""

from pathlib import Path

import httpx
import pytest
from dishka import Provider
from dishka import Scope as Lifetime

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.passwords import ARGON2, DECOY_HASH, ArgonPasswordHasher
from referral.adapters.system import RandomTokenGenerator, SystemClock, SystemIdGenerator
from referral.core.entities.clients import Scope
from referral.core.use_cases.clients import CreateClient
from referral.settings import Settings
from tests.conftest import run_service
from tests.support.api_client import API, PASSWORD, block_account, join, log_in, new_email
from tests.support.database_dump import dump_tables
from tests.support.service_process import run_command, running_service

SECRET = "a password that stands out"


async def test_a_dump_holds_no_secret(
    client: httpx.AsyncClient, database: PostgresDatabase, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither password nor token nor a client's secret is in the tables or the log."""
    create = CreateClient(SystemClock(), database, SystemIdGenerator(), RandomTokenGenerator())
    made, client_secret = await create("shop", [Scope.USERS_READ])
    email = new_email()
    body = {"email": email, "password": SECRET}
    headers = {"Idempotency-Key": "secrets"}
    await client.post(f"{API}/auth/register", json=body, headers=headers)
    tokens = (await log_in(client, email, SECRET)).json()
    pair = (str(made.id), client_secret)
    form = {"token": tokens["access_token"]}
    await client.post(f"{API}/auth/introspect", data=form, auth=pair)
    await log_in(client, email, SECRET + "x")
    secrets = [SECRET, client_secret, tokens["access_token"], tokens["refresh_token"]]
    dump, printed = await dump_tables(database), "".join(capfd.readouterr())
    assert email in dump
    assert "request" in printed
    for secret in secrets:
        assert secret not in dump
        assert secret.encode().hex() not in dump
        assert secret not in printed
    assert email not in printed


class CountingPasswordHasher(ArgonPasswordHasher):
    """Notes what is done, which is what takes the time."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    async def hash(self, password: str) -> str:
        self.done.append("hash")
        return await super().hash(password)

    async def verify(self, password: str, hashed: str | None) -> bool:
        text = hashed or DECOY_HASH
        assert not ARGON2.check_needs_rehash(text), "it takes another time"
        self.done.append("verify")
        return await super().verify(password, hashed)


async def test_the_time_of_a_refusal_tells_nothing(
    settings: Settings, database: PostgresDatabase
) -> None:
    """An unknown address, a wrong password, and an account that is blocked: each costs one hash of
    the same strength, beside which all else takes no time.
    """
    passwords = CountingPasswordHasher()
    hashes = Provider(scope=Lifetime.APP)
    hashes.provide(lambda: passwords, provides=ArgonPasswordHasher, override=True)
    async with run_service(settings, hashes) as client:
        ann, bob = await join(client), await join(client)
        await block_account(database, bob.email)
        for email, password in (
            (new_email(), PASSWORD),
            (ann.email, "not the password"),
            (bob.email, "not the password"),
            (bob.email, PASSWORD),
        ):
            passwords.done.clear()
            assert (await log_in(client, email, password)).status_code == 400
            assert passwords.done == ["verify"]
    passwords.close()


def test_operators_make_admins_and_clients_and_shut_users_out(tmp_path: Path) -> None:
    """Beside a running service; the password comes by standard input and is shown nowhere."""
    folder = tmp_path / "data"
    with running_service(folder) as service:
        weak = run_command(folder, "create-admin", "root@example.com", stdin="short\n")
        assert weak.returncode == 1
        made = run_command(folder, "create-admin", "root@example.com", stdin=f"{SECRET}\n")
        assert made.returncode == 0, made.stderr
        assert SECRET not in made.stdout + made.stderr
        again = run_command(folder, "create-admin", "ROOT@example.com", stdin=f"{SECRET}\n")
        assert "has an account already" in again.stderr
        form = {"grant_type": "password", "username": "root@example.com", "password": SECRET}
        token = httpx.post(f"{service.url}{API}/auth/token", data=form).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        me = httpx.get(f"{service.url}{API}/me", headers=headers).json()
        assert (me["role"], me["email_verified"]) == ("admin", True)

        blocked = run_command(folder, "block", "Root@example.com")
        assert (blocked.returncode, blocked.stdout) == (0, "root@example.com is shut out.\n")
        assert httpx.post(f"{service.url}{API}/auth/token", data=form).status_code == 400
        again = run_command(folder, "block", "--undo", "root@example.com")
        assert "may log in again" in again.stdout
        assert httpx.post(f"{service.url}{API}/auth/token", data=form).status_code == 200
        nobody = run_command(folder, "block", "nobody@example.com")
        assert (nobody.returncode, nobody.stderr) == (
            1,
            "Error: No account has this e-mail address.\n",
        )

        scopes = ("--scope", "codes:read", "--scope", "users:read")
        shown = run_command(folder, "create-client", "shop", *scopes)
        said = dict(line.split("=", 1) for line in shown.stdout.split())
        grant = {"grant_type": "client_credentials"}
        pair = (said["client_id"], said["client_secret"])
        tokens = httpx.post(f"{service.url}{API}/auth/token", data=grant, auth=pair).json()
        assert tokens["scope"] == "codes:read users:read"
        assert run_command(folder, "create-client", "shop", "--scope", "account").returncode == 2
