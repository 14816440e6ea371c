"""Settings are validated all at once, before anything starts."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from referral.adapters.postgres import embedded
from referral.adapters.postgres.hosts import libpq_url, parse_hosts
from referral.adapters.redis.topology import parse_redis_url
from referral.adapters.security.keys import make_key_file
from referral.core.entities.rate_limits import Rate
from referral.settings import InvalidSettingsError, Settings, read_settings, unknown_settings

INVALID_VALUES = {
    "REFERRAL_ACCESS_TOKEN_MINUTES": "0",
    "REFERRAL_CLEARBIT_API_KEY": "two words",
    "REFERRAL_CLEARBIT_URL": "clearbit.example",
    "REFERRAL_DATABASE_URL": "mysql://host/name",
    "REFERRAL_ENRICHMENT": "both",
    "REFERRAL_HUNTER_API_KEY": "a\u00fckey",
    "REFERRAL_HUNTER_URL": "ftp://hunter.example",
    "REFERRAL_LANDING_URL": "javascript:alert(1)",
    "REFERRAL_LIMIT_CODES": "many",
    "REFERRAL_LIMIT_LOOKUP": "120",
    "REFERRAL_LIMIT_MAIL": "5/month",
    "REFERRAL_LIMIT_REGISTER": "20 per minute",
    "REFERRAL_LIMIT_TOKEN": "0/minute",
    "REFERRAL_LOG_FORMAT": "xml",
    "REFERRAL_LOG_LEVEL": "loud",
    "REFERRAL_LOOKUP_ACCESS": "everyone",
    "REFERRAL_PASSWORD_GRANT": "maybe",
    "REFERRAL_PUBLIC_URL": "http://",
    "REFERRAL_REFERRALS_VISIBILITY": "all",
    "REFERRAL_REFRESH_TOKEN_DAYS": "ten",
    "REFERRAL_SIGNING_KEY_FILE": "/nowhere/signing.pem",
}


def load_errors(environment: dict[str, str]) -> list[str]:
    """Return the error lines for these environment variables."""
    with pytest.raises(InvalidSettingsError) as caught:
        read_settings(environment)
    return caught.value.errors


def test_no_setting_is_required() -> None:
    """The defaults use the embedded adapters."""
    assert read_settings({}) == Settings()


def test_empty_variable_counts_as_unset() -> None:
    """Compose files pass empty values."""
    assert read_settings(dict.fromkeys(INVALID_VALUES, " ")) == Settings()


def test_all_errors_are_reported_together() -> None:
    """Each line has the variable's name and an explanation."""
    errors = load_errors(INVALID_VALUES)
    assert {error.partition(":")[0] for error in errors} == set(INVALID_VALUES)
    assert all(len(error.partition(": ")[2]) > 10 for error in errors)


@pytest.mark.parametrize("name", INVALID_VALUES)
def test_single_error_is_one_line(name: str) -> None:
    """One invalid value is one line."""
    assert [error.partition(":")[0] for error in load_errors({name: INVALID_VALUES[name]})] == [
        name
    ]


@pytest.mark.parametrize(
    ("name", "highest"), [("ACCESS_TOKEN_MINUTES", 60), ("REFRESH_TOKEN_DAYS", 30)]
)
@pytest.mark.parametrize("value", ["0", "-1", "61", "1.5", "10 m", "ten", "9" * 5_000])
def test_error_of_a_number_names_its_bounds(name: str, highest: int, value: str) -> None:
    """It says what to write; both bounds themselves are valid."""
    [error] = load_errors({f"REFERRAL_{name}": value})
    assert error == f"REFERRAL_{name}: must be a whole number from 1 to {highest}"
    for bound in (1, highest):
        read = read_settings({f"REFERRAL_{name}": str(bound)})
        assert getattr(read, name.lower()) == bound


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("REFERRAL_PUBLIC_URL", ["example.com", "ftp://example.com", "//example.com"]),
    ],
)
def test_value_out_of_range_is_rejected(name: str, values: list[str]) -> None:
    """Bounds and number formats are checked."""
    for value in values:
        assert load_errors({name: value})[0].startswith(name)


@pytest.mark.parametrize(
    ("value", "smtp_url", "verifies"),
    [
        ("", "", False),
        ("", "smtp://mail.example", True),
        ("on", "", True),
        ("off", "smtp://mail.example", False),
    ],
)
def test_email_verification_follows_smtp(value: str, smtp_url: str, *, verifies: bool) -> None:
    """The default is on with SMTP and off without, where links would only reach files."""
    environment = {"REFERRAL_EMAIL_VERIFICATION": value, "REFERRAL_SMTP_URL": smtp_url}
    assert read_settings(environment).requires_confirmed_email is verifies


