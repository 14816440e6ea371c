"""The files of imports, of rejected lines and of exports."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from referral.adapters import import_files
from referral.adapters.import_files import BATCH_BYTES, MAX_LINE_BYTES, JsonLinesFile
from referral.adapters.private_files import replacing_private_file
from referral.adapters.rejected_lines import RejectedLinesFile
from referral.core.entities.imports import ImportKind, RejectedLine
from referral.core.ports.imports import Batch

USER = b'{"type": "user", "email": "ann@example.com"}'
CODE = b'{"type":"code","user":"a@b.io","code":"ANN","expires_at":"2026-01-01T00:00:00+02:00"}'
REFERRAL = b'{"user":"a@b.io","referrer":"c@d.io","type":"referral"}'

MakeFile = Callable[..., JsonLinesFile]


@pytest.fixture
def make_file(tmp_path: Path) -> Iterator[MakeFile]:
    """Make a file of some lines."""
    with ExitStack() as stack:

        def make(*lines: bytes, end: bytes = b"\n") -> JsonLinesFile:
            path = tmp_path / "file.jsonl"
            path.write_bytes(b"\n".join(lines) + end)
            return stack.enter_context(closing(JsonLinesFile(path)))

        yield make


def read_all(file: JsonLinesFile, kind: ImportKind) -> list[Batch]:
    """Read all batches of a kind."""
    batches = [file.read(kind, 0, 1)]
    while not batches[-1].is_last:
        batches.append(file.read(kind, batches[-1].offset, batches[-1].line))
    return batches


@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n", b"\n\n  \n"])
def test_lines_are_found_by_kind(make_file: MakeFile, end: bytes) -> None:
    """In any order of lines and fields; blank lines count, and are skipped."""
    file = make_file(REFERRAL, b"", USER, CODE, USER, end=end)
    for kind, numbers in (("user", [3, 5]), ("code", [4]), ("referral", [1])):
        [batch] = read_all(file, ImportKind(kind))
        assert [line.number for line in batch.lines] == numbers
        assert not batch.invalid


def test_batches_are_bounded(make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of lines and by their bytes; every line is in one batch."""
    monkeypatch.setattr(import_files, "BATCH_LINES", 2)
    assert [len(b.lines) for b in read_all(make_file(*[USER] * 5), ImportKind.USER)] == [2, 2, 1]
    monkeypatch.undo()
    long = USER[:-1] + b" " * (MAX_LINE_BYTES - len(USER) - 1) + b"}"
    batches = read_all(make_file(*[long] * 100), ImportKind.USER)
    assert sum(len(batch.lines) for batch in batches) == 100
    assert max(len(batch.lines) for batch in batches) <= BATCH_BYTES // MAX_LINE_BYTES + 1


HOSTILE_LINES = {
    "no JSON": b"Ann",
    "no object": b'["user"]',
    "no type": b'{"email":"ann@example.com"}',
    "unknown type": b'{"type":"admin"}',
    "two types": b'{"type":"user","email":"a@b.io","type":"code"}',
    "unknown field": b'{"type":"user","email":"a@b.io","is_admin":true}',
    "wrong type of a field": b'{"type":"user","email":7}',
    "no UUID": b'{"type":"user","email":"a@b.io","id":"7"}',
    "no offset": b'{"type":"user","email":"a@b.io","created_at":"2026-01-01T00:00:00"}',
    "unknown role": b'{"type":"user","email":"a@b.io","role":"root"}',
    "bad UTF-8": b'{"type":"user","email":"a\xff@b.io"}',
    "bad UTF-8 in a name": b'{"type":"user","\xff":1,"email":"a@b.io"}',
    "UTF-16": '{"type":"user"}'.encode("utf-16"),
    "byte-order mark": b"\xef\xbb\xbf" + USER,
    "lone surrogate": b'{"type":"user","email":"a\\ud800@b.io"}',
    "NUL": b'{"type":"user","email":"a\\u0000@b.io"}',
    "raw NUL": b'{"type":"user","email":"a\0@b.io"}',
    "trailing data": USER + b" {}",
    "deep": b'{"type":"user","email":' + b"[" * 30_000,
    "deep before the type": b'{"a":' + b"[" * 30_000,
    "large number": b'{"type":"code","user":"a@b.io","code":"ANN","uses":1e400}',
    "long": b'{"type":"user","email":"' + b"a" * 5_000_000 + b'"}',
}


