"""The public URLs of the service and of the pages that the operator configured."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

ACCOUNT_PATH = "/account"
JOIN_PATH = "/join"
LOGIN_PATH = "/login"
"""The paths of the service's own pages that others lead to."""


@dataclass(frozen=True, slots=True)
class PublicUrls:
    """Builds the URLs that clients and recipients of mails see."""

    public_url: str
    landing_url: str
    confirm_url: str
    reset_url: str

    def share(self, code: str) -> str:
        """Return the share link of a code."""
        return f"{self.public_url}/r/{quote(code)}"

    def landing(self, code: str | None) -> str:
        """Return the landing page, with the code as `ref` if there is one."""
        return self.landing_url if code is None else _with_query(self.landing_url, "ref", code)

    def home(self) -> str:
        """Return the landing page; `/join` if that is the root itself, or a page of the service.

        A path stays on the host name by which the browser opened the service.
        """
        if self.landing_url == self.public_url:
            return JOIN_PATH
        return self.landing_url.removeprefix(self.public_url)

    def authorize(self) -> str:
        """Return the authorization endpoint (RFC 6749, section 3.1)."""
        return f"{self.public_url}/oauth/authorize"

    def docs(self) -> str:
        """Return the API documentation."""
        return f"{self.public_url}/docs"

    def unsubscribe(self, token: str) -> str:
        """Return the page that unsubscribes the token's user from notifications."""
        return f"{self.public_url}/unsubscribe/{token}"

    def confirm(self, token: str) -> str:
        """Return the page that confirms an e-mail address."""
        return _with_query(self.confirm_url, "token", token)

    def reset(self, token: str) -> str:
        """Return the page that sets a new password."""
        return _with_query(self.reset_url, "token", token)


def _with_query(url: str, name: str, value: str) -> str:
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, f"{name}={quote(value)}") if part)
    return urlunsplit(parts._replace(query=query))
