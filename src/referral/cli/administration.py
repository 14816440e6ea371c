"""`referral admin`: find, block and erase users, decide on referrals, read the audit log."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar
from uuid import UUID

import click
from dishka import AsyncContainer

from referral.cli.environment import run_with_container
from referral.cli.output import CommandGroup, json_option, print_json, print_table
from referral.cli.statistics import statistics
from referral.core.entities.account_view import UserDetails
from referral.core.entities.audit import OPERATOR, AuditAction, AuditFilter, AuditRecord
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.risk import RiskLevel, RiskSignal, risk_level
from referral.core.entities.searches import ReferralFilter, ReferralRecord
from referral.core.errors import NotFound
from referral.core.use_cases.accounts import BlockAccount, FindAccount
from referral.core.use_cases.audit import ListAuditRecords
from referral.core.use_cases.referral_review import DecideReferral, ListAllReferrals
from referral.core.use_cases.users import EraseUser, ShowUser

F = TypeVar("F", bound=Callable[..., Any])

FOLLOW_SECONDS = 2
FOLLOWED_RECORDS = 1000
"""How many of the newest records are read at a time."""


def _reason_option(command: F) -> F:
    message = "Why, for the audit log; no e-mail addresses."
    return click.option("--reason", required=True, help=message)(command)


def _limit_option(command: F) -> F:
    limit = click.IntRange(1, FOLLOWED_RECORDS)
    message = "How many to show."
    return click.option("--limit", default=20, show_default=True, type=limit, help=message)(command)


@click.group(cls=CommandGroup)
def admin() -> None:
    """Find, block and erase users, decide on referrals, read the audit log, count."""


admin.add_command(statistics)


@admin.command()
@click.argument("user")
@json_option
def find(user: str, *, as_json: bool) -> None:
    """Show USER, an e-mail address or an id."""

    async def show(container: AsyncContainer) -> UserDetails:
        found = await (await container.get(FindAccount))(user)
        return await (await container.get(ShowUser))(found.id)

    details = run_with_container(show)
    fields = {
        "id": details.user.id,
        "email": details.user.email,
        "email_verified": details.user.email_verified,
        "role": details.user.role,
        "external_id": details.user.external_id,
        "created_at": details.user.created_at,
        "blocked_at": details.user.blocked_at,
        "referrer_id": details.referrer and details.referrer.id,
        "referral_count": details.referral_count,
    }
    if as_json:
        print_json(fields)
    else:
        print_table(("field", "value"), list(fields.items()))


@admin.command()
@click.argument("user")
@_reason_option
def block(user: str, reason: str) -> None:
    """Block USER, an e-mail address or an id: end all sessions and refuse new ones."""
    _block(user, reason, undo=False)
    click.echo("Blocked.")


@admin.command()
@click.argument("user")
@_reason_option
def unblock(user: str, reason: str) -> None:
    """Unblock USER, an e-mail address or an id."""
    _block(user, reason, undo=True)
    click.echo("Unblocked.")


def _block(user: str, reason: str, *, undo: bool) -> None:
    async def change(container: AsyncContainer) -> None:
        found = await (await container.get(FindAccount))(user)
        await (await container.get(BlockAccount))(found.id, OPERATOR, reason, undo=undo)

    run_with_container(change)


@admin.command()
@click.argument("users", metavar="USER...", nargs=-1, required=True)
def erase(users: Sequence[str]) -> None:
    """Erase each USER, an e-mail address or an id, for ever."""

    async def erase_each(container: AsyncContainer) -> list[str]:
        find_account, erase_user = await container.get(FindAccount), await container.get(EraseUser)
        missing = []
        for user in users:
            try:
                await erase_user(None, (await find_account(user)).id)
            except NotFound:
                missing.append(user)
        return missing

    missing = run_with_container(erase_each)
    click.echo(f"Erased {len(users) - len(missing)}.")
    if missing:
        raise click.ClickException(f"No user has the address or id {', '.join(missing)}.")


@admin.command()
@click.option("--held", is_flag=True, help="Only those that wait for an admin.")
@click.option(
    "--status",
    type=click.Choice([each.value for each in ReferralStatus]),
    help="Only of this status.",
)
@_limit_option
@json_option
def referrals(*, held: bool, status: str | None, limit: int, as_json: bool) -> None:
    """List referrals, newest first."""
    only = ReferralStatus(status) if status else None
    wanted = ReferralFilter(status=only, held=held or None)

    async def search(container: AsyncContainer) -> list[ReferralRecord]:
        list_referrals = await container.get(ListAllReferrals)
        return (await list_referrals(wanted, after=None, limit=limit)).items

    found = run_with_container(search)
    if as_json:
        print_json([_with_risk(each) for each in found])
        return
    rows = [
        (
            each.referral_id,
            each.status,
            each.held,
            _risk(each),
            each.code,
            each.referrer_id,
            each.id,
        )
        for each in found
    ]
    print_table(("referral", "status", "held", "risk", "code", "referrer", "user"), rows)


def _risk(referral: ReferralRecord) -> str:
    """Return the level and the codes, such as `medium: burst`."""
    codes = ", ".join(signal.code for signal in referral.risk_signals)
    return f"{risk_level(referral.risk_signals)}: {codes}" if codes else RiskLevel.LOW


def _with_risk(referral: ReferralRecord) -> dict[str, object]:
    """Return the fields of the API, of which `risk` is computed from the signals."""
    fields = asdict(referral)
    signals: tuple[RiskSignal, ...] = fields.pop("risk_signals")
    details = [{"code": signal.code, "detail": signal.detail} for signal in signals]
    return fields | {"risk": {"level": risk_level(signals), "signals": details}}


@admin.command()
@click.argument("referral_id", type=click.UUID)
@_reason_option
def confirm(referral_id: UUID, reason: str) -> None:
    """Confirm a referral."""
    _decide(referral_id, ReferralStatus.CONFIRMED, reason)


@admin.command()
@click.argument("referral_id", type=click.UUID)
@_reason_option
def reject(referral_id: UUID, reason: str) -> None:
    """Reject a referral; the code gets its use back."""
    _decide(referral_id, ReferralStatus.REJECTED, reason)


def _decide(referral_id: UUID, status: ReferralStatus, reason: str) -> None:
    async def decide(container: AsyncContainer) -> None:
        await (await container.get(DecideReferral))(referral_id, status, OPERATOR, reason)

    run_with_container(decide)
    click.echo(f"{status.value.capitalize()}.")


@admin.command("audit")
@click.option("--actor", help="The id of a user or a client, `operator` or `service`.")
@click.option("--subject", help="The id of what was changed.")
@click.option(
    "--action",
    type=click.Choice([each.value for each in AuditAction]),
    metavar="ACTION",
    help="What was done, such as `user.blocked`.",
)
@click.option("--follow", is_flag=True, help="Go on with new records until interrupted.")
@_limit_option
@json_option
def audit_log(*, follow: bool, limit: int, as_json: bool, **filters: Any) -> None:  # noqa: ANN401 - texts
    """Print the newest records of the audit log, oldest first."""
    if follow and as_json:
        raise click.UsageError("--json prints one document: leave out --follow.")
    wanted = AuditFilter(**filters)

    async def tail(container: AsyncContainer) -> None:
        list_records = await container.get(ListAuditRecords)
        page = await list_records(wanted, after=None, limit=FOLLOWED_RECORDS)
        _print_records(page.items[:limit][::-1], as_json=as_json)
        while follow:
            # Not by the last id: a transaction may commit after one with a later id.
            known = {record.id for record in page.items}
            await asyncio.sleep(FOLLOW_SECONDS)
            page = await list_records(wanted, after=None, limit=FOLLOWED_RECORDS)
            new = [record for record in page.items[::-1] if record.id not in known]
            _print_records(new, as_json=as_json)

    run_with_container(tail)


def _print_records(records: Sequence[AuditRecord], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(record) for record in records])
        return
    for each in records:
        reason = f"  {each.reason!r}" if each.reason else ""
        when = f"{each.at:%Y-%m-%d %H:%M:%S}Z"
        click.echo(f"{when}  {each.actor}  {each.action}  {each.subject}{reason}")
