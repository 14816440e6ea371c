"""Random requests about codes and referrals, several at once, held against the rules."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import httpx
from dishka import Provider, Scope
from hypothesis import HealthCheck
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from referral.core.ports.security import PasswordHasher
from referral.core.ports.system import Clock
from referral.settings import Settings
from tests.conftest import serving
from tests.support.fakes import FakeClock, FakePasswordHasher
from tests.support.journey import Member, join
from tests.support.rules import (
    Activate,
    End,
    Issue,
    Join,
    LookUp,
    Renew,
    Request,
    State,
    active,
    after_all,
    listed,
    read,
)

AT_ONCE = 4
MINUTES = st.integers(min_value=1, max_value=30)
MAXIMA = st.none() | st.integers(min_value=1, max_value=2)
ISSUES = st.builds(
    Issue, minutes=MINUTES, max_uses=MAXIMA, activate=st.booleans(), replace=st.booleans()
)
ABOUT_A_CODE = st.tuples(
    st.integers(min_value=0, max_value=10_000),
    st.just(Activate)
    | st.just(Join)
    | st.builds(partial, st.just(End), delete=st.booleans())
    | st.builds(partial, st.just(Renew), minutes=MINUTES, max_uses=MAXIMA),
)
"""Which of the codes that there are, and what is asked for."""

Drawn = Request | tuple[int, Callable[[str], Request]]
REQUESTS = st.lists(ISSUES | ABOUT_A_CODE | st.just(LookUp()), min_size=2, max_size=AT_ONCE)


class Codes(RuleBasedStateMachine):
    """One user's codes, and those who join with them."""

    service: httpx.AsyncClient
    runner: asyncio.Runner
    clock: FakeClock
    histories = 0
    schedules = 0
    """How often several requests were under way at the same time."""

    def __init__(self) -> None:
        super().__init__()
        type(self).histories += 1
        self.owner: Member = self.runner.run(join(self.service))
        self.states: set[State] = {frozenset()}
        """Those that all answers allow; what is in a code that is over shows only later."""

    @rule(drawn=REQUESTS)
    def ask_at_once(self, drawn: list[Drawn]) -> None:
        """Have requests under way at the same time; some order must explain all the answers."""
        known = next(iter(self.states))
        requests = [settled for each in drawn if (settled := _settled(each, known))]
        answers = self.runner.run(_all(*(each.ask(self.owner, known) for each in requests)))
        done = list(zip(requests, answers, strict=True))
        now, before = self.clock.now(), self.states
        self.states = set().union(*(after_all(state, now, done) for state in before))
        told = [(request, answer.status_code, answer.text) for request, answer in done]
        assert self.states, f"no order of {told} explains the answers after {before}"
        type(self).schedules += len(requests) > 1

    @rule(minutes=MINUTES)
    def wait(self, minutes: int) -> None:
        """Let time pass."""
        self.clock.advance(minutes=minutes)
        self.owner = self.runner.run(self.owner.come_back())

    @invariant()
    def every_view_agrees(self) -> None:
        """The list, the look-up and the account say what the rules say."""
        now = self.clock.now()
        query = {"limit": 100}
        codes, found, me = self.runner.run(
            _all(
                self.owner.request("GET", "/me/codes", params=query),
                LookUp().ask(self.owner, frozenset()),
                self.owner.request("GET", "/me"),
            )
        )
        items = codes.json()["items"]
        shown, ids = {read(code) for code in items}, [code["id"] for code in items]
        assert ids == sorted(set(ids), reverse=True), "each once, newest first"
        states = {state for state in self.states if listed(state, now) == shown}
        assert states, f"{shown} is listed instead of {self.states}"
        assert len({active(state, now) for state in states}) == 1
        self.states = states
        state = next(iter(states))
        code = active(state, now)
        assert LookUp().after(state, now, found) == state, found.text
        assert (me.json()["active_code"] or {}).get("id") == (code and code.id)
        assert me.json()["referral_count"] == sum(code.uses for code in state)


def _settled(drawn: Drawn, state: State) -> Request | None:
    if not isinstance(drawn, tuple):
        return drawn
    pick, make = drawn
    ids = sorted(code.id for code in state)
    return make(ids[pick % len(ids)]) if ids else None


async def _all(*requests: Awaitable[httpx.Response]) -> list[httpx.Response]:
    return await asyncio.gather(*requests)


def explore(service: Settings, clock: FakeClock, **wanted: Any) -> None:
    """Try histories against a service by the clock; raises the shortest that breaks a rule."""
    fakes = Provider(scope=Scope.APP)
    fakes.provide(lambda: clock, provides=Clock, override=True)
    fakes.provide(FakePasswordHasher, provides=PasswordHasher, override=True)
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
    """Hypothesis tries 250 histories of up to 25 steps, the same ones each time, and in some two
    thousand steps two to four requests are under way at once.
    """
    explore(settings, clock, max_examples=250, stateful_step_count=25, derandomize=True)
    assert Codes.schedules > 1000
