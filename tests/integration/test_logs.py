"""The log's fields, and the secrets that it must not hold."""

import json
import logging
import re
import smtplib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import httpx
import pytest
import structlog
from sqlalchemy.exc import IntegrityError

from tests.support.api_client import API
from tests.support.captured_logs import LogOutput, captured_logs
from tests.support.server_processes import RedisProcess
from tests.support.service_process import Service, run_command, running_service
from tests.support.smtp_sink import ReceivedMail, SmtpSink
from tests.support.waiting import wait_until

FIRST, SECOND = "first horse staple 71", "second horse staple 72"
TOKEN = re.compile(r"token=([\w-]+)")


@dataclass
class Journey:
    """HTTP requests that use the whole service and collect the secrets in them."""

    client: httpx.Client
    sink: SmtpSink
    secrets: list[str] = field(default_factory=lambda: [FIRST, SECOND])

    def remember(self, secret: str) -> str:
        """Add a secret and return it."""
        self.secrets.append(secret)
        return secret

    def join(self, name: str, **rest: Any) -> str:
        """Register a user; the request id has the name."""
        email = self.remember(f"{name}.{uuid4().hex}@example.com")
        body = {"email": email, "password": FIRST} | rest
        headers = {"X-Request-ID": f"join-{name}", "Idempotency-Key": uuid4().hex}
        created = self.client.post(f"{API}/auth/register", json=body, headers=headers)
        assert created.status_code == 201, created.text
        return email

    def log_in(self, email: str, password: str = FIRST) -> dict[str, str]:
        """Log in, refresh and fail; return the headers of the session."""
        form = {"grant_type": "password", "username": email}
        url = f"{API}/auth/token"
        assert self.client.post(url, data=form | {"password": f"{password}?"}).status_code == 400
        first = self.client.post(url, data=form | {"password": password}).json()
        refresh = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        second = self.client.post(url, data=refresh).json()
        for tokens in (first, second):
            self.remember(tokens["access_token"])
            self.remember(tokens["refresh_token"])
        self.client.get(f"{API}/me?token={first['access_token']}")
        self.client.get(f"{API}/me", headers={"Authorization": f"Token {first['access_token']}"})
        return {"Authorization": f"Bearer {second['access_token']}"}

    def make_code(self, headers: dict[str, str], text: str | None = None) -> str:
        """Create a code, and call every route that takes one."""
        body: dict[str, Any] = {"lifetime_minutes": 60, "replace": True}
        body |= {"code": text} if text else {}
        created = self.client.post(f"{API}/me/codes", json=body, headers=headers).json()
        code = self.remember(created["code"])
        for path in (f"/r/{code}", f"{API}/codes/{code}/validity", f"/nowhere/{code}"):
            assert self.client.get(path).status_code in {200, 302, 404}
        again = self.client.post(f"{API}/me/codes", json=body | {"code": code}, headers=headers)
        assert again.status_code == 409
        return code

    def look_up(self, email: str) -> None:
        """Look a code up by GET and POST, and put the e-mail into an unknown path."""
        self.client.get(f"{API}/codes/lookup", params={"email": email})
        self.client.post(f"{API}/codes/lookup", json={"email": email})
        self.client.get(f"{API}/{quote(email)}")

    async def mailed_token(self, email: str, page: str) -> str:
        """Wait for an e-mail with a link to the page; return its token."""
        await wait_until(lambda: self._links(email, page))
        return self.remember(self._links(email, page)[0])

    def _links(self, email: str, page: str) -> list[str]:
        parts = [mail.part("plain") for mail in self.sink.mails_to(email)]
        return [found[1] for part in parts if page in part and (found := TOKEN.search(part))]

    def send_bad_input(self, email: str) -> None:
        """Send invalid requests with secrets in them."""
        url = f"{API}/auth/register"
        self.client.post(url, content=f'{{"email": "{email}", "password": "{FIRST}"')
        self.client.post(url, json={"email": [email], "password": {FIRST: email}, email: 1})
        self.client.post(url, json={"email": f"{email}\0", "password": FIRST})
        self.client.post(f"{API}/auth/token", data={"grant_type": FIRST, email: email})
        self.client.get(f"{API}/users/{quote(email)}/referrals?limit={quote(FIRST)}")
        self.client.get("/health/live", headers={"Host": "[x", "X-Request-ID": f"{email} x"})


def _reject_some(rejected: set[str]) -> Any:
    """Reject each recipient once temporarily, and some for good, with the e-mail in the reply."""
    seen: set[str] = set()

    def reply(mail: ReceivedMail) -> str:
        if mail.to.startswith("gone"):
            return f"550 5.1.1 <{mail.to}> is unknown"
        if mail.to not in seen:
            seen.add(mail.to)
            rejected.add(mail.to)
            return f"450 4.2.1 <{mail.to}> is busy"
        return "250 OK"

    return reply


