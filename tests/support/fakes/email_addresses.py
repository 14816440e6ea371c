"""A fake of the e-mail parser."""

from referral.core.entities.users import EmailAddress
from referral.core.errors import InvalidRequest


class FakeEmailParser:
    """Accepts any text with an at sign; the canonical form is lower-case."""

    def parse(self, text: str) -> EmailAddress:
        if "@" not in text:
            raise InvalidRequest("Send a valid e-mail address.", field="email")
        return EmailAddress(text, text.lower())