@pytest.mark.parametrize("text", HOSTILE_LINES.values(), ids=HOSTILE_LINES)
@pytest.mark.parametrize("end", [b"\n", b""])
def test_hostile_line_is_rejected_once(make_file: MakeFile, text: bytes, end: bytes) -> None:
    """With a reason and not more text than a line may have; the lines around it are read."""
    file = make_file(USER, text, USER, text, end=end)
    batches = [batch for kind in ImportKind for batch in read_all(file, kind)]
    invalid = [line for batch in batches for line in batch.invalid]
    assert [line.number for line in invalid] == [2, 4]
    assert all(line.reason.startswith("invalid: ") for line in invalid)
    assert all(text.startswith(line.text.strip()) for line in invalid)
    assert max(len(line.text) for line in invalid) <= MAX_LINE_BYTES + 1
    assert [line.number for batch in batches for line in batch.lines] == [1, 3]


def test_digest_is_of_the_contents(make_file: MakeFile) -> None:
    """A changed file is another import."""
    assert make_file(USER).digest == make_file(USER).digest != make_file(CODE).digest


def rejected_lines(path: Path) -> list[dict[str, object]]:
    """Return the contents of the file of rejected lines."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_rejected_lines_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Of all kinds, with the bytes that are no text escaped; only the owner can read the file."""
    rejected = RejectedLinesFile(tmp_path / "file.jsonl", dry_run=False)
    with rejected.open({}) as is_complete:
        assert is_complete
        rejected.write(ImportKind.USER, [(RejectedLine(2, "email-taken"), b"two\r\n")])
        rejected.write(ImportKind.USER, [(RejectedLine(10, "invalid"), b"\xff\0\n")])
        rejected.write(ImportKind.CODE, [(RejectedLine(1, "code-taken"), b'{"one": 1}')])
        rejected.publish()
    assert rejected_lines(rejected.path) == [
        {"line": 1, "reason": "code-taken", "text": '{"one": 1}'},
        {"line": 2, "reason": "email-taken", "text": "two"},
        {"line": 10, "reason": "invalid", "text": "\\xff\0"},
    ]
    assert rejected.path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [rejected.path]
    with rejected.open({}):
        rejected.publish()
    assert list(tmp_path.iterdir()) == []


def test_interrupted_file_continues(tmp_path: Path) -> None:
    """What was written after the stored sizes is dropped; what is missing means a new start."""
    rejected = RejectedLinesFile(tmp_path / "file.jsonl", dry_run=False)
    with rejected.open({}):
        size = rejected.write(ImportKind.USER, [(RejectedLine(1, "first"), b"")])
        rejected.write(ImportKind.USER, [(RejectedLine(2, "not stored"), b"")])
    with rejected.open({ImportKind.USER: size}) as is_complete:
        assert is_complete
        rejected.write(ImportKind.USER, [(RejectedLine(2, "again"), b"")])
        rejected.publish()
    assert [each["reason"] for each in rejected_lines(rejected.path)] == ["first", "again"]
    with rejected.open({ImportKind.USER: size}) as is_complete:
        assert not is_complete


def test_private_file_is_replaced_at_once(tmp_path: Path) -> None:
    """An error leaves the earlier file; a symbolic link is not followed."""
    path = tmp_path / "file"
    path.write_text("earlier")

    def fail() -> None:
        with replacing_private_file(path) as output:
            output.write(b"half")
            raise OSError

    with pytest.raises(OSError, match=r"^$"):
        fail()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "earlier")]
    with replacing_private_file(path) as output:
        output.write(b"new")
        assert path.read_text() == "earlier"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "file.tmp").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        fail()
    assert not (tmp_path / "other").exists()
