"""Files that other users of the machine cannot read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PRIVATE_FILE_MODE = 0o600


def open_private_file(path: Path) -> BinaryIO:
    """Open a file for reading and writing, and create it if it is missing.

    Raises `OSError` for a symbolic link, which could lead to a file of somebody else.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE_FILE_MODE)
    os.fchmod(descriptor, PRIVATE_FILE_MODE)
    return os.fdopen(descriptor, "r+b")


@contextmanager
def replacing_private_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes its name when the block ends; an error leaves the earlier file."""
    draft = path.with_name(f"{path.name}.tmp")
    try:
        with open_private_file(draft) as output:
            output.truncate(0)
            yield output
            output.flush()
            os.fsync(output.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
