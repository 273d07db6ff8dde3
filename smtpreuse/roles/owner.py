"""
Who the service is to be when it has given its rights away, and what is made for that user before.

C{twistd --uid} drops root's rights between the two halves of a start. What the service makes in the second half is its
own; what only root can make, at places where it alone may write, is made in the first half and given to the user. What
is there already stays as it is.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from attrs import frozen

from smtpreuse.errors import StartError

# Of the group, so that it gets as far as the control socket; all else in it is the user's alone.
_DIRECTORY = 0o750
_FILE = 0o640


@frozen
class Owner:
    """
    @ivar uid: of the user.
    @ivar gid: of the group.
    """

    uid: int
    gid: int

    @classmethod
    def chosen(cls, uid: int | None, gid: int | None) -> Owner | None:
        """
        By what twistd was told; like twistd, with the user's own group where none was named.

        @return: L{None} when no rights are to be given away.
        """
        if uid is None and gid is None:
            return None
        user = os.getuid() if uid is None else uid
        if gid is None:
            try:
                gid = pwd.getpwuid(user).pw_gid
            except KeyError:
                gid = os.getgid()
        return cls(user, gid)

    def directory(self, path: str) -> None:
        """
        Make a directory of this owner's, where none is.

        @raise StartError: when there is one in which this owner could make nothing.
        @raise OSError: when it cannot be made.
        """
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            self._check(path, "directory", stat.S_IWUSR | stat.S_IXUSR)
            return
        self._give(path, os.O_RDONLY | os.O_DIRECTORY, _DIRECTORY)

    def file(self, path: str) -> None:
        """
        Make an empty file of this owner's, where none is.

        @raise StartError: when there is one to which this owner could not write.
        @raise OSError: when it cannot be made.
        """
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            self._check(path, "file", stat.S_IWUSR)
            return
        self._give(path, os.O_WRONLY, _FILE)

    def check_program(self, *paths: str) -> None:
        """
        See to it that this owner gets at the program's files: Python goes on loading them when the rights are gone.

        @raise StartError: when it does not.
        """
        for path in paths:
            for above in Path(path).resolve().parents:
                if not self._may(above.stat(), stat.S_IXUSR):
                    raise StartError(
                        f"the service is to run as user {self.uid}, who does not get into {above}, where Python"
                        f" has its files: install it where everybody may read: {path}"
                    )

    def _give(self, path: str, flags: int, mode: int) -> None:
        # By descriptor, and not through a link: whoever else may write at this place gets nothing given.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, self.uid, self.gid)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def _check(self, path: str, what: str, needed: int) -> None:
        there = os.stat(path)
        if not self._may(there, needed):
            raise StartError(
                f"this {what} is of user {there.st_uid}, and the service is to run as user {self.uid}, who may not"
                f" write to it: give it to that user, with chown -R {self.uid}:{self.gid}: {path}"
            )

    def _may(self, there: os.stat_result, needed: int) -> bool:
        by_user = there.st_uid == self.uid and there.st_mode & needed == needed
        by_group = there.st_gid in self._groups() and there.st_mode << 3 & needed == needed
        by_all = there.st_mode << 6 & needed == needed
        return not self.uid or by_user or by_group or by_all

    def _groups(self) -> list[int]:
        try:
            return os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)
        except KeyError:
            return [self.gid]
