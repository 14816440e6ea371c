"""The fake of the reported signing keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.support.fakes.tables import Tables


@dataclass(frozen=True)
class FakeSigningKeyRegistry:
    """Key ids in a dict."""

    tables: Tables

    async def report(self, key_ids: Sequence[str], now: datetime) -> list[str]:
        added = [key_id for key_id in key_ids if key_id not in self.tables.signing_keys]
        self.tables.signing_keys |= dict.fromkeys(key_ids, now)
        return added

    async def remove_unused(self, before: datetime) -> list[str]:
        stored = self.tables.signing_keys
        removed = [key_id for key_id, reported_at in stored.items() if reported_at < before]
        for key_id in removed:
            del stored[key_id]
        return removed
