"""The hosts in the database's URL."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from referral.adapters.postgres import pooler

DEFAULT_PORT = 5432
WRITABLE_TARGETS = {"read-write", "primary"}
"""The values of `target_session_attrs` that name a server that takes writes."""

URL_PATTERN = re.compile(
    r"(?P<scheme>postgres(ql)?://)(?P<user>([^/?#]*@)?)(?P<hosts>[^/?#@]*)(?P<rest>.*)"
)


@dataclass(frozen=True, slots=True)
class Host:
    """A host with its port, or the folder of a Unix socket, and the URL of this host alone."""

    name: str
    url: str = field(repr=False)

    def __str__(self) -> str:
        """Return the name."""
        return self.name


def parse_hosts(url: str) -> tuple[Host, ...]:
    """Parse `REFERRAL_DATABASE_URL`; raises `ValueError` with a reason that has no password."""
    parts = URL_PATTERN.fullmatch(url)
    if parts is None:
        raise ValueError("must be a URL that begins with postgresql:// or postgres://")
    query = parse_qs(parts["rest"].partition("?")[2])
    if not WRITABLE_TARGETS.issuperset(query.get("target_session_attrs", ())):
        raise ValueError("must have read-write or primary as its target_session_attrs, or none")
    if not parts["hosts"]:
        return (Host(_name_in_query(query), pooler.driver_url(url)),)
    return tuple(
        Host(
            _name_of(host),
            pooler.driver_url(f"{parts['scheme']}{parts['user']}{host}{parts['rest']}"),
        )
        for host in map(str.strip, parts["hosts"].split(","))
    )


def libpq_url(url: str) -> str:
    """Return a URL with which a library finds the primary, if it knows libpq's parameters."""
    if len(parse_hosts(url)) == 1 or "target_session_attrs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}target_session_attrs=read-write"


def _name_in_query(query: dict[str, list[str]]) -> str:
    hosts = query.get("host", [])
    if not hosts:
        raise ValueError("must have a host")
    if len(hosts) > 1 or "," in hosts[0]:
        raise ValueError("must name several hosts before its path: postgresql://a,b:5433/referral")
    port = query.get("port", [DEFAULT_PORT])[0]
    return hosts[0] if hosts[0].startswith("/") else f"{hosts[0]}:{port}"


def _name_of(text: str) -> str:
    try:
        parsed = urlsplit(f"//{text}")
        port = DEFAULT_PORT if parsed.port is None else parsed.port
    except ValueError:
        raise ValueError("must have a port number from 0 to 65535") from None
    if not parsed.hostname:
        raise ValueError("must have a host")
    return f"[{parsed.hostname}]:{port}" if ":" in parsed.hostname else f"{parsed.hostname}:{port}"
