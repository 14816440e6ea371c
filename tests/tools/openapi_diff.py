"""Breaking changes of docs/openapi.json; `make openapi-diff` runs this."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from tests.tools.openapi_changes import Change, Comparison
from tests.tools.openapi_document import OPENAPI_FILE

ROOT = OPENAPI_FILE.parents[1]
CHANGELOG = OPENAPI_FILE.with_name("changelog.md")


def main(arguments: Sequence[str]) -> int:
    """Compare with the last release, main or the given revision; fail on unnamed changes."""
    base = arguments[0] if arguments else find_base()
    path = OPENAPI_FILE.relative_to(ROOT)
    old = _git("show", f"{base}:{path}") if base else ""
    if not old:
        return _say(f"openapi-diff left out: no earlier {path} in {base or 'the history'}")
    new = json.loads(OPENAPI_FILE.read_text(encoding="utf-8"))
    changes = sorted(set(Comparison(json.loads(old), new).changes()))
    changed = changed_section(CHANGELOG.read_text(encoding="utf-8"))
    unnamed = [each for each in changes if not is_named(each, changed)]
    for each in changes:
        mark = "NOT IN THE CHANGELOG: " if each in unnamed else ""
        _say(f"{mark}{each.place}: {each.text}")
    if unnamed:
        _say("Name each place in backquotes under 'Changed' of the unreleased changes.")
    return _say(f"openapi-diff with {base}: {len(changes)} breaking changes", code=bool(unnamed))


def find_base() -> str:
    """Return the last release, or main; an empty text without either."""
    released = _git("describe", "--tags", "--abbrev=0", "--match", "v*")
    if released:
        return released
    revisions = ("origin/main", "main")
    return next((each for each in revisions if _git("rev-parse", "--verify", each)), "")


def changed_section(changelog: str) -> str:
    """Return the text under 'Changed' of the unreleased changes."""
    unreleased = re.split(r"^## ", changelog, flags=re.MULTILINE)[1]
    sections = re.split(r"^### ", unreleased, flags=re.MULTILINE)
    return "".join(each for each in sections if each.startswith("Changed\n"))


def is_named(change: Change, changed: str) -> bool:
    """Whether the text has the place, or its operation or schema, in backquotes."""
    return any(f"`{name}`" in changed for name in (change.place, change.place.subject))


def _git(*arguments: str) -> str:
    completed = subprocess.run(  # noqa: S603 - our own command
        ["git", *arguments],  # noqa: S607 - the one of PATH
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    return completed.stdout.strip() if completed.returncode == 0 else ""


def _say(text: str, code: int = 0) -> int:
    sys.stdout.write(f"{text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
