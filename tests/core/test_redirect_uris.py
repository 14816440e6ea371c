"""Which redirect URIs a client may register, and which requests may use them."""

import pytest

from referral.core.entities.redirect_uris import (
    MAX_REDIRECT_URI_CHARACTERS,
    check_redirect_uri,
    matches,
)
from referral.core.errors import Invalid

REGISTERED = "https://app.example.com/callback"


@pytest.mark.parametrize(
    "uri",
    [
        REGISTERED,
        "https://app.example.com:8443/callback?tenant=1",
        "https://app.example.com",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:3000/callback",
        "http://[::1]:3000/callback",
        "http://localhost:5173/callback",
        "com.example.app:/callback",
        "com.example.app://callback",
    ],
)
def test_redirect_uri_is_accepted(uri: str) -> None:
    """Web applications, native ones on loopback, and private schemes."""
    assert check_redirect_uri(uri) == uri
    assert matches(uri, uri)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("https://app.example.com/#done", "fragment"),
        ("https://app.example.com/#", "fragment"),
        ("javascript:alert(1)", "must begin with"),
        ("JavaScript:alert(1)", "must begin with"),
        ("data:text/html,x", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("myapp:/callback", "must begin with"),
        ("//app.example.com/callback", "must begin with"),
        ("/callback", "must begin with"),
        ("", "characters"),
        ("https://app.example.com/ü", "characters"),
        ("https://app.example.com/a b", "characters"),
        ("https://app.example.com/\n", "characters"),
        ("https://app.example.com\\@evil.example", "characters"),
        ("https:///callback", "no host"),
        ("https:callback", "no host"),
        ("https://user@app.example.com/", "user"),
        ("https://app.example.com:port/", "valid"),
        ("https://app.example.com:99999/", "valid"),
        ("https://[::1/", "valid"),
        ("http://app.example.com/callback", "https"),
        ("http://127.0.0.1.example.com/callback", "https"),
        ("http://127.0.0.2/callback", "https"),
        ("http://localhost.example.com/", "https"),
        ("https://a.example/" + "x" * MAX_REDIRECT_URI_CHARACTERS, "longer"),
    ],
)
def test_redirect_uri_is_refused(uri: str, reason: str) -> None:
    """The error says why, and names the field."""
    with pytest.raises(Invalid) as refused:
        check_redirect_uri(uri)
    assert reason in refused.value.detail
    assert refused.value.field == "redirect_uris"


@pytest.mark.parametrize(
    "requested",
    [
        REGISTERED + "/",
        REGISTERED + "?x=1",
        REGISTERED + "#",
        REGISTERED.upper(),
        "https://app.example.com:443/callback",
        "https://app.example.com/callback/../callback",
        "https://app.example.com.evil.example/callback",
        "http://app.example.com/callback",
        "",
    ],
)
def test_other_uri_does_not_match(requested: str) -> None:
    """The comparison is exact (RFC 9700, section 2.1)."""
    assert not matches(REGISTERED, requested)


@pytest.mark.parametrize(
    ("registered", "requested", "expected"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/cb", True),
        ("http://127.0.0.1:3000/cb", "http://127.0.0.1:49152/cb", True),
        ("http://127.0.0.1:3000/cb?a=1", "http://127.0.0.1/cb?a=1", True),
        ("http://[::1]/cb", "http://[::1]:49152/cb", True),
        ("http://127.0.0.1", "http://127.0.0.1:49152", True),
        ("http://127.0.0.1/cb", "http://[::1]:49152/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/other", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/cb?a=1", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152@evil.example/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1.evil.example/cb", False),
        ("http://127.0.0.1/cb", "https://127.0.0.1:49152/cb", False),
        ("http://localhost:3000/cb", "http://localhost:49152/cb", False),
        ("http://localhost/cb", "http://127.0.0.1/cb", False),
        ("https://app.example.com/cb", "https://app.example.com:8443/cb", False),
    ],
)
def test_only_the_port_of_a_loopback_address_may_differ(
    registered: str, requested: str, *, expected: bool
) -> None:
    """A native application gets a free port at its start (RFC 8252, section 7.3)."""
    assert matches(registered, requested) is expected