def test_all_limits_have_one_format() -> None:
    """Each can be `off`."""
    names = [f"limit_{group}" for group in ("register", "token", "lookup", "mail", "codes")]
    for text in ("7/second", "7/day", "off"):
        settings = read_settings({f"REFERRAL_{name.upper()}": text for name in names})
        assert {getattr(settings, name) for name in names} == {Rate.parse(text)}


@pytest.mark.parametrize("by", ["hunter", "clearbit"])
def test_enrichment_requires_a_key_or_a_url(by: str) -> None:
    """A list of domains cannot enrich."""
    environment, name = {"REFERRAL_ENRICHMENT": by}, f"REFERRAL_{by.upper()}"
    [error] = load_errors(environment)
    assert error.startswith("REFERRAL_ENRICHMENT: ")
    assert f"{name}_API_KEY" in error
    assert read_settings(environment | {f"{name}_API_KEY": "key"}).enrichment == by
    assert read_settings(environment | {f"{name}_URL": "http://127.0.0.1:1"}).enrichment == by


def test_offline_verification_excludes_a_key() -> None:
    """The contradiction is an error, and the key is not repeated."""
    offline = {"REFERRAL_HUNTER_URL": "offline"}
    assert not read_settings(offline).uses_hunter
    [error] = load_errors(offline | {"REFERRAL_HUNTER_API_KEY": "hunter2"})
    assert error.startswith("REFERRAL_HUNTER_URL: ")
    assert "hunter2" not in error
    [error] = load_errors(offline | {"REFERRAL_ENRICHMENT": "hunter"})
    assert error.startswith("REFERRAL_ENRICHMENT: ")


def test_invalid_key_is_not_repeated() -> None:
    """Errors are logged, so they hold no secret."""
    [error] = load_errors({"REFERRAL_HUNTER_API_KEY": "my hunter2"})
    assert "hunter2" not in error


def test_external_database_requires_a_signing_key() -> None:
    """Otherwise two services on one database would sign with different keys."""
    errors = load_errors({"REFERRAL_DATABASE_URL": "postgresql://host/name"})
    assert [error.partition(":")[0] for error in errors] == ["REFERRAL_SIGNING_KEY_FILE"]


@pytest.mark.parametrize("content", ["", "secret", "-----BEGIN PRIVATE KEY-----\n"])
def test_key_file_without_a_key_is_rejected(tmp_path: Path, content: str) -> None:
    """The error names the file and shows none of its content."""
    path = tmp_path / "signing.pem"
    path.write_text(content)
    [error] = load_errors({"REFERRAL_SIGNING_KEY_FILE": str(path)})
    assert str(path) in error
    assert not content or content not in error


def test_password_in_an_invalid_url_is_not_repeated() -> None:
    """Errors are logged, so they hold no secret."""
    [error] = load_errors({"REFERRAL_DATABASE_URL": "mysql://ann:hunter2@host/name"})
    assert "hunter2" not in error


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://ann:hunter2@one,two/name", "begins with postgresql:// or postgres://"),
        ("postgresql://ann:hunter2@one,,two/name", "must have a host"),
        ("postgresql://ann:hunter2@/name", "must have a host"),
        ("postgresql://ann:hunter2@one,two:70000/name", "must have a port number"),
        ("postgresql://ann:hunter2@one,two:x/name", "must have a port number"),
        ("postgresql://ann:hunter2@/name?host=one&host=two", "before its path"),
        ("postgresql://ann:hunter2@/name?host=one,two", "before its path"),
        ("postgresql://ann:hunter2@one/name?target_session_attrs=any", "read-write or primary"),
        ("postgresql://ann:hunter2@one/name?target_session_attrs=standby", "read-write or primary"),
    ],
)
def test_invalid_database_url_is_explained(url: str, reason: str) -> None:
    """Without its password."""
    errors = load_errors({"REFERRAL_DATABASE_URL": url})
    [error] = [error for error in errors if "DATABASE_URL:" in error]
    assert reason in error
    assert "hunter2" not in error


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://one/name", [("one:5432", "postgresql://one/name")]),
        (
            "postgres://ann:a,b@one, two:1/name?target_session_attrs=primary&sslmode=require",
            [
                (f"{host}:{port}", f"postgres://ann:a,b@{url}/name?{query}")
                for query in ["target_session_attrs=primary&sslmode=require"]
                for host, port, url in [("one", 5432, "one"), ("two", 1, "two:1")]
            ],
        ),
        (
            "postgresql://[::1]:1,one/name?pooler=transaction",
            [("[::1]:1", "postgresql://[::1]:1/name"), ("one:5432", "postgresql://one/name")],
        ),
        ("postgresql:///name?host=/run", [("/run", "postgresql:///name?host=/run")]),
        (
            "postgresql://ann@/name?host=one&port=2",
            [("one:2", "postgresql://ann@/name?host=one&port=2")],
        ),
    ],
)
def test_database_url_names_hosts(url: str, hosts: list[tuple[str, str]]) -> None:
    """Each host has a URL of its own."""
    assert [(str(host), host.url) for host in parse_hosts(url)] == hosts


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://one/name", "postgresql://one/name"),
        ("postgresql://one,two/x", "postgresql://one,two/x?target_session_attrs=read-write"),
        ("postgresql://a,b/x?ssl=on", "postgresql://a,b/x?ssl=on&target_session_attrs=read-write"),
        (
            "postgresql://one,two/x?target_session_attrs=primary",
            "postgresql://one,two/x?target_session_attrs=primary",
        ),
    ],
)
def test_other_libraries_find_the_primary_too(url: str, expected: str) -> None:
    """By a parameter that libpq and asyncpg know."""
    assert libpq_url(url) == expected


