"""
A private instance of Postfix: its own queue, configuration and log below one directory, one smtpd on a loopback port,
and the machine's own Postfix untouched. It keeps what it takes for C{sink.test} in a maildir, and relays the rest.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from smtpreuse.cli.certificate import self_made
from tests.peers import missing, program

# Seconds until it answers on its port, and until it has ended.
LIMIT = 60.0
# Ports, until one is free.
TRIES = 10
_TRACE = (b"return-path:", b"x-original-to:", b"delivered-to:", b"received:")
_SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup     unix       n - n 60    1 pickup
cleanup    unix       n - n -     0 cleanup
qmgr       unix       n - n 300   1 qmgr
tlsmgr     unix       - - n 1000? 1 tlsmgr
tlsproxy   unix       - - n -     0 tlsproxy
rewrite    unix       - - n -     - trivial-rewrite
bounce     unix       - - n -     0 bounce
defer      unix       - - n -     0 bounce
trace      unix       - - n -     0 bounce
verify     unix       - - n -     1 verify
flush      unix       n - n 1000? 0 flush
proxymap   unix       - - n -     - proxymap
proxywrite unix       - - n -     1 proxymap
smtp       unix       - - n -     - smtp
relay      unix       - - n -     - smtp
showq      unix       n - n -     - showq
error      unix       - - n -     - error
retry      unix       - - n -     - error
discard    unix       - - n -     - discard
virtual    unix       - n n -     - virtual
anvil      unix       - - n -     1 anvil
scache     unix       - - n -     1 scache
postlog    unix-dgram n - n -     1 postlogd
"""


def free_port() -> int:
    """
    A loopback port that nobody uses now, over TCP or UDP. Somebody may when it is to be used: whoever starts a server
    there tries another one then, L{TRIES} times.
    """
    for _ in range(TRIES):
        with socket.socket() as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            stream.bind(("127.0.0.1", 0))
            port: int = stream.getsockname()[1]
            with suppress(OSError):
                datagrams.bind(("127.0.0.1", port))
                return port
    raise AssertionError(f"none of {TRIES} ports is free over TCP and UDP")


def without_trace(content: bytes) -> bytes:
    """
    What a message was before it was handed on.

    @param content: as it lies in a maildir, with LF.
    @return: without the trace fields at its top, with CRLF.
    """
    lines = content.split(b"\n")
    while lines and lines[0].lower().startswith(_TRACE):
        del lines[0]
        while lines and lines[0][:1] in (b" ", b"\t"):
            del lines[0]
    return b"\r\n".join(lines)


