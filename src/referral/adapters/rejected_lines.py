"""The file of rejected lines, `FILE.rejected.jsonl`, which only its owner can read."""

import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from referral.adapters.private_files import open_private_file, replacing_private_file
from referral.core.entities.imports import ImportKind, RejectedLine


class Entry(msgspec.Struct):
    """A line of the file."""

    line: int
    reason: str
    text: str


class RejectedLinesFile:
    """Lines are written to a file for each kind, which are merged in the end.

    So the result is in the order of the imported file, though that is read once for each kind.
    """

    def __init__(self, path: Path, *, dry_run: bool) -> None:
        """`path` is that of the imported file."""
        self.path = path.with_name(f"{path.name}.rejected.jsonl")
        suffix = "dry-run" if dry_run else "part"
        self._parts = {
            kind: self.path.with_name(f"{self.path.name}.{kind}.{suffix}") for kind in ImportKind
        }
        self._files: dict[ImportKind, BinaryIO] = {}

    @contextmanager
    def open(self, sizes: dict[ImportKind, int]) -> Iterator[bool]:
        """Keep the beginnings of the files, which were written before an interruption."""
        with ExitStack() as stack:
            for kind, part in self._parts.items():
                self._files[kind] = stack.enter_context(open_private_file(part))
            found = {kind: os.fstat(file.fileno()).st_size for kind, file in self._files.items()}
            is_complete = all(found[kind] >= size for kind, size in sizes.items())
            for kind, file in self._files.items():
                file.truncate(sizes.get(kind, 0) if is_complete else 0)
                file.seek(0, os.SEEK_END)
            yield is_complete

    def write(self, kind: ImportKind, lines: Sequence[tuple[RejectedLine, bytes]]) -> int:
        """Append lines; they are on the disk when this returns."""
        file = self._files[kind]
        for rejected, text in lines:
            printable = text.rstrip(b"\r\n").decode(errors="backslashreplace")
            entry = Entry(rejected.line, rejected.reason, printable)
            file.write(msgspec.json.encode(entry) + b"\n")
        if lines:
            file.flush()
            os.fsync(file.fileno())
        return file.tell()

    def publish(self) -> None:
        """Merge the files; a file of an earlier import is replaced."""
        for file in self._files.values():
            file.seek(0)
        with replacing_private_file(self.path) as output:
            output.writelines(heapq.merge(*self._files.values(), key=_line_number))
            is_empty = output.tell() == 0
        for part in self._parts.values():
            part.unlink()
        if is_empty:
            self.path.unlink()


def _line_number(text: bytes) -> int:
    return msgspec.json.decode(text, type=Entry).line
