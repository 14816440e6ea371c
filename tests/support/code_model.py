"""A reference model of one user's codes, for model-based tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import httpx

from tests.support.api_client import API, Member, register

OK, CREATED, NO_CONTENT, NOT_FOUND, CONFLICT, UNPROCESSABLE = 200, 201, 204, 404, 409, 422


@dataclass(frozen=True)
class ModelCode:
    """A code in the model."""

    id: str
    text: str
    expires_at: datetime
    max_uses: int | None
    enabled: bool
    uses: int = 0
    deleted: bool = False

    def status(self, now: datetime) -> str:
        """Return the status as the service reports it."""
        if self.expires_at <= now:
            return "expired"
        if self.max_uses is not None and self.uses >= self.max_uses:
            return "exhausted"
        return "active" if self.enabled else "inactive"


State = frozenset[ModelCode]
"""All codes of a user, including deleted ones."""


def find_code(state: State, code_id: str) -> ModelCode:
    """Return the code with this id."""
    return next(code for code in state if code.id == code_id)


def active_code(state: State, now: datetime) -> ModelCode | None:
    """Return the active code."""
    found = [code for code in state if not code.deleted and code.status(now) == "active"]
    assert len(found) <= 1
    return found[0] if found else None


ListedCode = tuple[str, str, int, int | None, datetime]
"""A code in the list of codes: id, status, uses, max_uses, expires_at."""


def listed_codes(state: State, now: datetime) -> set[ListedCode]:
    """Return the expected list of codes."""
    return {
        (code.id, code.status(now), code.uses, code.max_uses, code.expires_at)
        for code in state
        if not code.deleted
    }


def parse_code(code: dict[str, Any]) -> ListedCode:
    """Return a code of a response of the service."""
    expires_at = datetime.fromisoformat(code["expires_at"])
    return code["id"], code["status"], code["uses"], code["max_uses"], expires_at


class Operation(Protocol):
    """A request of the owner or of a new user."""

    async def send(self, owner: Member, state: State) -> httpx.Response:
        """Send the request, for a code of the state."""
        ...

    def next_state(self, state: State, now: datetime, response: httpx.Response) -> State | None:
        """Return the next state, or None if the response contradicts the model."""
        ...


@dataclass(frozen=True)
class IssueCode:
    """Issue a code."""

    minutes: int
    max_uses: int | None
    activate: bool
    replace: bool

    async def send(self, owner: Member, state: State) -> httpx.Response:  # noqa: ARG002 - concerns no code
        """See `Request`."""
        body = {
            "lifetime_minutes": self.minutes,
            "max_uses": self.max_uses,
            "activate": self.activate,
            "replace": self.replace,
        }
        return await owner.request("POST", "/me/codes", json=body)

    def next_state(self, state: State, now: datetime, response: httpx.Response) -> State | None:
        """See `Request`."""
        if self.activate and not self.replace and active_code(state, now):
            return _if_status(response, CONFLICT, state)
        if response.status_code != CREATED:
            return None
        body: dict[str, Any] = response.json()
        expires_at = now + timedelta(minutes=self.minutes)
        code = ModelCode(body["id"], body["code"], expires_at, self.max_uses, self.activate)
        return (_disable_all(state) if self.activate else state) | {code}


@dataclass(frozen=True)
class ActivateCode:
    """Activate a code."""

    code_id: str

    async def send(self, owner: Member, state: State) -> httpx.Response:
        """See `Request`."""
        return await owner.request(
            "POST", f"/me/codes/{find_code(state, self.code_id).id}/activate"
        )

    def next_state(self, state: State, now: datetime, response: httpx.Response) -> State | None:
        """See `Request`."""
        code = find_code(state, self.code_id)
        if code.deleted:
            return _if_status(response, NOT_FOUND, state)
        if code.status(now) in {"expired", "exhausted"}:
            return _if_status(response, CONFLICT, state)
        if response.status_code != OK or response.json()["status"] != "active":
            return None
        return _replace_code(_disable_all(state), self.code_id, enabled=True)


@dataclass(frozen=True)
class DeactivateOrDeleteCode:
    """Deactivate or delete a code."""

    code_id: str
    delete: bool

    async def send(self, owner: Member, state: State) -> httpx.Response:
        """See `Request`."""
        path = f"/me/codes/{find_code(state, self.code_id).id}"
        if self.delete:
            return await owner.request("DELETE", path)
        return await owner.request("POST", f"{path}/deactivate")

    def next_state(self, state: State, now: datetime, response: httpx.Response) -> State | None:  # noqa: ARG002
        """See `Request`."""
        if find_code(state, self.code_id).deleted:
            return _if_status(response, NOT_FOUND, state)
        if self.delete:
            return _if_status(
                response,
                NO_CONTENT,
                _replace_code(state, self.code_id, enabled=False, deleted=True),
            )
        return _if_status(response, OK, _replace_code(state, self.code_id, enabled=False))


@dataclass(frozen=True)
class RenewCode:
    """Renew a code with another expiry and maximum."""

    code_id: str
    minutes: int
    max_uses: int | None

    async def send(self, owner: Member, state: State) -> httpx.Response:
        """See `Request`."""
        body = {"lifetime_minutes": self.minutes, "max_uses": self.max_uses}
        return await owner.request(
            "PATCH", f"/me/codes/{find_code(state, self.code_id).id}", json=body
        )

    def next_state(self, state: State, now: datetime, response: httpx.Response) -> State | None:
        """See `Request`."""
        if find_code(state, self.code_id).deleted:
            return _if_status(response, NOT_FOUND, state)
        expires_at = now + timedelta(minutes=self.minutes)
        renewed = _replace_code(state, self.code_id, expires_at=expires_at, max_uses=self.max_uses)
        return _if_status(response, OK, renewed)


@dataclass(frozen=True)
class RegisterWithCode:
    """Register with a code, usable or not, in lower case."""

    code_id: str

    async def send(self, owner: Member, state: State) -> httpx.Response:
        """See `Request`."""
        return await register(
            owner.client, referral_code=find_code(state, self.code_id).text.lower()
        )

    def next_state(self, state: State, now: datetime, response: httpx.Response) -> State | None:
        """See `Request`."""
        code = find_code(state, self.code_id)
        if code != active_code(state, now):
            return _if_status(response, UNPROCESSABLE, state)
        return _if_status(response, CREATED, _replace_code(state, self.code_id, uses=code.uses + 1))


@dataclass(frozen=True)
class LookUpCode:
    """Look the active code up, without authentication."""

    async def send(self, owner: Member, state: State) -> httpx.Response:  # noqa: ARG002 - concerns no code
        """See `Request`."""
        return await owner.client.get(f"{API}/codes/lookup", params={"email": owner.email})

    def next_state(self, state: State, now: datetime, response: httpx.Response) -> State | None:
        """See `Request`."""
        code = active_code(state, now)
        if code is None:
            return _if_status(response, NOT_FOUND, state)
        is_expected = response.status_code == OK and response.json()["code"] == code.text
        return state if is_expected else None


def possible_states(
    state: State, now: datetime, completed: Sequence[tuple[Operation, httpx.Response]]
) -> set[State]:
    """Return the possible states after concurrent requests: those of each serial order in which
    the model gives these responses.
    """
    if not completed:
        return {state}
    found: set[State] = set()
    for index, (request, response) in enumerate(completed):
        left = request.next_state(state, now, response)
        if left is not None:
            found |= possible_states(left, now, [*completed[:index], *completed[index + 1 :]])
    return found


def _if_status(response: httpx.Response, status: int, state: State) -> State | None:
    return state if response.status_code == status else None


def _replace_code(state: State, code: str, **changed: Any) -> State:
    found = find_code(state, code)
    return state - {found} | {replace(found, **changed)}


def _disable_all(state: State) -> State:
    return frozenset(replace(code, enabled=False) for code in state)
