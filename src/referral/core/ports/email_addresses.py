"""Parsing of e-mail addresses."""

from typing import Protocol

from referral.core.entities.users import EmailAddress


class EmailParser(Protocol):
    """Parses e-mail addresses; raises `InvalidRequest` for invalid ones."""

    def parse(self, text: str) -> EmailAddress: ...