class Postfix:
    """
    One instance.

    @ivar address: host and port of its smtpd, since L{start}.
    @ivar probes: connections that asked whether it answers; its log tells of them.
    """

    def __init__(self, **settings: str) -> None:
        """
        @param settings: parameters of main.cf beside those that make it private.
        """
        self._postfix = program("postfix")
        if os.geteuid() != 0:
            raise missing("root (Postfix changes its user)")
        self._settings = settings
        # Not below the tests' own directory: Postfix's user has to get there.
        self._top = Path(tempfile.mkdtemp(prefix="postfix-peer-"))
        self._etc = self._top / "etc"
        self._log = self._top / "mail.log"
        self._mail = self._top / "mail"
        self.address = ("127.0.0.1", 0)
        self.probes = 0

    def start(self) -> None:
        """Start it, and wait until it answers."""
        owner = pwd.getpwnam("postfix")
        self._top.chmod(0o755)
        for name in ("etc", "spool", "lib", "mail"):
            (self._top / name).mkdir()
        for name in ("lib", "mail"):
            os.chown(self._top / name, owner.pw_uid, owner.pw_gid)
        (self._etc / "peer.pem").write_bytes(self_made("postfix.test", datetime.now(UTC)))
        (self._etc / "peer.pem").chmod(0o600)
        (self._etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in self._main(owner).items()))
        for last in [False] * (TRIES - 1) + [True]:
            self.address = ("127.0.0.1", free_port())
            (self._etc / "master.cf").write_text(_SERVICES.format(port=self.address[1]))
            try:
                self.run("postfix", "start")
            except AssertionError:
                if last or f"port {self.address[1]}: Address already in use" not in self.log():
                    raise
            else:
                break
        self._wait()

    def stop(self) -> None:
        """End it, and remove all of it, in this order: a master without its directory would run for ever."""
        master = self._master()
        try:
            if master is not None:
                self.run("postfix", "stop")
        finally:
            if master is not None:
                _ended(master)
            shutil.rmtree(self._top, ignore_errors=True)

    def run(self, name: str, *words: str, content: bytes = b"") -> str:
        """Run one of Postfix's own commands on this instance; what it printed."""
        # sendmail(1) names the directory with -C, all others with -c.
        option = "-C" if name == "sendmail" else "-c"
        command = [program(name), option, str(self._etc), *words]
        ended = subprocess.run(command, input=content, capture_output=True, timeout=LIMIT)
        if ended.returncode:
            raise AssertionError(f"{' '.join(command)}: {(ended.stderr or ended.stdout).decode()}\n{self.log()}")
        return ended.stdout.decode()

    def log(self) -> str:
        """Its log so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def settled_log(self) -> str:
        """
        Its log with all that its processes had said when this was called: what they say goes through one socket, in
        order, to one that writes it.
        """
        mark = f"mark-{time.monotonic_ns()}"
        self.run("postlog", "-t", "peer", mark)
        end = time.monotonic() + LIMIT
        while mark not in (log := self.log()):
            if time.monotonic() > end:
                raise AssertionError(f"Postfix does not write its log\n{log}")
            time.sleep(0.02)
        return log

    def count(self) -> int:
        """How many messages it keeps."""
        return sum(1 for _ in (self._mail / "new").glob("*"))

    def delivered(self) -> list[bytes]:
        """The messages it keeps, in the order in which they came."""
        found = sorted((self._mail / "new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_bytes() for path in found]

    def _main(self, owner: pwd.struct_passwd) -> dict[str, str]:
        return {
            "compatibility_level": "3.6",
            "queue_directory": f"{self._top}/spool",
            "data_directory": f"{self._top}/lib",
            "maillog_file": str(self._log),
            "maillog_file_prefixes": str(self._top),
            "mail_owner": "postfix",
            "setgid_group": grp.getgrnam("postdrop").gr_name,
            "myhostname": "postfix.test",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "smtpd_peername_lookup": "no",
            "smtp_host_lookup": "native",
            "smtp_dns_support_level": "disabled",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_chain_files": f"{self._etc}/peer.pem",
            "smtpd_tls_loglevel": "1",
            # What comes is kept as it came.
            "virtual_mailbox_domains": "sink.test",
            "virtual_mailbox_base": str(self._top),
            "virtual_mailbox_maps": "static:mail/",
            "virtual_uid_maps": f"static:{owner.pw_uid}",
            "virtual_gid_maps": f"static:{owner.pw_gid}",
            "virtual_minimum_uid": "1",
            "virtual_mailbox_limit": "0",
            "message_size_limit": "0",
            "header_size_limit": "10000000",
            "local_header_rewrite_clients": "",
            **self._settings,
        }

    def _wait(self) -> None:
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                with socket.create_connection(self.address, timeout=10) as client:
                    self.probes += 1
                    if client.recv(4) == b"220 ":
                        client.sendall(b"QUIT\r\n")
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"Postfix does not answer\n{self.log()}")

    def _master(self) -> int | None:
        """The process of its master, when it runs."""
        try:
            process = int((self._top / "spool" / "pid" / "master.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return process if _runs(process) else None


def _runs(process: int) -> bool:
    """Whether there is this process, and it is none that has ended and that nobody has waited for."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _ended(master: int) -> None:
    """Wait for its end; what does not end is killed, with all that it has started."""
    end = time.monotonic() + LIMIT
    while _runs(master):
        if time.monotonic() > end:
            # A master leads a group of its own.
            with suppress(ProcessLookupError):
                os.killpg(master, signal.SIGKILL)
            end += LIMIT
        time.sleep(0.02)