def test_several_database_hosts_are_accepted(tmp_path: Path) -> None:
    """With IPv6 addresses, and behind poolers."""
    key = tmp_path / "key.pem"
    make_key_file(key)
    for url in (
        "postgresql://one,two:1,[::1]:2/name",
        "postgresql://one,[::1]/x?pooler=transaction",
    ):
        settings = read_settings(
            {
                "REFERRAL_DATABASE_URL": url,
                "REFERRAL_SIGNING_KEY_FILE": str(key),
                "REFERRAL_WORKER": "off",
            }
        )
        assert settings.database_url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://ann:hunter2@one:6379,two:6379/0", "must name one host"),
        ("redis+sentinel://ann:hunter2@one,two", "must name the primary"),
        ("redis+sentinel://ann:hunter2@one,two/name/first", "must have a number as its database"),
        ("redis+cluster://ann:hunter2@one,two/0", "must have no path"),
        ("redis+cluster://ann:hunter2@one,,two", "must have a host"),
        ("redis+cluster://ann:hunter2@one:70000", "must have a port number"),
        ("rediss://ann:hunter2@one/0?ssl_check_hostname=&db=x", "must have valid options"),
        ("redis+other://ann:hunter2@one", "redis:// or rediss:// or redis+sentinel://"),
    ],
)
def test_invalid_redis_url_is_explained(url: str, reason: str) -> None:
    """Without its password."""
    [error] = load_errors({"REFERRAL_REDIS_URL": url})
    assert error.startswith("REFERRAL_REDIS_URL: ")
    assert reason in error
    assert "hunter2" not in error


@pytest.mark.parametrize(
    ("url", "hosts", "name"),
    [
        ("redis://one", (("one", 6379),), ""),
        ("redis://ann:a,b@[::1]:1/3", (("::1", 1),), ""),
        ("rediss+sentinel://ann:x@one,two:1/name/3", (("one", 26379), ("two", 1)), "name"),
        ("redis+cluster://one, two:1", (("one", 6379), ("two", 1)), ""),
    ],
)
def test_redis_url_names_hosts_and_ports(
    url: str, hosts: tuple[tuple[str, int], ...], name: str
) -> None:
    """Each host has a port of its own."""
    location = parse_redis_url(url)
    assert (location.hosts, location.service_name) == (hosts, name)
    assert location.options.get("db", 0) == (3 if url.endswith("/3") else 0)
    assert location.options["ssl"] == url.startswith("rediss")


@pytest.mark.parametrize("url", ["postgresql://ann:hun/ter2@host/name", "redis://h:hunter2/0"])
def test_invalid_port_is_not_repeated(url: str) -> None:
    """It may be part of a password that was not percent-encoded."""
    name = "REFERRAL_DATABASE_URL" if url.startswith("postgresql") else "REFERRAL_REDIS_URL"
    error = next(error for error in load_errors({name: url}) if error.startswith(name))
    assert error == f"{name}: must have a port number from 0 to 65535"


def test_comma_in_a_password_is_no_second_host(key_file: Path) -> None:
    """Only the part after `@` names hosts."""
    url = "postgresql://ann:one,two@host/name"
    environment = {"REFERRAL_DATABASE_URL": url, "REFERRAL_SIGNING_KEY_FILE": str(key_file)}
    assert read_settings(environment).database_url == url


