"""Values derived from the settings: folders, the database's URL, rates, the adapters in use."""

import os
from pathlib import Path

from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.third_parties.guarded_client import RATE_BUDGET
from referral.core.entities.rate_limits import Rate, RateLimitGroup, network_rates
from referral.core.policies.login_throttle import login_throttle_rates
from referral.settings import HUNTER_OFFLINE, Settings

PROCESS_COUNT_ENV = "WEB_CONCURRENCY"
"""The variable in which `referral run` passes the number of server processes to each of them."""

THIRD_PARTY_NAMES = {"off": "off", "hunter": "EmailHunter", "clearbit": "Clearbit"}


def process_count() -> int:
    """Return how many server processes run."""
    return int(os.environ.get(PROCESS_COUNT_ENV, "1"))


def metrics_folder(settings: Settings) -> Path:
    """Return the folder in which the server processes share their metrics."""
    return settings.data_dir / "metrics"


def private_folders(settings: Settings) -> list[Path]:
    """Return the folders below the data folder that the service writes keys and mails to."""
    keys = [] if settings.signing_key_file else [settings.signing_key_files[0].parent]
    mail = [] if settings.smtp_url else [mail_folder(settings)]
    return [*keys, *mail]


def mail_folder(settings: Settings) -> Path:
    """Return the folder for mails when `REFERRAL_SMTP_URL` is not set."""
    return settings.data_dir / "mail"


def embedded_postgres(settings: Settings) -> EmbeddedPostgres | None:
    """Return the embedded server, or None when `REFERRAL_DATABASE_URL` is set."""
    if settings.database_url is not None:
        return None
    return EmbeddedPostgres(settings.data_dir / "postgres")


def database_url(settings: Settings) -> str:
    """Return the URL of the database, embedded or not."""
    embedded = embedded_postgres(settings)
    return settings.database_url or (embedded.url if embedded else "")


def rates_by_group(settings: Settings) -> dict[RateLimitGroup, Rate]:
    """Return the rate of every group, set or derived from a setting."""
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


def adapters_in_use(settings: Settings) -> dict[str, str]:
    """Describe the adapters in use for the start-up log, without URLs and passwords."""
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
    if settings.hunter_url == HUNTER_OFFLINE:
        return "a list of disposable domains"
    return THIRD_PARTY_NAMES["off"]
