"""Login sessions: the logins of browsers on the pages."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

LOGIN_SESSION_LIFETIME = timedelta(hours=24)
"""How long a browser stays logged in to the pages, used or not."""


@dataclass(frozen=True, slots=True)
class LoginSession:
    """A login of a browser on the pages; the digest is that of its cookie."""

    digest: bytes
    user_id: UUID
    created_at: datetime
    expires_at: datetime
