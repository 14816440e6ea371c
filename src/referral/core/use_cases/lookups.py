"""Public lookups of codes."""

from dataclasses import dataclass

from referral.core.entities.codes import CODE_PATTERN, Code
from referral.core.entities.users import EmailConfirmationPolicy
from referral.core.errors import NoActiveCode
from referral.core.ports.caching import LookupCache
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import ReadModel
from referral.core.ports.system import Clock


@dataclass(frozen=True, slots=True)
class LookUpCode:
    """Find the active code of an e-mail address's owner."""

    email_parser: EmailParser
    cache: LookupCache
    clock: Clock
    read_model: ReadModel
    confirmation_policy: EmailConfirmationPolicy

    async def __call__(self, email: str) -> Code:
        """Return the code, or raise `NoActiveCode`, also for an unknown address."""
        email_key = self.email_parser.parse(email).email_key
        confirmed_only = self.confirmation_policy.required
        code = await self.cache.get_or_load(
            email_key, lambda: self.read_model.find_code(email_key, confirmed_only=confirmed_only)
        )
        if code is None or not code.is_active(self.clock.now()):
            raise NoActiveCode
        return code

    def is_cached(self, email: str, code: Code) -> bool:
        """Return whether a lookup would return the same code from this process's cache."""
        email_key = self.email_parser.parse(email).email_key
        return self.cache.find_cached(email_key) == code and code.is_active(self.clock.now())


@dataclass(frozen=True, slots=True)
class CheckCode:
    """Check whether a code is active."""

    clock: Clock
    read_model: ReadModel

    async def __call__(self, text: str) -> Code | None:
        """Return the code if it is active."""
        if not CODE_PATTERN.fullmatch(text):
            return None
        code = await self.read_model.find_code_by_text(text)
        return code if code is not None and code.is_active(self.clock.now()) else None
