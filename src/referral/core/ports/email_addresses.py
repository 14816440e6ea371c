"""E-mail addresses out of text."""

from typing import Protocol

from referral.core.entities.users import EmailAddress


class EmailParser(Protocol):
    """E-mail addresses out of text; raises `InvalidRequest` for what is none."""

    def parse(self, text: str) -> EmailAddress: ...
