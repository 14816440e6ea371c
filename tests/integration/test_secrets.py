"""Secrets that database and log must not hold, timing of failed logins, and operator commands."""

import json
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from dishka import Provider
from dishka import Scope as Lifetime

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.passwords import ARGON2, DECOY_HASH, ArgonPasswordHasher
from referral.core.entities.clients import Scope
from referral.settings import Settings
from tests.conftest import run_service
from tests.support.api_client import (
    API,
    PASSWORD,
    block_account,
    create_client,
    join,
    log_in,
    new_email,
)
from tests.support.database_dump import dump_tables
from tests.support.service_process import run_command, running_service

SECRET = "a password that stands out"


async def test_tables_and_log_hold_no_secret(
    client: httpx.AsyncClient, database: PostgresDatabase, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the tables nor the log have a password, a token or a client's secret."""
    shop = f"shop {uuid4()}"
    created, client_secret = await create_client(database, shop, [Scope.USERS_READ])
    email = new_email()
    body = {"email": email, "password": SECRET}
    headers = {"Idempotency-Key": "secrets"}
    await client.post(f"{API}/auth/register", json=body, headers=headers)
    tokens = (await log_in(client, email, SECRET)).json()
    credentials = (str(created.id), client_secret)
    form = {"token": tokens["access_token"]}
    await client.post(f"{API}/auth/introspect", data=form, auth=credentials)
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
    """Records its operations, which take most of a login's time."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    async def hash(self, password: str) -> str:
        self.operations.append("hash")
        return await super().hash(password)

    async def verify(
        self, password: str, password_hash: str | None, costliest_hash: str | None = None
    ) -> bool:
        text = password_hash or DECOY_HASH
        assert not ARGON2.check_needs_rehash(text), "the hash has other parameters"
        self.operations.append("verify")
        return await super().verify(password, password_hash, costliest_hash)


async def test_failed_logins_take_the_same_time(
    settings: Settings, database: PostgresDatabase
) -> None:
    """An unknown e-mail, a wrong password and a blocked account each cost one equal hash."""
    passwords = CountingPasswordHasher()
    fakes = Provider(scope=Lifetime.APP)
    fakes.provide(lambda: passwords, provides=ArgonPasswordHasher, override=True)
    async with run_service(settings, fakes) as client:
        ann, bob = await join(client), await join(client)
        await block_account(database, bob.email)
        for email, password in (
            (new_email(), PASSWORD),
            (ann.email, "not the password"),
            (bob.email, "not the password"),
            (bob.email, PASSWORD),
        ):
            passwords.operations.clear()
            assert (await log_in(client, email, password)).status_code == 400
            assert passwords.operations == ["verify"]
    passwords.close()


def test_operators_create_admins_and_clients_and_block_users(tmp_path: Path) -> None:
    """The commands work beside a running service, and no password is printed."""
    folder = tmp_path / "data"
    with running_service(folder) as service:
        weak = run_command(folder, "create-admin", "root@example.com", stdin="short\n")
        assert weak.returncode == 1
        created = run_command(folder, "create-admin", "root@example.com", stdin=f"{SECRET}\n")
        assert created.returncode == 0, created.stderr
        assert SECRET not in created.stdout + created.stderr
        again = run_command(folder, "create-admin", "ROOT@example.com", stdin=f"{SECRET}\n")
        assert "has an account already" in again.stderr
        form = {"grant_type": "password", "username": "root@example.com", "password": SECRET}
        token = httpx.post(f"{service.url}{API}/auth/token", data=form).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        me = httpx.get(f"{service.url}{API}/me", headers=headers).json()
        assert (me["role"], me["email_verified"]) == ("admin", True)

        blocked = run_command(folder, "block", "Root@example.com")
        assert (blocked.returncode, blocked.stdout) == (0, "root@example.com is blocked.\n")
        assert httpx.post(f"{service.url}{API}/auth/token", data=form).status_code == 400
        again = run_command(folder, "block", "--undo", "root@example.com", "--json")
        assert json.loads(again.stdout) == {
            "id": me["id"],
            "email": "root@example.com",
            "blocked": False,
        }
        assert httpx.post(f"{service.url}{API}/auth/token", data=form).status_code == 200
        unknown = run_command(folder, "block", "nobody@example.com")
        assert (unknown.returncode, unknown.stderr) == (
            1,
            "Error: No user has this e-mail address or id.\n",
        )

        scopes = ("--scope", "codes:read", "--scope", "users:read")
        output = run_command(folder, "create-client", "shop", *scopes)
        printed = dict(line.split("=", 1) for line in output.stdout.split())
        grant = {"grant_type": "client_credentials"}
        credentials = (printed["client_id"], printed["client_secret"])
        tokens = httpx.post(f"{service.url}{API}/auth/token", data=grant, auth=credentials).json()
        assert tokens["scope"] == "codes:read users:read"
        assert run_command(folder, "create-client", "shop", "--scope", "account").returncode == 2
