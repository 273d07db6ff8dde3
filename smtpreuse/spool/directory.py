"""
The queue directory: its lock, its content files, its free space. It knows no tables and no messages but their ids.

    queue.db    the tables
    content/    content too large for them, a file named by queue id; and C{scratch-N}, content on its way in
    lock        locked by the service, and holds its process id
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import stat
from collections.abc import Callable

from twisted.logger import Logger

from smtpreuse.errors import SpoolError, SpoolFull, SpoolInUse
from smtpreuse.model.content import Content, FileContent, MemoryContent

_SCRATCH = "scratch-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME = re.compile(r"[0-9A-Za-z]{1,64}")


def free_octets(directory: str) -> int:
    """How many octets the file system of this directory has for us."""
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize


class QueueDirectory:
    """One service's hold on one queue directory."""

    log = Logger()

    def __init__(self, path: str) -> None:
        self._path = path
        self._contents = os.path.join(path, "content")
        self._lock = -1
        self._folder = -1
        self._numbers = itertools.count(1)

    @property
    def database(self) -> str:
        """Path of the file with the tables."""
        return os.path.join(self._path, "queue.db")

    def open(self) -> None:
        """
        Make what is missing and take the lock.

        @raise SpoolInUse: when another process holds it.
        @raise SpoolError: when the directory cannot be made or used.
        """
        try:
            self._make()
            self._take_lock()
            os.makedirs(self._contents, mode=0o700, exist_ok=True)
            self._close_to_others()
            self._folder = os.open(self._contents, os.O_RDONLY | os.O_DIRECTORY)
            self._sync_parents()
        except OSError as problem:
            self.close()
            raise SpoolError(f"the queue directory {self._path} cannot be used: {problem}") from problem

    def close(self) -> None:
        """Let the lock go."""
        for descriptor in (self._folder, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._folder = self._lock = -1

    def free(self) -> int:
        """Octets free for us."""
        return free_octets(self._path)

    def scratch(self) -> str:
        """The path of a new file for content on its way in."""
        return os.path.join(self._contents, f"{_SCRATCH}{next(self._numbers)}")

    def file(self, name: str) -> str:
        """The path of a content file."""
        return os.path.join(self._contents, name)

    def place(self, queue_id: str, content: Content) -> FileContent:
        """
        Give content the file of this message, and see to it that it survives a power cut. Only one thread may do so.

        @raise SpoolFull: when there is no room for it; the message has no file then.
        @raise SpoolError: when it cannot be done; likewise.
        """
        check_queue_id(queue_id)
        target = self.file(queue_id)
        if os.path.lexists(target):
            raise SpoolError(f"{queue_id}: there is a content file of this name already")
        path = content.path if isinstance(content, FileContent) else self.scratch()
        try:
            if isinstance(content, MemoryContent):
                with open(path, "xb") as file:
                    file.write(content.octets)
            self._sync(path, content.size)
            os.rename(path, target)
            os.fsync(self._folder)
        except OSError as problem:
            # Whoever tries again finds the place free, and a full disk is not filled by what failed.
            for left in (path, target):
                with contextlib.suppress(OSError):
                    os.unlink(left)
            kind = SpoolFull if problem.errno in _FULL else SpoolError
            raise kind(f"{queue_id}: its content cannot be stored: {problem}") from problem
        return FileContent(path=target, size=content.size)

    def _sync(self, path: str, size: int) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.fsync(descriptor)
            there = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if there != size:
            raise SpoolError(f"content file {path} has {there} octets instead of {size}")

    def remove(self, names: list[str]) -> None:
        """Remove content files whose messages are gone. What cannot be removed is left for the next start."""
        for name in filter(_NAME.fullmatch, names):
            with contextlib.suppress(OSError):
                os.unlink(self.file(name))

    def sweep(self, wanted: Callable[[str], bool]) -> int:
        """
        Remove scratch files, and content files without a message: what a crash leaves behind.

        @param wanted: whether there is a message with this content file.
        @return: how many were removed.
        """
        removed = 0
        with os.scandir(self._contents) as entries:
            for entry in entries:
                if entry.name.startswith(_SCRATCH) or (_NAME.fullmatch(entry.name) and not wanted(entry.name)):
                    os.unlink(entry.path)
                    removed += 1
        return removed

    def _make(self) -> None:
        """Make the directory. One that is there is left as it is: it may be anybody's."""
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
            os.mkdir(self._path)
            # Whatever the umask: the group gets as far as the control socket.
            os.chmod(self._path, 0o750)
        except FileExistsError:
            mode = os.stat(self._path).st_mode
            if mode & stat.S_IWOTH:
                raise SpoolError(f"{self._path} can be written to by everybody: name a directory of its own") from None
            if mode & stat.S_IRWXO:
                self.log.warn("everybody may look into {path}: it was there before, and stays so", path=self._path)

    def _close_to_others(self) -> None:
        """Nobody else reads mail, whatever the directory allows; SQLite's other files have the mode of the first."""
        # Its group gets as far as the control socket, and no further: SQLite's own would be open to it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.database, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        for path in (self._contents, self.database, f"{self.database}-wal", f"{self.database}-shm"):
            with contextlib.suppress(FileNotFoundError):
                mode = stat.S_IMODE(os.stat(path).st_mode)
                if mode & stat.S_IRWXO:
                    os.chmod(path, mode & ~stat.S_IRWXO)

    def _take_lock(self) -> None:
        self._lock = os.open(os.path.join(self._path, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 32).decode("ascii", "replace").strip()
            os.close(self._lock)
            self._lock = -1
            who = f"process {holder}" if holder else "another process"
            raise SpoolInUse(f"the queue directory {self._path} is in use by {who}: stop it first") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _sync_parents(self) -> None:
        # A new directory is there after a power cut only when the one above it was synced.
        for path in (self._path, os.path.dirname(os.path.abspath(self._path))):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def check_queue_id(queue_id: str) -> None:
    """
    @raise SpoolError: when a queue id could not name a file.
    """
    if not _NAME.fullmatch(queue_id):
        raise SpoolError(f"{queue_id!r} is not a queue id (allowed: 1 to 64 letters and digits)")
