"""What follows from the settings: folders, addresses, rates, and the parts in use."""

import os
from pathlib import Path

from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.third_parties.guarded_client import RATE_BUDGET
from referral.core.entities.rate_limits import Rate, RateLimitGroup, network_rates
from referral.core.policies.login_throttle import login_throttle_rates
from referral.settings import HUNTER_OFFLINE, Settings

PROCESS_COUNT_ENV = "WEB_CONCURRENCY"
"""The variable by which `referral run` tells its processes how many they are."""

THIRD_PARTY_NAMES = {"off": "off", "hunter": "EmailHunter", "clearbit": "Clearbit"}


def process_count() -> int:
    """Return how many processes of this service serve."""
    return int(os.environ.get(PROCESS_COUNT_ENV, "1"))


def metrics_folder(settings: Settings) -> Path:
    """Return where the processes of this service write their figures."""
    return settings.data_dir / "metrics"


def private_folders(settings: Settings) -> list[Path]:
    """Return the folders of the data folder where the service writes itself."""
    keys = [] if settings.signing_key_file else [settings.signing_key_files[0].parent]
    mail = [] if settings.smtp_url else [mail_folder(settings)]
    return [*keys, *mail]


def mail_folder(settings: Settings) -> Path:
    """Return where mails are written to when no SMTP server is set."""
    return settings.data_dir / "mail"


def embedded_postgres(settings: Settings) -> EmbeddedPostgres | None:
    """Return the embedded server when no other database is set."""
    if settings.database_url is not None:
        return None
    return EmbeddedPostgres(settings.data_dir / "postgres")


def database_url(settings: Settings) -> str:
    """Return where the database is, embedded or not."""
    embedded = embedded_postgres(settings)
    return settings.database_url or (embedded.url if embedded else "")


def rates_by_group(settings: Settings) -> dict[RateLimitGroup, Rate]:
    """Return the rate of every group: those of the settings, and those that follow from them."""
    by_client_ip = {
        RateLimitGroup.REGISTER: settings.limit_register,
        RateLimitGroup.TOKEN: settings.limit_token,
        RateLimitGroup.LOOKUP: settings.limit_lookup,
    }
    return {
        **by_client_ip,
        **network_rates(by_client_ip),
        RateLimitGroup.CODES: settings.limit_codes,
        **login_throttle_rates(settings.limit_token),
        **RATE_BUDGET,
    }


def parts_in_use(settings: Settings) -> dict[str, str]:
    """Say which parts the settings pick, for the start-up log; no address, no password."""
    embedded = f"embedded, in {settings.data_dir / 'postgres'}"
    return {
        "database": "PostgreSQL" if settings.database_url else embedded,
        "cache": "Redis" if settings.redis_url else "in each process",
        "limits": "Redis" if settings.redis_url else "in each process",
        "mail": "SMTP" if settings.smtp_url else f"files, in {mail_folder(settings)}",
        "verification": _verification(settings),
        "enrichment": THIRD_PARTY_NAMES[settings.enrichment],
        "worker": "in this process" if settings.worker == "inline" else "off",
    }


def _verification(settings: Settings) -> str:
    if settings.uses_hunter:
        return THIRD_PARTY_NAMES["hunter"]
    return (
        "a list of disposable domains"
        if settings.hunter_url == HUNTER_OFFLINE
        else THIRD_PARTY_NAMES["off"]
    )
