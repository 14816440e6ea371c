"""Bringing the schema up to date, by Alembic."""

from pathlib import Path
from typing import TYPE_CHECKING

from referral.core.errors import Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATION_FOLDERS = (
    Path(__file__).parents[2] / "migrations",  # in the wheel
    Path(__file__).parents[4] / "migrations",  # in the repository
)


def migrate(url: str, revision: str = "head") -> None:
    """Upgrade the database at a `postgresql://` URL; runs its own event loop, so call it from
    a thread that has none. Raises `Unavailable` for a schema of a later release.
    """
    from alembic import command  # noqa: PLC0415 - a server has no use for its seven megabytes
    from alembic.util import CommandError  # noqa: PLC0415 - as above

    try:
        command.upgrade(make_alembic_config(url), revision)
    except CommandError as error:
        detail = f"The schema cannot be migrated: {error}"
        raise Unavailable(detail) from None


def make_alembic_config(url: str) -> "Config":
    """Return what Alembic's commands need to know."""
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(next(p for p in MIGRATION_FOLDERS if p.is_dir())))
    config.attributes["url"] = url
    return config
