"""Login by e-mail address and password."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from referral.core.entities.passwords import normalize_password, password_forms
from referral.core.entities.users import User
from referral.core.errors import InvalidGrant, InvalidRequest, Unavailable, WeakPassword
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.policies.risk_assessment import RecordNetwork
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import PasswordHasher

T = TypeVar("T")

MAX_LOGIN_TRIES = 2
"""A login is tried again if a concurrent login of the same user has replaced the hash."""

LOGIN_FAILED_DETAIL = "The e-mail address or the password is wrong."


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """Verify a password, and begin a session in the transaction that locks the account."""

    email_parser: EmailParser
    login_throttle: LoginThrottle
    database: Database
    password_hasher: PasswordHasher
    record_network: RecordNetwork

    async def __call__(
        self,
        username: str,
        password: str,
        client_ip: str,
        begin_session: Callable[[Repositories, User], Awaitable[T]],
    ) -> T:
        """Return the result of `begin_session`, which must not be None.

        Raises `TooManyRequests`, or `InvalidGrant`, the same for all causes, so that it does not
        reveal which accounts exist.
        """
        email_key = self._email_key(username)
        await self.login_throttle.hit(email_key or username, client_ip)
        for _ in range(MAX_LOGIN_TRIES):
            user = await self._authenticate(email_key, password)
            if user is None:
                break
            password_hash = await self._rehash(user, password)
            begun = await self._begin(user, password_hash, client_ip, begin_session)
            if begun is not None:
                return begun
        raise InvalidGrant(LOGIN_FAILED_DETAIL)

    async def _begin(
        self,
        user: User,
        password_hash: str,
        client_ip: str,
        begin_session: Callable[[Repositories, User], Awaitable[T]],
    ) -> T | None:
        """Begin the session and store a new hash; None if the account has changed meanwhile."""
        async with self.database.begin() as repositories:
            # Since the read, the password may have changed, or the account been blocked or erased.
            locked = await repositories.users.lock(user.id)
            if locked is None or locked.blocked_at or locked.password_hash != user.password_hash:
                return None
            if password_hash != user.password_hash:
                await repositories.users.save(replace(locked, password_hash=password_hash))
            await self.record_network.of_visit(repositories, locked, client_ip)
            return await begin_session(repositories, locked)

    async def _rehash(self, user: User, password: str) -> str:
        """Return the hash to store: a new one if the parameters of the old one are outdated."""
        if self.password_hasher.needs_rehash(user.password_hash):
            # Do not fail the login if the queue is full: the next login computes the hash.
            with suppress(Unavailable):
                return await self.password_hasher.hash(normalize_password(password))
        return user.password_hash

    async def _authenticate(self, email_key: str | None, password: str) -> User | None:
        try:
            forms = password_forms(password)
        except WeakPassword:
            return None
        user, costliest_hash = await self._find_user(email_key)
        # Hash for an unknown address and a blocked account too: the timing must not reveal them.
        password_hash = user.password_hash if user and user.blocked_at is None else None
        for form in forms:
            if await self.password_hasher.verify(form, password_hash, costliest_hash):
                return user
        return None

    def _email_key(self, username: str) -> str | None:
        try:
            return self.email_parser.parse(username).email_key
        except InvalidRequest:
            return None

    async def _find_user(self, email_key: str | None) -> tuple[User | None, str | None]:
        """Return the user, and the costliest hash of all users."""
        async with self.database.read() as repositories:
            user = email_key and await repositories.users.find_by_email(email_key)
            return user or None, await repositories.users.find_costliest_hash()
