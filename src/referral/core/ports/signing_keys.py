"""The signing keys that processes of the service have reported."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol


class SigningKeyRegistry(Protocol):
    """Key ids, and when a process last used the key. The keys themselves are in files."""

    async def report(self, key_ids: Sequence[str], now: datetime) -> list[str]:
        """Store that keys are in use, and return those that were not known, once."""
        ...

    async def remove_unused(self, before: datetime) -> list[str]:
        """Remove the keys that no process has reported since a time, and return each once."""
        ...
