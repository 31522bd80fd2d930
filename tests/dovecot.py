"""A real Dovecot on loopback, with mailboxes that tests fill by writing files."""

import grp
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from imapclient import IMAPClient

from support import self_signed, wait_until

PASSWORD = "mail-passw0rd"
_CONFIGURATION = """
protocols = imap
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
first_valid_gid = 1
auth_username_chars =
auth_failure_delay = 0
ssl = {ssl}
ssl_cert = <{certificate}
ssl_key = <{certificate}
mail_location = maildir:{folder}/mail/%u
namespace inbox {{
  inbox = yes
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/passwd/%u
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {plain_port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = {ssl}
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


class Maildir:
    """One folder of a user's mail, as files (a Maildir); Dovecot finds what is put there."""

    _numbers = itertools.count(1)

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in (path, *(path / name for name in ("new", "cur", "tmp"))):
            folder.mkdir(exist_ok=True)
            _give(folder)

    def deliver(self, raw: bytes, *, arrival: float | None = None) -> Path:
        """Put a mail there, that arrived at a time (epoch seconds) or now; return its file."""
        name = f"{next(self._numbers):08}.{os.getpid()}.test"
        path = self.path / "tmp" / name
        path.write_bytes(raw)
        if arrival is not None:
            os.utime(path, (arrival, arrival))
        _give(path)
        return path.rename(self.path / "new" / name)

    def files(self) -> list[Path]:
        """Return the files of all mails."""
        return sorted([*(self.path / "new").iterdir(), *(self.path / "cur").iterdir()])


class Dovecot:
    """A running Dovecot; everyone whose mailbox was made can log in with PASSWORD."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, *, has_tls: bool = True) -> None:
        self.folder = folder
        self.ca_file = self_signed(folder)
        self.plain_port, self.tls_port = _free_ports(2)
        self._users = itertools.count(1)
        for made in (folder, folder / "mail", folder / "home", folder / "passwd"):
            made.mkdir(exist_ok=True)
            _give(made)
        (folder / "dovecot.conf").write_text(self._configuration(has_tls=has_tls))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [program(), "-F", "-c", str(self.folder / "dovecot.conf")]
        out = (self.folder / "stderr.log").open("wb")
        with out:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **_as_user())
        wait_until(self._is_listening, "Dovecot", last_words=self._last_words)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def new_user(self, name: str | None = None, password: str = PASSWORD) -> str:
        """Return the name of a new user without mail."""
        name = name or f"alarms-{next(self._users)}"
        # A file for each: Dovecot does not see a second change within a second.
        (self.folder / "passwd" / name).write_text(f"{name}:{password}::::::\n", encoding="utf-8")
        return name

    def inbox(self, user: str) -> Maildir:
        """Return a user's INBOX."""
        return Maildir(self.folder / "mail" / user)

    @contextmanager
    def logged_in(self, user: str) -> Iterator[IMAPClient]:
        """Another mail client at work."""
        with IMAPClient(self.host, self.plain_port, ssl=False, timeout=30) as client:
            client.login(user, PASSWORD)
            yield client

    def _configuration(self, *, has_tls: bool) -> str:
        user = _user()
        return _CONFIGURATION.format(
            folder=self.folder,
            user=user.pw_name,
            group=grp.getgrgid(user.pw_gid).gr_name,
            uid=user.pw_uid,
            gid=user.pw_gid,
            ssl="yes" if has_tls else "no",
            certificate=self.ca_file,
            plain_port=self.plain_port,
            tls_port=self.tls_port,
        )

    def _is_listening(self) -> bool:
        try:
            socket.create_connection((self.host, self.plain_port), 1).close()
        except OSError:
            return False
        return True

    def _last_words(self) -> str:
        files = (self.folder / "stderr.log", self.folder / "dovecot.log")
        return "\n".join(file.read_text() for file in files if file.exists())


@contextmanager
def running(*, has_tls: bool = True) -> Iterator[Dovecot]:
    """Run a Dovecot in a folder of its own; not under pytest's, since the paths of Unix sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="dovecot-") as folder, Dovecot(Path(folder), has_tls=has_tls) as dovecot:
        yield dovecot


def program() -> str:
    """Return the path of Dovecot, or an empty text where it is not installed."""
    return shutil.which("dovecot", path=f"{os.defpath}:/usr/sbin:/usr/local/sbin") or ""


def _user() -> pwd.struct_passwd:
    """Whom Dovecot runs as: this user or, in place of root, whom it refuses, nobody."""
    return pwd.getpwuid(os.getuid()) if os.getuid() else pwd.getpwnam("nobody")


def _as_user() -> dict[str, Any]:
    if os.getuid():
        return {}
    return {"user": _user().pw_uid, "group": _user().pw_gid, "extra_groups": []}


def _give(path: Path) -> None:
    if not os.getuid():
        os.chown(path, _user().pw_uid, _user().pw_gid)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
