"""Redirect URIs of OAuth clients: which may be registered, and which match a request.

The rules are those of RFC 6749 (3.1.2), RFC 8252 (7 and 8.3) and RFC 9700 (2.1 and 2.6).
"""

import re
from urllib.parse import SplitResult, urlsplit

from referral.core.errors import InvalidRequest

MAX_REDIRECT_URI_CHARACTERS = 2000
MAX_REDIRECT_URIS = 20

URI_CHARACTERS = re.compile(r"[A-Za-z0-9:/?\[\]@!$&'()*+,;=._~%-]+")
"""The characters of a URI without a fragment (RFC 3986)."""

LOOPBACK_URI = re.compile(r"http://(?P<host>127\.0\.0\.1|\[::1\])(?::\d{1,5})?(?P<rest>[/?].*)?")
"""A URI of a loopback address. The port of a native application differs at every start."""

LOCALHOST = "localhost"


def check_redirect_uri(uri: str) -> str:
    """Return a URI that a client may register, or raise `InvalidRequest`."""
    problem = _find_problem(uri)
    if problem is not None:
        raise InvalidRequest(f"The redirect URI '{uri}' {problem}", field="redirect_uris")
    return uri


def matches(registered: str, requested: str) -> bool:
    """Return whether a request may use a registered URI: exactly this one.

    Only the port of a loopback address may differ (RFC 8252, section 7.3). `localhost` is a name,
    which another machine or program may answer to, so its port may not.
    """
    if registered == requested:
        return True
    ours, theirs = LOOPBACK_URI.fullmatch(registered), LOOPBACK_URI.fullmatch(requested)
    return bool(ours and theirs) and _without_port(registered) == _without_port(requested)


def _without_port(uri: str) -> tuple[str, ...]:
    match = LOOPBACK_URI.fullmatch(uri)
    return match.groups("") if match else (uri,)


def _find_problem(uri: str) -> str | None:
    if len(uri) > MAX_REDIRECT_URI_CHARACTERS:
        return f"is longer than {MAX_REDIRECT_URI_CHARACTERS:,} characters."
    if "#" in uri:
        return "has a fragment. Remove '#' and what follows it."
    if not URI_CHARACTERS.fullmatch(uri):
        return "has characters that a URI cannot have. Percent-encode them."
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 - raises ValueError
    except ValueError:
        return "is not a valid URI."
    return _find_scheme_problem(uri, parts)


def _find_scheme_problem(uri: str, parts: SplitResult) -> str | None:
    if "@" in parts.netloc:
        return "has a user or a password. Remove it."
    is_private = "." in parts.scheme
    is_loopback = parts.hostname == LOCALHOST or LOOPBACK_URI.fullmatch(uri)
    if parts.scheme not in {"https", "http"} and not is_private:
        return (
            "must begin with 'https://', with 'http://127.0.0.1' or 'http://[::1]', or with a "
            "private scheme that is a reversed domain name, as in 'com.example.app:/callback'."
        )
    if not (parts.hostname or is_private):
        return "has no host."
    if parts.scheme == "http" and not is_loopback:
        return "must begin with 'https://': only loopback addresses may use 'http://'."
    return None
