"""What the rules say about one user's codes, as values: for random requests to be held against."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import httpx

from tests.support.journey import API, Member, register

OK, CREATED, NO_CONTENT, NOT_FOUND, CONFLICT, UNUSABLE = 200, 201, 204, 404, 409, 422


@dataclass(frozen=True)
class Known:
    """A code."""

    id: str
    text: str
    expires_at: datetime
    max_uses: int | None
    enabled: bool
    uses: int = 0
    deleted: bool = False

    def status(self, now: datetime) -> str:
        """Say it as the service does."""
        if self.expires_at <= now:
            return "expired"
        if self.max_uses is not None and self.uses >= self.max_uses:
            return "exhausted"
        return "active" if self.enabled else "inactive"


State = frozenset[Known]
"""All codes of a user, the deleted ones too."""


def find(state: State, code: str) -> Known:
    """Return the code with an id."""
    return next(known for known in state if known.id == code)


def active(state: State, now: datetime) -> Known | None:
    """Return the code in force."""
    found = [code for code in state if not code.deleted and code.status(now) == "active"]
    assert len(found) <= 1
    return found[0] if found else None


Shown = tuple[str, str, int, int | None, datetime]
"""What the list of codes shows of one: id, status, uses, their maximum, and its end."""


def listed(state: State, now: datetime) -> set[Shown]:
    """Return what the list of codes shows."""
    return {
        (code.id, code.status(now), code.uses, code.max_uses, code.expires_at)
        for code in state
        if not code.deleted
    }


def read(code: dict[str, Any]) -> Shown:
    """Return that of a code as the service answers it."""
    ends = datetime.fromisoformat(code["expires_at"])
    return code["id"], code["status"], code["uses"], code["max_uses"], ends


class Request(Protocol):
    """Something that a user, or someone who joins, asks for."""

    async def ask(self, owner: Member, state: State) -> httpx.Response:
        """Send it, about a code of the state."""
        ...

    def after(self, state: State, now: datetime, answer: httpx.Response) -> State | None:
        """Return the state that the answer leaves, or nothing where the rules have another one."""
        ...


@dataclass(frozen=True)
class Issue:
    """Make a code."""

    minutes: int
    max_uses: int | None
    activate: bool
    replace: bool

    async def ask(self, owner: Member, state: State) -> httpx.Response:  # noqa: ARG002 - of no code
        """See `Request`."""
        body = {
            "lifetime_minutes": self.minutes,
            "max_uses": self.max_uses,
            "activate": self.activate,
            "replace": self.replace,
        }
        return await owner.request("POST", "/me/codes", json=body)

    def after(self, state: State, now: datetime, answer: httpx.Response) -> State | None:
        """See `Request`."""
        if self.activate and not self.replace and active(state, now):
            return _if(answer, CONFLICT, state)
        if answer.status_code != CREATED:
            return None
        made: dict[str, Any] = answer.json()
        ends = now + timedelta(minutes=self.minutes)
        code = Known(made["id"], made["code"], ends, self.max_uses, self.activate)
        return (_retired(state) if self.activate else state) | {code}


@dataclass(frozen=True)
class Activate:
    """Put a code in force."""

    code: str
    """Its id."""

    async def ask(self, owner: Member, state: State) -> httpx.Response:
        """See `Request`."""
        return await owner.request("POST", f"/me/codes/{find(state, self.code).id}/activate")

    def after(self, state: State, now: datetime, answer: httpx.Response) -> State | None:
        """See `Request`."""
        code = find(state, self.code)
        if code.deleted:
            return _if(answer, NOT_FOUND, state)
        if code.status(now) in {"expired", "exhausted"}:
            return _if(answer, CONFLICT, state)
        if answer.status_code != OK or answer.json()["status"] != "active":
            return None
        return _with(_retired(state), self.code, enabled=True)


@dataclass(frozen=True)
class End:
    """Take a code out of force, for now or for good."""

    code: str
    """Its id."""
    delete: bool

    async def ask(self, owner: Member, state: State) -> httpx.Response:
        """See `Request`."""
        path = f"/me/codes/{find(state, self.code).id}"
        if self.delete:
            return await owner.request("DELETE", path)
        return await owner.request("POST", f"{path}/deactivate")

    def after(self, state: State, now: datetime, answer: httpx.Response) -> State | None:  # noqa: ARG002
        """See `Request`."""
        if find(state, self.code).deleted:
            return _if(answer, NOT_FOUND, state)
        if self.delete:
            return _if(answer, NO_CONTENT, _with(state, self.code, enabled=False, deleted=True))
        return _if(answer, OK, _with(state, self.code, enabled=False))


@dataclass(frozen=True)
class Renew:
    """Give a code another end and maximum."""

    code: str
    """Its id."""
    minutes: int
    max_uses: int | None

    async def ask(self, owner: Member, state: State) -> httpx.Response:
        """See `Request`."""
        body = {"lifetime_minutes": self.minutes, "max_uses": self.max_uses}
        return await owner.request("PATCH", f"/me/codes/{find(state, self.code).id}", json=body)

    def after(self, state: State, now: datetime, answer: httpx.Response) -> State | None:
        """See `Request`."""
        if find(state, self.code).deleted:
            return _if(answer, NOT_FOUND, state)
        ends = now + timedelta(minutes=self.minutes)
        renewed = _with(state, self.code, expires_at=ends, max_uses=self.max_uses)
        return _if(answer, OK, renewed)


@dataclass(frozen=True)
class Join:
    """Register with a code, usable or not, in any case."""

    code: str
    """Its id."""

    async def ask(self, owner: Member, state: State) -> httpx.Response:
        """See `Request`."""
        return await register(owner.client, referral_code=find(state, self.code).text.lower())

    def after(self, state: State, now: datetime, answer: httpx.Response) -> State | None:
        """See `Request`."""
        code = find(state, self.code)
        if code != active(state, now):
            return _if(answer, UNUSABLE, state)
        return _if(answer, CREATED, _with(state, self.code, uses=code.uses + 1))


@dataclass(frozen=True)
class LookUp:
    """Ask for the code in force, as anybody may."""

    async def ask(self, owner: Member, state: State) -> httpx.Response:  # noqa: ARG002 - of no code
        """See `Request`."""
        return await owner.client.get(f"{API}/codes/lookup", params={"email": owner.email})

    def after(self, state: State, now: datetime, answer: httpx.Response) -> State | None:
        """See `Request`."""
        code = active(state, now)
        if code is None:
            return _if(answer, NOT_FOUND, state)
        right = answer.status_code == OK and answer.json()["code"] == code.text
        return state if right else None


def after_all(
    state: State, now: datetime, done: Sequence[tuple[Request, httpx.Response]]
) -> set[State]:
    """Return every state that may be left by requests which were under way at the same time: by
    each order, one after the other, in which the rules have these answers.
    """
    if not done:
        return {state}
    found: set[State] = set()
    for index, (request, answer) in enumerate(done):
        left = request.after(state, now, answer)
        if left is not None:
            found |= after_all(left, now, [*done[:index], *done[index + 1 :]])
    return found


def _if(answer: httpx.Response, status: int, state: State) -> State | None:
    return state if answer.status_code == status else None


def _with(state: State, code: str, **changed: Any) -> State:
    found = find(state, code)
    return state - {found} | {replace(found, **changed)}


def _retired(state: State) -> State:
    return frozenset(replace(code, enabled=False) for code in state)
