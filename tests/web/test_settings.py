"""Settings are checked all at once, before anything is started."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from referral.adapters.postgres import embedded
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
    """Return the lines of fault that an environment gets."""
    with pytest.raises(InvalidSettingsError) as caught:
        read_settings(environment)
    return caught.value.errors


def test_nothing_needs_to_be_set() -> None:
    """Without any variable the embedded parts are picked."""
    assert read_settings({}) == Settings()


def test_an_empty_variable_is_an_unset_one() -> None:
    """Compose files pass empty values on."""
    assert read_settings(dict.fromkeys(INVALID_VALUES, " ")) == Settings()


def test_every_fault_is_told_at_once_by_name() -> None:
    """Nobody has to start the service once for each fault."""
    faults = load_errors(INVALID_VALUES)
    assert {fault.partition(":")[0] for fault in faults} == set(INVALID_VALUES)
    assert all(len(fault.partition(": ")[2]) > 10 for fault in faults)


@pytest.mark.parametrize("name", INVALID_VALUES)
def test_each_fault_alone_is_told(name: str) -> None:
    """One line for one fault."""
    assert [fault.partition(":")[0] for fault in load_errors({name: INVALID_VALUES[name]})] == [
        name
    ]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("REFERRAL_ACCESS_TOKEN_MINUTES", ["-1", "61", "1.5", "10 m"]),
        ("REFERRAL_REFRESH_TOKEN_DAYS", ["0", "31"]),
        ("REFERRAL_PUBLIC_URL", ["example.com", "ftp://example.com", "//example.com"]),
    ],
)
def test_values_out_of_range_are_refused(name: str, values: list[str]) -> None:
    """Bounds hold, and a number is a number."""
    for value in values:
        assert load_errors({name: value})[0].startswith(name)


@pytest.mark.parametrize(
    ("set_to", "smtp_url", "verifies"),
    [
        ("", "", False),
        ("", "smtp://mail.example", True),
        ("on", "", True),
        ("off", "smtp://mail.example", False),
    ],
)
def test_addresses_are_verified_where_mail_arrives(
    set_to: str, smtp_url: str, *, verifies: bool
) -> None:
    """Unless the operator says otherwise; where mails are files nobody could follow a link."""
    environment = {"REFERRAL_EMAIL_VERIFICATION": set_to, "REFERRAL_SMTP_URL": smtp_url}
    assert read_settings(environment).requires_confirmed_email is verifies


def test_every_limit_is_written_in_one_form() -> None:
    """And each can be switched off."""
    names = [f"limit_{group}" for group in ("register", "token", "lookup", "mail", "codes")]
    for text in ("7/second", "7/day", "off"):
        settings = read_settings({f"REFERRAL_{name.upper()}": text for name in names})
        assert {getattr(settings, name) for name in names} == {Rate.parse(text)}


@pytest.mark.parametrize("by", ["hunter", "clearbit"])
def test_enrichment_needs_someone_to_ask(by: str) -> None:
    """A key, or a server of one's own; a list of domains knows nobody."""
    wanted, name = {"REFERRAL_ENRICHMENT": by}, f"REFERRAL_{by.upper()}"
    [fault] = load_errors(wanted)
    assert fault.startswith("REFERRAL_ENRICHMENT: ")
    assert f"{name}_API_KEY" in fault
    assert read_settings(wanted | {f"{name}_API_KEY": "key"}).enrichment == by
    assert read_settings(wanted | {f"{name}_URL": "http://127.0.0.1:1"}).enrichment == by


def test_a_list_of_domains_has_no_use_for_a_key() -> None:
    """Whoever sets both is told, and does not wonder later what is in use."""
    offline = {"REFERRAL_HUNTER_URL": "offline"}
    assert not read_settings(offline).uses_hunter
    [fault] = load_errors(offline | {"REFERRAL_HUNTER_API_KEY": "hunter2"})
    assert fault.startswith("REFERRAL_HUNTER_URL: ")
    assert "hunter2" not in fault
    [fault] = load_errors(offline | {"REFERRAL_ENRICHMENT": "hunter"})
    assert fault.startswith("REFERRAL_ENRICHMENT: ")


def test_a_bad_key_is_not_repeated() -> None:
    """Faults end up in logs."""
    [fault] = load_errors({"REFERRAL_HUNTER_API_KEY": "my hunter2"})
    assert "hunter2" not in fault


