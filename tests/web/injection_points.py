"""Every input of a request that takes text, and texts that cause harm elsewhere."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx

from tests.support.api_client import API, PASSWORD, Member, new_email

HOSTILE_TEXTS = {
    "empty": "",
    "blank": " \t",
    "NUL": "a\0b",
    "only NUL": "\0",
    "high surrogate": "\ud800",
    "low surrogate": "x\udfff",
    "reversed surrogates": "\udc00\ud800",
    "astral character": "\U0001f4a9",
    "last character": "\U0010ffff",
    "noncharacter": "\uffff",
    "byte-order mark": "\ufeffa",
    "right to left": "\u202eann@example.com",
    "isolate": "\u2066ann\u2069",
    "zero width": "an\u200bn\u200d",
    "soft hyphen": "an\u00adn",
    "combining": "a" + "\u0301" * 200,
    "decomposed": "e\u0301",
    "line breaks": "a\r\nBcc: b@example.com\r\n\r\nbody",
    "line separators": "a\u2028b\u2029c\u0085d\vd\f",
    "encoded word": "=?utf-8?q?ann=0d=0a?=@example.com",
    "encoded word in quotes": '"=?utf-8?b?YW5u?="@example.com',
    "escape sequence": "\x1b[31mred\x07\x7f",
    "fullwidth": "\uff41\uff4e\uff4e@example.com",
    "other digits": "\u0665\u096b\uff15",
    "Turkish i": "\u0130\u0131",
    "sharp s": "STRA\u1e9eE\u00df",
    "ligature": "\ufb03",
    "Kelvin": "\u212aA-2026",
    "SQL": "'; DROP TABLE users; --",
    "LIKE": "%_\\",
    "template": "{{7*7}}${7*7}#{7*7}%s%n%x{0.__class__}",
    "mark-up": "<script>alert(1)</script>",
    "shell": "$(id)`id`|id;id&id",
    "path": "../../../../etc/passwd",
    "encoded path": "..%2f..%2fetc%2fpasswd%00",
    "percent": "%",
    "bad escape": "%zz%c0%af",
    "long text": "x" * 5000,
    "long number": "9" * 4500,
    "float overflow": "1e309",
    "more than 64 bits": "18446744073709551616",
    "negative": "-1",
    "not a number": "NaN",
    "nil UUID": "00000000-0000-0000-0000-000000000000",
    "UUID in braces": "{01938F5E7C1A7B529D3E5F0C8A6B2E41}",
    "UUID urn": "urn:uuid:01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41",
    "year 1": "0001-01-01T00:00:00+14:00",
    "year 9999": "9999-12-31T23:59:59-14:00",
    "leap second": "2026-12-31T23:59:60Z",
    "IP literal": "ann@[127.0.0.1]",
    "two at signs": "a@b@example.com",
    "long local part": "a" * 65 + "@example.com",
    "long domain": "a@" + "b." * 120 + "com",
    "punycode": "a@xn--a.com",
    "invalid punycode": "a@xn--\u00fc.com",
    "quoted": '"a b"@example.com',
    "comment": "ann(x)@example.com",
    "JSON": '{"a": [1, 2]}',
}

BuildRequest = Callable[[Member, str], tuple[str, str, dict[str, Any]]]


def _body(method: str, path: str, field: str, **others: object) -> BuildRequest:
    def send(_: Member, text: str) -> tuple[str, str, dict[str, Any]]:
        # json.dumps escapes non-ASCII characters, so lone surrogates can be sent.
        content = json.dumps(others | {field: text})
        return method, API + path, {"content": content, "headers": JSON}

    return send


def _register(field: str) -> BuildRequest:
    def send(_: Member, text: str) -> tuple[str, str, dict[str, Any]]:
        body = {"email": new_email(), "password": PASSWORD} | {field: text}
        return "POST", f"{API}/auth/register", {"content": json.dumps(body), "headers": JSON}

    return send


def _form(field: str, **others: str) -> BuildRequest:
    def send(_: Member, text: str) -> tuple[str, str, dict[str, Any]]:
        pairs = (others | {field: text}).items()
        content = "&".join(f"{name}={escape(value)}" for name, value in pairs)
        return "POST", f"{API}/auth/token", {"content": content, "headers": FORM}

    return send


def _query(path: str, name: str) -> BuildRequest:
    def send(member: Member, text: str) -> tuple[str, str, dict[str, Any]]:
        return "GET", f"{API}{path.format(member.id)}?{name}={escape(text)}", {}

    return send


def _path(method: str, path: str) -> BuildRequest:
    def send(_: Member, text: str) -> tuple[str, str, dict[str, Any]]:
        return method, path.format(escape(text)), {}

    return send


def escape(text: str) -> str:
    """Percent-encode a text, which may hold lone surrogates."""
    return quote(text, safe="", errors="surrogatepass")


JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TOKEN = {"token": "unknown"}
USER_FIELDS = ("email", "password", "referral_code", "locale", "unknown")
PATHS = (
    ("GET", "/r/{}"),
    ("GET", "/problems/{}"),
    ("GET", "/docs/files/{}"),
    ("GET", "/api/v1/codes/{}/validity"),
    ("GET", "/api/v1/users/{}/referrals"),
    ("GET", "/api/v1/me/codes/{}"),
    ("PATCH", "/api/v1/me/codes/{}"),
    ("DELETE", "/api/v1/me/codes/{}"),
    ("POST", "/api/v1/me/codes/{}/activate"),
    ("GET", "/api/v1/me/codes/{}/qr.svg"),
    ("GET", "/api/v1/me/codes/{}/qr.png"),
    ("GET", "/unsubscribe/{}"),
    ("POST", "/unsubscribe/{}"),
)
LISTS = ("/me/codes", "/me/referrals", "/users/{}/referrals")

INJECTION_POINTS: dict[str, BuildRequest] = {
    **{f"register {name}": _register(name) for name in USER_FIELDS},
    **{f"{path} {name}": _query(path, name) for path in LISTS for name in ("limit", "cursor")},
    **{f"{path} status": _query(path, "status") for path in LISTS},
    **{f"{method} {path}": _path(method, path) for method, path in PATHS},
    "look-up body": _body("POST", "/codes/lookup", "email"),
    "look-up query": _query("/codes/lookup", "email"),
    "locale": _body("PATCH", "/me", "locale"),
    "notifications": _body("PATCH", "/me", "notify_on_referral"),
    "code text": _body("POST", "/me/codes", "code", lifetime_minutes=60, activate=False),
    "code expiry": _body("POST", "/me/codes", "expires_at"),
    "code lifetime": _body("POST", "/me/codes", "lifetime_minutes"),
    "referrer": _body("POST", "/me/referrer", "referral_code"),
    "current password": _body("PUT", "/me/password", "current_password", new_password=PASSWORD),
    "new password": _body("PUT", "/me/password", "new_password", current_password=PASSWORD),
    "account deletion password": _body("DELETE", "/me", "password"),
    "confirmation": _body("POST", "/auth/email/confirm", "token", password=PASSWORD),
    "confirmation password": _body("POST", "/auth/email/confirm", "password", **TOKEN),
    "disowning": _body("POST", "/auth/email/disown", "token"),
    "reset": _body("POST", "/auth/password/reset", "token", new_password=PASSWORD),
    "password reset request": _body("POST", "/auth/password/forgot", "email"),
    "grant": _form("grant_type"),
    "username": _form("username", grant_type="password", password=PASSWORD),
    "password": _form("password", grant_type="password", username="ann@example.com"),
    "refresh token": _form("refresh_token", grant_type="refresh_token"),
    "scope": _form("scope", grant_type="password", username="a", password=PASSWORD),
}


async def send(member: Member, build_request: BuildRequest, text: str) -> httpx.Response:
    """Send a request with the text at an injection point, as the member."""
    method, url, rest = build_request(member, text)
    headers = member.headers | rest.pop("headers", {})
    return await member.client.request(method, url, headers=headers, **rest)
