"""The addresses that codes lead to."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit


@dataclass(frozen=True, slots=True)
class PublicUrls:
    """Links of this service, and to the landing page of whoever runs it."""

    public_url: str
    landing_url: str
    confirm_url: str
    reset_url: str

    def share(self, code: str) -> str:
        """Return the link that a referrer passes on."""
        return f"{self.public_url}/r/{quote(code)}"

    def landing(self, code: str | None) -> str:
        """Return the landing page, told the code where there is one in force."""
        return self.landing_url if code is None else _with_query(self.landing_url, "ref", code)

    def docs(self) -> str:
        """Return the page that describes the API."""
        return f"{self.public_url}/docs"

    def unsubscribe(self, token: str) -> str:
        """Return the page that ends the notifications to whoever the token is for."""
        return f"{self.public_url}/unsubscribe/{token}"

    def confirm(self, token: str) -> str:
        """Return the page that confirms an address."""
        return _with_query(self.confirm_url, "token", token)

    def reset(self, token: str) -> str:
        """Return the page that sets a new password."""
        return _with_query(self.reset_url, "token", token)


def _with_query(url: str, name: str, value: str) -> str:
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, f"{name}={quote(value)}") if part)
    return urlunsplit(parts._replace(query=query))