def test_a_database_of_ones_own_needs_a_key_of_ones_own() -> None:
    """Two services on one database would otherwise sign with a key each."""
    faults = load_errors({"REFERRAL_DATABASE_URL": "postgresql://host/name"})
    assert [fault.partition(":")[0] for fault in faults] == ["REFERRAL_SIGNING_KEY_FILE"]


@pytest.mark.parametrize("content", ["", "secret", "-----BEGIN PRIVATE KEY-----\n"])
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    """The fault names the file, and shows nothing of what is in it."""
    path = tmp_path / "signing.pem"
    path.write_text(content)
    [fault] = load_errors({"REFERRAL_SIGNING_KEY_FILE": str(path)})
    assert str(path) in fault
    assert not content or content not in fault


def test_a_password_in_a_bad_url_is_not_repeated() -> None:
    """Faults end up in logs."""
    [fault] = load_errors({"REFERRAL_DATABASE_URL": "mysql://ann:hunter2@host/name"})
    assert "hunter2" not in fault


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE", "postgresql://ann:hunter2@one,two/name"),
        ("DATABASE", "postgresql://ann:hunter2@one:5432,two:5433/name"),
        ("DATABASE", "postgresql://ann:hunter2@/name?host=one&host=two"),
        ("DATABASE", "postgresql://ann:hunter2@/name?host=one:5432,two:5433"),
        ("REDIS", "redis://ann:hunter2@one:6379,two:6379/0"),
    ],
)
def test_several_hosts_are_refused_in_words(name: str, url: str) -> None:
    """One host is supported; a start with more ends before it has begun."""
    fault = f"REFERRAL_{name}_URL: names several hosts; only one is supported"
    assert fault in load_errors({f"REFERRAL_{name}_URL": url})


@pytest.mark.parametrize("url", ["postgresql://ann:hun/ter2@host/name", "redis://h:hunter2/0"])
def test_a_port_that_is_no_number_is_not_repeated(url: str) -> None:
    """It may be a part of a password that was not percent-encoded."""
    name = "REFERRAL_DATABASE_URL" if url.startswith("postgresql") else "REFERRAL_REDIS_URL"
    fault = next(fault for fault in load_errors({name: url}) if fault.startswith(name))
    assert fault == f"{name}: has no port number from 0 to 65535"


def test_a_password_with_a_comma_is_no_second_host(key_file: Path) -> None:
    """Only what follows the `@` names hosts."""
    url = "postgresql://ann:one,two@host/name"
    told = {"REFERRAL_DATABASE_URL": url, "REFERRAL_SIGNING_KEY_FILE": str(key_file)}
    assert read_settings(told).database_url == url


def test_a_public_address_loses_its_last_slash() -> None:
    """Links are put together with one slash, not two."""
    settings = read_settings({"REFERRAL_PUBLIC_URL": "https://example.com/"})
    assert settings.public_url == "https://example.com"


def test_a_name_that_is_no_setting_is_told() -> None:
    """A slip of the pen is not passed over in silence."""
    environment = {"REFERRAL_PUBLIC_ULR": "x", "REFERRAL_LOG_LEVEL": "info", "HOME": "/"}
    assert unknown_settings(environment) == ["REFERRAL_PUBLIC_ULR"]


async def test_the_command_ends_with_2_and_starts_nothing(tmp_path: Path) -> None:
    """Every fault is on standard error, in words and without a traceback."""
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


def test_without_the_embedded_database_another_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image for containers has none, and says so instead of failing later."""
    monkeypatch.setattr(embedded, "POSTGRES_PACKAGE", "no_such_package")
    assert [fault.partition(":")[0] for fault in load_errors({})] == ["REFERRAL_DATABASE_URL"]


def test_jobs_are_not_done_by_way_of_a_pooler(key_file: Path) -> None:
    """LISTEN passes none, so the API is to leave jobs to a worker with a direct address."""
    url = "postgresql://host/name?sslmode=require&pooler=transaction"
    pooled = {"REFERRAL_DATABASE_URL": url, "REFERRAL_SIGNING_KEY_FILE": str(key_file)}
    assert [fault.partition(":")[0] for fault in load_errors(pooled)] == ["REFERRAL_WORKER"]
    assert read_settings(pooled | {"REFERRAL_WORKER": "off"}).database_url == url