async def run_journey(service: Service, sink: SmtpSink, redis: RedisProcess) -> list[str]:
    """Use every feature of the service; return the secrets."""
    with httpx.Client(base_url=service.url, timeout=20) as client:
        journey = Journey(client, sink)
        ann = journey.join("ann")
        token = await journey.mailed_token(ann, "/confirm")
        journey.client.get(f"/confirm?token={token}")
        confirmation = {"token": token, "password": FIRST}
        assert (
            journey.client.post(f"{API}/auth/email/confirm", json=confirmation).status_code == 204
        )
        signed_in = journey.log_in(ann)
        journey.make_code(signed_in, f"Spring-{uuid4().hex[:12]}")
        code = journey.make_code(signed_in)
        journey.look_up(ann)
        bob = journey.join("bob", referral_code=code)
        journey.join("gone", referral_code=code)
        journey.client.get(f"{API}/me/referrals", headers=signed_in)
        journey.client.post(f"{API}/me/codes/active/email", headers=signed_in)
        journey.client.post(f"{API}/auth/password/forgot", json={"email": bob})
        reset = {"token": await journey.mailed_token(bob, "/reset"), "new_password": SECOND}
        assert journey.client.post(f"{API}/auth/password/reset", json=reset).status_code == 204
        journey.send_bad_input(ann)
        redis.kill()
        journey.look_up(ann)
        signed_in = journey.log_in(bob, SECOND)
        erased = journey.client.request(
            "DELETE", f"{API}/me", json={"password": SECOND}, headers=signed_in
        )
        assert erased.status_code == 204
        await wait_until(
            lambda: '"outcome":"held"' in service.log.read_text().replace('": "', '":"')
        )
        return journey.secrets


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_log_of_a_whole_run_holds_no_secret(
    tmp_path: Path, sink: SmtpSink, own_redis: RedisProcess, level: str
) -> None:
    """No e-mail, password, token or code is logged, also when SMTP, Redis and requests fail."""
    rejected: set[str] = set()
    sink.reply = _reject_some(rejected)
    parts = {"smtp_url": sink.url, "redis_url": own_redis.url}
    folder = tmp_path / "data"
    with running_service(folder, log_level=level, log_format="json", **parts) as service:
        secrets = await run_journey(service, sink, own_redis)
        created = run_command(folder, "create-client", "shop", "--scope", "codes:read", **parts)
        assert created.returncode == 0
    assert len(rejected) > 1
    log = service.log.read_text()
    for secret in secrets:
        assert secret.lower() not in log.lower()
        assert quote(secret).lower() not in log.lower()
    lines = [json.loads(line) for line in log.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert {"/r/{code}", "/api/v1/me/codes", "unknown"} <= {line["route"] for line in requests}
    for line in requests:
        fields = {"event", "level", "method", "ms", "request_id", "route", "status", "timestamp"}
        assert set(line) == fields
    jobs = [line for line in lines if line["event"] == "job"]
    welcome_jobs = [line for line in jobs if line.get("request_id") == "join-ann"]
    assert {"again", "done"} <= {line["outcome"] for line in welcome_jobs}
    held_lines = [line for line in lines if line.get("request_id") == "join-gone" and "job" in line]
    assert "held" in {line.get("outcome") for line in held_lines}
    assert len(held_lines) > 1, "pgqueuer's own line has the request id as well"


@pytest.fixture(params=["json", "console"])
def printed(request: pytest.FixtureRequest) -> Iterator[LogOutput]:
    """The log output in both formats."""
    with captured_logs(request.param) as output:
        yield output


def _errors() -> list[Exception]:
    duplicate = asyncpg.UniqueViolationError("duplicate key value violates uq_users_email_key")
    duplicate.detail = "Key (email_key)=(ann@example.com) already exists.\nspring-sale"
    wrapped = IntegrityError("INSERT INTO users", {"x": 1}, duplicate, hide_parameters=True)
    bad_argument = asyncpg.DataError("invalid input for query argument $1: 'spring-sale' (no uuid)")
    mail = smtplib.SMTPRecipientsRefused({"ann@example.com": (550, b"no ann@example.com")})
    url = OSError("cannot reach redis://user:spring-sale@cache:6379/0")
    token = ValueError(f"bad token {'aB3_' * 11}")
    return [duplicate, wrapped, bad_argument, mail, url, token]


def _raise(error: Exception) -> None:
    try:
        raise error
    except type(error) as cause:
        raise RuntimeError("outer") from cause


@pytest.mark.parametrize("error", _errors(), ids=lambda error: type(error).__name__)
def test_error_texts_are_redacted(printed: LogOutput, error: Exception) -> None:
    """Values are cut out of our own messages and those of libraries, in both formats."""
    try:
        _raise(error)
    except RuntimeError as outer:
        structlog.get_logger().error("unexpected error", exc_info=outer)
        structlog.get_logger().warning("unavailable", cause=repr(error))
        logging.getLogger("pgqueuer").exception("Exception while processing")
        logging.getLogger("asyncio").critical("failed: %s", error)
    log = printed.getvalue()
    assert log.count(type(error).__name__) >= 3
    for secret in ("ann@example.com", "spring-sale", "aB3_aB3_"):
        assert secret not in log
    assert "outer" in log


def test_libraries_log_warnings_only(printed: LogOutput) -> None:
    """Their debug messages hold data from the wire, so the service's log level does not apply."""
    for name in ("pgqueuer", "sqlalchemy.engine", "aiosmtplib", "httpx", "granian.access"):
        logging.getLogger(name).debug("SELECT 'ann'")
        logging.getLogger(name).info("GET /r/spring-sale")
    structlog.get_logger().debug("ours")
    assert "ours" in printed.getvalue()
    assert "spring-sale" not in printed.getvalue()
    assert "SELECT" not in printed.getvalue()
