"""Migration of the schema by Alembic."""

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
    """Upgrade the database at a `postgresql://` URL, or raise `Unavailable` for a newer schema.

    The migrations run an event loop of their own: call this from a thread without one.
    """
    from alembic import command  # noqa: PLC0415 - servers do not need its seven megabytes
    from alembic.util import CommandError  # noqa: PLC0415 - as above

    try:
        command.upgrade(make_alembic_config(url), revision)
    except CommandError as error:
        detail = f"The schema cannot be migrated: {error}"
        raise Unavailable(detail) from None


def make_alembic_config(url: str) -> "Config":
    """Return the configuration of Alembic's commands for a database."""
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    folder = next(folder for folder in MIGRATION_FOLDERS if folder.is_dir())
    config.set_main_option("script_location", str(folder))
    config.attributes["url"] = url
    return config
