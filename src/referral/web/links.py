"""The addresses that codes lead to."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit


@dataclass(frozen=True, slots=True)
class Links:
    """Links of this service, and to the landing page of whoever runs it."""

    public_url: str
    landing_url: str

    def share(self, code: str) -> str:
        """Return the link that a referrer passes on."""
        return f"{self.public_url}/r/{quote(code)}"

    def landing(self, code: str | None) -> str:
        """Return the landing page, told the code where there is one in force."""
        if code is None:
            return self.landing_url
        parts = urlsplit(self.landing_url)
        query = "&".join(part for part in (parts.query, f"ref={quote(code)}") if part)
        return urlunsplit(parts._replace(query=query))

    def docs(self) -> str:
        """Return the page that describes the API."""
        return f"{self.public_url}/docs"

    def unsubscribe(self, token: str) -> str:
        """Return the page that ends the notifications to whoever the token is for."""
        return f"{self.public_url}/unsubscribe/{token}"
