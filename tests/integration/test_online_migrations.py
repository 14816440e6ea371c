"""A migration of the next release while this release serves."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from referral.adapters.postgres.migrations import make_alembic_config
from tests.support.service_process import running_service
from tests.support.steady_load import steady_load
from tests.support.waiting import measure_thread_time, wait_until

NEXT_RELEASE = '''
"""What a release may do: add a column, and an index on existing rows."""
from alembic import op
revision, down_revision, branch_labels, depends_on = "next", "{head}", None, None
def upgrade():
    op.execute("ALTER TABLE users ADD COLUMN nickname text NOT NULL DEFAULT ''")
    op.execute("CREATE INDEX ix_users_nickname ON users (nickname)")
def downgrade():
    op.execute("ALTER TABLE users DROP COLUMN nickname")
'''


@pytest.fixture
def next_release(database_url: str, tmp_path: Path) -> Config:
    """Alembic's configuration with this release's migrations and one more."""
    config = make_alembic_config(database_url)
    source = Path(config.get_main_option("script_location") or "")
    copy = tmp_path / "migrations"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    head = ScriptDirectory.from_config(config).get_current_head()
    (copy / "versions" / "next.py").write_text(NEXT_RELEASE.format(head=head))
    config.set_main_option("script_location", str(copy))
    return config


async def test_migration_under_load_fails_no_request(
    next_release: Config, database_url: str, key_file: Path, tmp_path: Path
) -> None:
    """Every request succeeds while the schema is upgraded and downgraded."""
    shared = {"database_url": database_url, "signing_key_file": str(key_file)}
    with running_service(tmp_path / "data", email_verification="off", **shared) as service:
        async with steady_load(service.url, clients=4) as tally:
            for migrate, target in ((command.upgrade, "next"), (command.downgrade, "-1")):
                before = tally.responses.total()
                await wait_until(lambda before=before: tally.responses.total() > before + 50, 60)  # type: ignore[misc]
                await asyncio.to_thread(migrate, next_release, target)
            before = tally.responses.total()
            await wait_until(lambda: tally.responses.total() > before + 50, 60)
    assert tally.failures == {}


async def test_migration_gives_up_on_a_lock(next_release: Config, database_url: str) -> None:
    """Behind a long query it fails after 5 seconds and leaves the schema unchanged."""
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("LOCK TABLE users IN ACCESS SHARE MODE")
        async with measure_thread_time() as elapsed:
            with pytest.raises(DBAPIError, match="lock timeout"):
                await asyncio.to_thread(command.upgrade, next_release, "next")
        assert elapsed.seconds < 15
    columns = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'nickname'"
    assert await holder.fetchval(columns) == 0
    await holder.close()
