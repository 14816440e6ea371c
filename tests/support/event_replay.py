"""The state of codes as a subscriber knows it: from the events of the feed alone."""

from datetime import datetime
from typing import Any

from referral.adapters.system import SystemIdGenerator
from referral.core.entities.events import Event
from referral.core.policies.event_recording import RecordEvents
from referral.core.policies.webhook_fanout import FanOutEvents
from referral.core.ports.repositories import Database
from referral.core.ports.system import Clock
from referral.core.use_cases.events import PublishEvents, ReportExpiredCodes

COMPARED_FIELDS = ("code", "status", "expires_at", "uses", "max_uses")


class EventReplay:
    """Codes by their ids, with the data of their last events."""

    def __init__(self, database: Database) -> None:
        """Begin with the first event of the feed."""
        self._database = database
        self._position = 0
        self._codes: dict[str, dict[str, Any]] = {}
        self._expired: set[tuple[str, str]] = set()
        self._exhausted: set[str] = set()

    async def read(self, clock: Clock) -> None:
        """Report expired codes, and apply all new events."""
        id_generator = SystemIdGenerator()
        await ReportExpiredCodes(clock, self._database, RecordEvents(id_generator))()
        publish_events = PublishEvents(self._database, FanOutEvents(clock, id_generator))
        while await publish_events(wait=True):
            pass
        async with self._database.read() as repositories:
            while page := await repositories.events.list_page(
                None, after=self._position, limit=100
            ):
                for each in page:
                    self._apply(each.event)
                self._position = page[-1].position

    def codes_of(self, user_id: str, now: datetime) -> dict[str, dict[str, Any]]:
        """Return the codes of a user as at `now`, without a look at the clock between events."""
        return {
            code_id: {name: data[name] for name in COMPARED_FIELDS}
            | {"status": self._status(code_id, now)}
            for code_id, data in self._codes.items()
            if data["user_id"] == user_id
        }

    def _apply(self, event: Event) -> None:
        code_id = str(event.data.get("code_id"))
        match event.type.split("."):
            case ["code", "deleted"]:
                del self._codes[code_id]
            case ["code", "expired"]:
                expiry = (code_id, str(event.data["expires_at"]))
                assert expiry not in self._expired, "an expiry is reported once"
                self._expired.add(expiry)
                assert self._codes[code_id]["status"] == "active", "an inactive code expired"
                self._codes[code_id] = dict(event.data)
            case ["code", what]:
                if what == "exhausted":
                    assert code_id not in self._exhausted, "an exhaustion is reported once"
                    self._exhausted.add(code_id)
                elif event.data["status"] != "exhausted":
                    self._exhausted.discard(code_id)
                self._codes[code_id] = dict(event.data)
            case ["referral", "created"]:
                self._codes[code_id]["uses"] += 1

    def _status(self, code_id: str, now: datetime) -> str:
        """Return the status of the last event; an inactive code expires without an event."""
        status = str(self._codes[code_id]["status"])
        expires_at = datetime.fromisoformat(self._codes[code_id]["expires_at"])
        return "expired" if status != "active" and expires_at <= now else status
