"""Random concurrent requests about codes and referrals, checked against a model."""

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

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.core.ports.security import PasswordHasher
from referral.core.ports.system import Clock
from referral.settings import Settings
from tests.conftest import run_service
from tests.support.api_client import Member, join
from tests.support.code_model import (
    ActivateCode,
    DeactivateOrDeleteCode,
    IssueCode,
    LookUpCode,
    Operation,
    RegisterWithCode,
    RenewCode,
    State,
    active_code,
    listed_codes,
    parse_code,
    possible_states,
)
from tests.support.event_replay import COMPARED_FIELDS, EventReplay
from tests.support.fakes.security import FakeFingerprinter, FakePasswordHasher
from tests.support.fakes.system import FakeClock
from tests.support.statistics_check import check_statistics

MAX_CONCURRENT = 4
MINUTES = st.integers(min_value=1, max_value=30)
MAX_USES = st.none() | st.integers(min_value=1, max_value=2)
ISSUES = st.builds(
    IssueCode, minutes=MINUTES, max_uses=MAX_USES, activate=st.booleans(), replace=st.booleans()
)
CODE_REQUESTS = st.tuples(
    st.integers(min_value=0, max_value=10_000),
    st.just(ActivateCode)
    | st.just(RegisterWithCode)
    | st.builds(partial, st.just(DeactivateOrDeleteCode), delete=st.booleans())
    | st.builds(partial, st.just(RenewCode), minutes=MINUTES, max_uses=MAX_USES),
)
"""The number of a code, and the request about it."""

DrawnRequest = Operation | tuple[int, Callable[[str], Operation]]
REQUESTS = st.lists(
    ISSUES | CODE_REQUESTS | st.just(LookUpCode()), min_size=2, max_size=MAX_CONCURRENT
)


class CodesMachine(RuleBasedStateMachine):
    """The codes of one user, and the users who register with them."""

    service: httpx.AsyncClient
    runner: asyncio.Runner
    clock: FakeClock
    changes: EventReplay
    histories = 0
    schedules = 0
    """Number of steps with concurrent requests."""

    def __init__(self) -> None:
        super().__init__()
        type(self).histories += 1
        self.owner: Member = self.runner.run(join(self.service))
        self.states: set[State] = {frozenset()}
        """The states that all responses allow: an ended code's uses are visible only later."""

    @rule(drawn=REQUESTS)
    def send_concurrently(self, drawn: list[DrawnRequest]) -> None:
        """Send requests concurrently; some order must explain all the responses."""
        known = next(iter(self.states))
        requests = [request for choice in drawn if (request := _resolve(choice, known))]
        responses = self.runner.run(_all(*(choice.send(self.owner, known) for choice in requests)))
        exchanges = list(zip(requests, responses, strict=True))
        now, before = self.clock.now(), self.states
        self.states = set().union(*(possible_states(state, now, exchanges) for state in before))
        shown = [(request, response.status_code, response.text) for request, response in exchanges]
        assert self.states, f"no order of {shown} explains the responses after {before}"
        type(self).schedules += len(requests) > 1

    @rule(minutes=MINUTES)
    def advance_clock(self, minutes: int) -> None:
        """Advance the clock and log in again."""
        self.clock.advance(minutes=minutes)
        self.owner = self.runner.run(self.owner.log_in_again())

    def teardown(self) -> None:
        """The events of the history tell of the same codes as the list."""
        listed = self.runner.run(self.owner.request("GET", "/me/codes", params={"limit": 100}))
        self.runner.run(self.changes.read(self.clock))
        items = listed.json()["items"]
        assert self.changes.codes_of(self.owner.id, self.clock.now()) == {
            item["id"]: {name: item[name] for name in COMPARED_FIELDS} for item in items
        }

    @invariant()
    def all_views_agree(self) -> None:
        """The list, the look-up and the account agree with the model."""
        now = self.clock.now()
        query = {"limit": 100}
        codes, found, me = self.runner.run(
            _all(
                self.owner.request("GET", "/me/codes", params=query),
                LookUpCode().send(self.owner, frozenset()),
                self.owner.request("GET", "/me"),
            )
        )
        items = codes.json()["items"]
        shown, ids = {parse_code(code) for code in items}, [code["id"] for code in items]
        assert ids == sorted(set(ids), reverse=True), "each once, newest first"
        states = {state for state in self.states if listed_codes(state, now) == shown}
        assert states, f"{shown} is listed instead of {self.states}"
        assert len({active_code(state, now) for state in states}) == 1
        self.states = states
        state = next(iter(states))
        code = active_code(state, now)
        assert LookUpCode().next_state(state, now, found) == state, found.text
        assert (me.json()["active_code"] or {}).get("id") == (code and code.id)
        assert me.json()["referral_count"] == sum(code.uses for code in state)


def _resolve(drawn: DrawnRequest, state: State) -> Operation | None:
    if not isinstance(drawn, tuple):
        return drawn
    pick, make = drawn
    ids = sorted(code.id for code in state)
    return make(ids[pick % len(ids)]) if ids else None


async def _all(*requests: Awaitable[httpx.Response]) -> list[httpx.Response]:
    return await asyncio.gather(*requests)


def run_histories(service: Settings, clock: FakeClock, **options: Any) -> None:
    """Run random histories against a service; raises with the shortest one that fails."""
    fakes = Provider(scope=Scope.APP)
    fakes.provide(lambda: clock, provides=Clock, override=True)
    fakes.provide(FakePasswordHasher, provides=PasswordHasher, override=True)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        client = runner.run(stack.enter_async_context(run_service(service, fakes)))
        CodesMachine.service, CodesMachine.runner, CodesMachine.clock = client, runner, clock
        engine = make_engine(service.database_url or "")
        stack.push_async_callback(engine.dispose)
        CodesMachine.changes = EventReplay(
            PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
        )
        checks = list(HealthCheck)
        try:
            run_state_machine_as_test(
                CodesMachine, settings=how(deadline=None, suppress_health_check=checks, **options)
            )
        finally:
            runner.run(stack.aclose())


def test_random_histories_follow_the_model(settings: Settings, clock: FakeClock) -> None:
    """250 histories of up to 25 steps follow the model; over 1,000 steps are concurrent."""
    run_histories(settings, clock, max_examples=250, stateful_step_count=25, derandomize=True)
    assert CodesMachine.schedules > 1000
    assert asyncio.run(check_statistics(settings.database_url or "")) > CodesMachine.histories
