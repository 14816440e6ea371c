"""The URLs that webhooks may have."""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from referral.adapters.webhooks.networks import IpAddress, WebhookNetworks
from referral.core.errors import InvalidRequest

MAX_URL_CHARACTERS = 2048
CACHED_URLS = 1000
MAX_HOST_CHARACTERS = 253
MAX_PORT = 65535
DEFAULT_PORTS = {"http": 80, "https": 443}

# Only one reading of a URL is accepted: no characters that parsers or IDNA treat differently, no
# user, no fragment. `[!-~]` is visible ASCII.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9a-f:.]{{2,45}}\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<target>(?:[/?](?:(?![#\\])[!-~])*)?)",
    re.ASCII | re.IGNORECASE,
)
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


class WebhookUrl(NamedTuple):
    """The parts of a URL; `address` is set if the host is an IP address, `host` is lower case."""

    scheme: str
    host: str
    port: int
    target: str
    address: IpAddress | None

    @property
    def authority(self) -> str:
        """The value of the header `Host`."""
        suffix = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return self.host + suffix


@lru_cache(CACHED_URLS)
def parse_webhook_url(text: str) -> WebhookUrl:
    """Parse a URL; raises `ValueError` with what the client must do."""
    if len(text) > MAX_URL_CHARACTERS:
        message = f"Send a URL of at most {MAX_URL_CHARACTERS} characters."
        raise ValueError(message)
    match = _URL.fullmatch(text)
    if match is None or len(match["host"]) > MAX_HOST_CHARACTERS:
        message = (
            "Send an http:// or https:// URL in ASCII, without user, password, fragment, spaces "
            "or line ends; write an international host name in its form xn--…"
        )
        raise ValueError(message)
    scheme, host = match["scheme"].lower(), match["host"].lower()
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    if not 0 < port <= MAX_PORT:
        message = f"Send a port from 1 to {MAX_PORT}."
        raise ValueError(message)
    target = match["target"]
    target = target if target.startswith("/") else f"/{target}"
    return WebhookUrl(scheme, host, port, target, _parse_literal(host))


class WebhookUrlPolicy:
    """Rejects URLs that no delivery could use. Host names are looked up at the delivery only."""

    def __init__(self, networks: WebhookNetworks) -> None:
        """Take the networks that webhooks may reach."""
        self._networks = networks

    def check(self, url: str) -> None:
        """Raise `InvalidRequest` for a URL that is invalid or leads to a forbidden network."""
        try:
            self._check(parse_webhook_url(url))
        except ValueError as error:
            raise InvalidRequest(str(error), field="url") from error

    def _check(self, url: WebhookUrl) -> None:
        networks, address = self._networks, url.address
        if address is not None and not networks.allows(address):
            raise ValueError("Send a URL with a public address, not one of a special network.")
        may_be_plain = (
            networks.has_allowlist if address is None else networks.is_in_allowlist(address)
        )
        if url.scheme == "http" and not may_be_plain:
            detail = "http:// works only in networks that the operator allows."
            raise ValueError(f"Send an https:// URL; {detail}")


def _parse_literal(host: str) -> IpAddress | None:
    """Return the IP address that the host is, or None for a name.

    A host whose last label is a number is an IPv4 address to browsers and resolvers, in many
    spellings (WHATWG URL, section 3.5): only the usual one is accepted.
    """
    if host.startswith("["):
        try:
            return IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError("Send a valid IPv6 address in the brackets.") from None
    if not _NUMERIC_LABEL.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        return None
    try:
        return ip_address(host)
    except ValueError:
        message = "Write the IPv4 address as four decimal numbers, as in 203.0.113.7."
        raise ValueError(message) from None
