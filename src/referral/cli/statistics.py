"""`referral admin statistics`."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import click
from dishka import AsyncContainer

from referral.cli.environment import run_with_container
from referral.cli.output import json_option, print_json, print_table
from referral.core.entities.statistics import Interval, Statistics, StatisticsRange
from referral.core.ports.system import Clock
from referral.core.use_cases.statistics import ShowStatistics

DATE = click.DateTime(["%Y-%m-%d"])
DEFAULT_DAYS = 30


@click.command()
@click.option("--from", "first", type=DATE, help="The first day (UTC); by default 30 days.")
@click.option("--to", "end", type=DATE, help="The day after the last one; by default tomorrow.")
@click.option(
    "--interval",
    type=click.Choice([each.value for each in Interval]),
    default=Interval.DAY.value,
    show_default=True,
    help="What a row is about.",
)
@json_option
def statistics(
    first: datetime | None, end: datetime | None, interval: str, *, as_json: bool
) -> None:
    """Count registrations, referrals, decisions and codes by day, week or month."""

    async def count(container: AsyncContainer) -> list[tuple[datetime, Statistics]]:
        today = (await container.get(Clock)).now().date()
        until = end or datetime.combine(today + timedelta(days=1), datetime.min.time())
        since = first or until - timedelta(days=DEFAULT_DAYS)
        times = since.replace(tzinfo=UTC), until.replace(tzinfo=UTC)
        wanted = StatisticsRange.of(*times, Interval(interval))
        return await (await container.get(ShowStatistics))(wanted)

    rows = run_with_container(count)
    if as_json:
        print_json([{"start": start} | asdict(row) for start, row in rows])
        return
    table = [(f"{start:%Y-%m-%d}", *asdict(row).values()) for start, row in rows]
    print_table(("start", *asdict(Statistics())), table)
