"""Random histories of codes and referrals, held against a model that knows only the rules."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
from dishka import Provider, Scope
from hypothesis import HealthCheck
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from referral.core.ports import Clock, Passwords
from referral.settings import Settings
from tests.conftest import serving
from tests.fakes import FakeClock, FakePasswords
from tests.journey import API, Member, join, register

PICKS = st.integers(min_value=0, max_value=10_000)
MINUTES = st.integers(min_value=1, max_value=30)
MAXIMA = st.none() | st.integers(min_value=1, max_value=2)


@dataclass
class ModelCode:
    """What the rules say about a code."""

    id: str
    text: str
    expires_at: datetime
    max_uses: int | None
    enabled: bool
    uses: int = 0
    deleted: bool = False

    def status(self, now: datetime) -> str:
        """Say it as api.md does."""
        if self.expires_at <= now:
            return "expired"
        if self.max_uses is not None and self.uses >= self.max_uses:
            return "exhausted"
        return "active" if self.enabled else "inactive"


class Codes(RuleBasedStateMachine):
    """One user's codes, and those who join with them."""

    service: httpx.AsyncClient
    runner: asyncio.Runner
    clock: FakeClock
    histories = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).histories += 1
        self.owner: Member = self.runner.run(join(self.service))
        self.codes: list[ModelCode] = []

    def ask(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Send a request of the owner."""
        return self.runner.run(self.owner.request(method, path, **rest))

    def active(self) -> ModelCode | None:
        """Return the code that the rules say is in force."""
        now = self.clock.now()
        found = [code for code in self.codes if not code.deleted and code.status(now) == "active"]
        assert len(found) <= 1
        return found[0] if found else None

    def retire_others(self, keep: ModelCode) -> None:
        """Put every other code out of force."""
        for code in self.codes:
            code.enabled = code is keep and code.enabled

    @rule(minutes=MINUTES, max_uses=MAXIMA, activate=st.booleans(), replace=st.booleans())
    def issue(self, minutes: int, max_uses: int | None, *, activate: bool, replace: bool) -> None:
        """Make a code."""
        body = {
            "lifetime_minutes": minutes,
            "max_uses": max_uses,
            "activate": activate,
            "replace": replace,
        }
        answer = self.ask("POST", "/me/codes", json=body)
        if activate and not replace and self.active():
            assert answer.status_code == 409
            return
        assert answer.status_code == 201, answer.text
        made = answer.json()
        ends = self.clock.now() + timedelta(minutes=minutes)
        code = ModelCode(made["id"], made["code"], ends, max_uses, activate)
        self.codes.append(code)
        if activate:
            self.retire_others(code)

    @precondition(lambda self: self.codes)
    @rule(pick=PICKS)
    def activate(self, pick: int) -> None:
        """Put a code in force."""
        code = self.codes[pick % len(self.codes)]
        answer = self.ask("POST", f"/me/codes/{code.id}/activate")
        status = code.status(self.clock.now())
        if code.deleted:
            assert answer.status_code == 404
        elif status in {"expired", "exhausted"}:
            assert answer.status_code == 409
        else:
            assert answer.json()["status"] == "active"
            code.enabled = True
            self.retire_others(code)

    @precondition(lambda self: self.codes)
    @rule(pick=PICKS, ending=st.sampled_from(["delete", "deactivate"]))
    def end(self, pick: int, ending: str) -> None:
        """Take a code out of force, for now or for good."""
        code = self.codes[pick % len(self.codes)]
        delete = ending == "delete"
        answer = (
            self.ask("DELETE", f"/me/codes/{code.id}")
            if delete
            else self.ask("POST", f"/me/codes/{code.id}/deactivate")
        )
        assert answer.status_code == (404 if code.deleted else 204 if delete else 200)
        code.enabled, code.deleted = False, code.deleted or delete

    @precondition(lambda self: self.codes)
    @rule(pick=PICKS, minutes=MINUTES, max_uses=MAXIMA)
    def renew(self, pick: int, minutes: int, max_uses: int | None) -> None:
        """Give a code another end and maximum."""
        code = self.codes[pick % len(self.codes)]
        body = {"lifetime_minutes": minutes, "max_uses": max_uses}
        answer = self.ask("PATCH", f"/me/codes/{code.id}", json=body)
        if code.deleted:
            assert answer.status_code == 404
            return
        assert answer.status_code == 200
        code.expires_at = self.clock.now() + timedelta(minutes=minutes)
        code.max_uses = max_uses

    @precondition(lambda self: self.codes)
    @rule(pick=PICKS)
    def join(self, pick: int) -> None:
        """Have someone join with a code, usable or not, in any case."""
        code = self.codes[pick % len(self.codes)]
        answer = self.runner.run(register(self.service, referral_code=code.text.lower()))
        usable = code is self.active()
        assert answer.status_code == (201 if usable else 422)
        code.uses += usable

    @rule(minutes=MINUTES)
    def wait(self, minutes: int) -> None:
        """Let time pass."""
        self.clock.advance(minutes=minutes)

    @invariant()
    def every_view_agrees(self) -> None:
        """The list, the look-up and the account say what the rules say."""
        now, active = self.clock.now(), self.active()
        listed = self.ask("GET", "/me/codes", params={"limit": 100}).json()["items"]
        kept = [code for code in reversed(self.codes) if not code.deleted]
        assert [(code["id"], code["status"], code["uses"]) for code in listed] == [
            (code.id, code.status(now), code.uses) for code in kept
        ]
        found = self.runner.run(
            self.service.get(f"{API}/codes/lookup", params={"email": self.owner.email})
        )
        assert found.status_code == (200 if active else 404)
        me = self.ask("GET", "/me").json()
        assert (me["active_code"] or {}).get("id") == (active and active.id)
        assert me["referral_count"] == sum(code.uses for code in self.codes)


def explore(service: Settings, clock: FakeClock, **wanted: Any) -> None:
    """Try histories against a service by the clock; raises the shortest that breaks a rule."""
    fakes = Provider(scope=Scope.APP)
    fakes.provide(lambda: clock, provides=Clock, override=True)
    fakes.provide(FakePasswords, provides=Passwords, override=True)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        client = runner.run(stack.enter_async_context(serving(service, fakes)))
        Codes.service, Codes.runner, Codes.clock = client, runner, clock
        slow = list(HealthCheck)
        try:
            run_state_machine_as_test(
                Codes, settings=how(deadline=None, suppress_health_check=slow, **wanted)
            )
        finally:
            runner.run(stack.aclose())


def test_no_history_breaks_the_rules(settings: Settings, clock: FakeClock) -> None:
    """Hypothesis tries histories of up to 25 steps, the same ones each time."""
    explore(settings, clock, max_examples=30, stateful_step_count=25, derandomize=True)