def test_trailing_slash_of_the_public_url_is_removed() -> None:
    """Links would otherwise have two slashes."""
    settings = read_settings({"REFERRAL_PUBLIC_URL": "https://example.com/"})
    assert settings.public_url == "https://example.com"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/referral",
        "https://example.com/?a=b",
        "https://example.com/#top",
        "https://ann:hunter2@example.com",
    ],
)
def test_public_url_is_an_origin(url: str) -> None:
    """Docs, pages and cookies are at the root of a host; the error says what to do."""
    [error] = load_errors({"REFERRAL_PUBLIC_URL": url})
    assert error.startswith("REFERRAL_PUBLIC_URL: must have no path, query or user, as in https://")
    assert "hunter2" not in error


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("LOG_LEVEL", "debug, info, warning, error"),
        ("LOG_FORMAT", "console, json"),
        ("REFERRALS_VISIBILITY", "open, redacted, owner"),
    ],
)
def test_error_of_a_choice_names_the_choices(name: str, choices: str) -> None:
    """Of literals, optional literals and enums."""
    [error] = load_errors({f"REFERRAL_{name}": "loud"})
    assert error == f"REFERRAL_{name}: must be one of: {choices}"


def test_unknown_setting_is_reported() -> None:
    """A misspelt name is not ignored."""
    environment = {"REFERRAL_PUBLIC_ULR": "x", "REFERRAL_LOG_LEVEL": "info", "HOME": "/"}
    assert unknown_settings(environment) == ["REFERRAL_PUBLIC_ULR"]


async def test_command_exits_with_2_and_creates_nothing(tmp_path: Path) -> None:
    """Errors are on standard error, without a traceback."""
    folder = tmp_path / "data"
    environment = os.environ | INVALID_VALUES | {"REFERRAL_DATA_DIR": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "referral", "run"),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await process.communicate()
    lines = output.decode().splitlines()
    assert process.returncode == 2
    assert {line.partition(":")[0] for line in lines} == set(INVALID_VALUES)
    assert not folder.exists()


def test_database_url_is_required_without_the_embedded_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The container image has no embedded database."""
    monkeypatch.setattr(embedded, "POSTGRES_PACKAGE", "no_such_package")
    assert [error.partition(":")[0] for error in load_errors({})] == ["REFERRAL_DATABASE_URL"]


def test_inline_worker_rejects_a_pooler(key_file: Path) -> None:
    """A transaction pooler breaks LISTEN, so the worker needs a direct URL."""
    url = "postgresql://host/name?sslmode=require&pooler=transaction"
    pooled = {"REFERRAL_DATABASE_URL": url, "REFERRAL_SIGNING_KEY_FILE": str(key_file)}
    assert [error.partition(":")[0] for error in load_errors(pooled)] == ["REFERRAL_WORKER"]
    assert read_settings(pooled | {"REFERRAL_WORKER": "off"}).database_url == url


AUDIENCE = {"REFERRAL_TRUSTED_AUDIENCE": "shop"}


@pytest.mark.parametrize(
    "issuer",
    ["https://id.example", "https://shop.eu.auth0.com/", "https://id.example:8443/realms/shop",
     "http://127.0.0.1:9000", "http://[::1]:9000/shop", "http://localhost:8080/realms/shop"],
)  # fmt: skip
def test_issuer_is_kept_as_written(issuer: str) -> None:
    """A slash at its end is a part of it; several are separated by commas."""
    issuers = f"{issuer}, https://other.example"
    read = read_settings({"REFERRAL_TRUSTED_ISSUERS": issuers} | AUDIENCE)
    assert read.trusted_issuers == (issuer, "https://other.example")
    assert read.uses_third_parties


@pytest.mark.parametrize(
    "issuer",
    ["http://id.example", "http://10.0.0.1", "http://127.0.0.1.example", "id.example", "ftp://a.b",
     "https://", "https://id.example?a=b", "https://id.example#a", "https://me@id.example",
     "https://id.example/a b", "https://id.example:port", "http://127.0.0.1:8000"],
)  # fmt: skip
def test_issuer_that_cannot_be_trusted_is_rejected(issuer: str) -> None:
    """Without https, without a host, with more than a path, or the service itself."""
    [error] = load_errors({"REFERRAL_TRUSTED_ISSUERS": issuer} | AUDIENCE)
    assert error.startswith("REFERRAL_TRUSTED_ISSUERS: ")


def test_issuers_require_an_audience() -> None:
    """Otherwise a token for any other service would be accepted."""
    [error] = load_errors({"REFERRAL_TRUSTED_ISSUERS": "https://id.example"})
    assert error.startswith("REFERRAL_TRUSTED_AUDIENCE: is required")
