"""`referral import` and `referral export`: users, codes and referrals as JSON Lines."""

import gc
import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import click
from dishka import AsyncContainer

from referral.adapters.import_files import JsonLinesFile
from referral.adapters.postgres.exports import PostgresExporter
from referral.adapters.private_files import replacing_private_file
from referral.adapters.rejected_lines import RejectedLinesFile
from referral.cli.environment import folder_errors_in_one_line, run_with_container
from referral.cli.output import json_option, print_json, print_table
from referral.core.entities.imports import ImportCounts, ImportKind, ImportProgress
from referral.core.use_cases.exports import RecordExport
from referral.core.use_cases.imports import ImportLines, ReportProgress

PATH = click.Path(path_type=Path, dir_okay=False)
KINDS = {ImportKind.USER: "users", ImportKind.CODE: "codes", ImportKind.REFERRAL: "referrals"}
REJECTED_EXIT_STATUS = 1


@click.command("import")
@click.argument("file", type=PATH)
@click.option("--dry-run", is_flag=True, help="Write the rejected lines, and change nothing else.")
@json_option
def import_file(file: Path, *, dry_run: bool, as_json: bool) -> None:
    """Import users, codes and referrals from a file of JSON Lines; exit with 1 if lines are
    rejected.

    Rejected lines are written to FILE.rejected.jsonl. An import that was interrupted continues
    where it was, and one that is repeated adds nothing twice.
    """
    with folder_errors_in_one_line():
        if not file.is_file():
            raise click.ClickException(f"{file} is not a file.")
        with closing(JsonLinesFile(file)) as source:
            counts = _import(source, RejectedLinesFile(file, dry_run=dry_run), dry_run=dry_run)
    rejected = sum(each.rejected for each in counts.values())
    rejected_file = RejectedLinesFile(file, dry_run=dry_run).path if rejected else None
    if as_json:
        print_json(
            {KINDS[kind]: each for kind, each in counts.items()}
            | {"rejected_file": rejected_file and str(rejected_file), "dry_run": dry_run}
        )
    else:
        _print_counts(counts, rejected_file, dry_run=dry_run)
    sys.exit(REJECTED_EXIT_STATUS if rejected else 0)


@click.command("export")
@click.argument("file", type=PATH)
@json_option
def export_file(file: Path, *, as_json: bool) -> None:
    """Export all users, codes and referrals as of now to a file that only its owner can read."""

    async def write(container: AsyncContainer) -> int:
        exporter, record = await container.get(PostgresExporter), await container.get(RecordExport)
        count, digest = 0, hashlib.sha256()
        with replacing_private_file(file) as output:
            await record()
            async with exporter.lines() as batches:
                async for lines in batches:
                    output.writelines(lines)
                    digest.update(b"".join(lines))
                    count += len(lines)
        await record(digest.digest())
        return count

    with folder_errors_in_one_line():
        count = run_with_container(write)
    if as_json:
        print_json({"file": str(file), "lines": count})
    else:
        click.echo(f"Exported {count} lines to {file}.")


def _import(
    source: JsonLinesFile, rejected: RejectedLinesFile, *, dry_run: bool
) -> Mapping[ImportKind, ImportCounts]:
    with _progress_bar(source.size) as report:

        async def run(container: AsyncContainer) -> Mapping[ImportKind, ImportCounts]:
            import_lines = await container.get(ImportLines)
            # Each line makes objects; without this, the garbage collector scans all modules for
            # them again and again, which takes a third of the time.
            gc.freeze()
            return await import_lines(source, rejected, report, dry_run=dry_run)

        return run_with_container(run)


@contextmanager
def _progress_bar(size: int) -> Iterator[ReportProgress]:
    """Show how much of the file is read, once for each kind of line, on a terminal only."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=size * len(KINDS), file=sys.stderr, hidden=hidden) as bar:

        def report(progress: ImportProgress) -> None:
            done = list(KINDS).index(progress.kind) if progress.kind else len(KINDS)
            bar.label = KINDS.get(progress.kind, "done") if progress.kind else "done"
            bar.update(done * size + progress.offset - bar.pos)

        yield report


def _print_counts(
    counts: Mapping[ImportKind, ImportCounts], rejected_file: Path | None, *, dry_run: bool
) -> None:
    rows = [
        (KINDS[kind], each.added, each.unchanged, each.rejected) for kind, each in counts.items()
    ]
    print_table(("", "would be added" if dry_run else "added", "unchanged", "rejected"), rows)
    if rejected_file:
        click.echo(f"The rejected lines are in {rejected_file}.", err=True)
