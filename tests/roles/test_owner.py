"""
Tests of L{smtpreuse.roles.owner}. A service that gives root's rights away is in C{tests.system.test_rights}.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import StartError
from smtpreuse.roles.owner import Owner


class ChosenTests(SynchronousTestCase):
    """The user and the group that twistd switches to."""

    def test_none(self) -> None:
        """Nothing is given away where nobody was named."""
        self.assertIsNone(Owner.chosen(None, None))

    def test_both(self) -> None:
        """Both as named, root among them."""
        self.assertEqual(Owner.chosen(12, 34), Owner(12, 34))
        self.assertEqual(Owner.chosen(0, 0), Owner(0, 0))

    def test_group_of_user(self) -> None:
        """Without a group it is the user's."""
        nobody = pwd.getpwnam("nobody")
        self.assertEqual(Owner.chosen(nobody.pw_uid, None), Owner(nobody.pw_uid, nobody.pw_gid))

    def test_group_alone(self) -> None:
        """Without a user we stay who we are."""
        self.assertEqual(Owner.chosen(None, 34), Owner(os.getuid(), 34))

    def test_nameless_user(self) -> None:
        """A number that no user has is left for twistd to judge."""
        self.assertEqual(Owner.chosen(54321, None), Owner(54321, os.getgid()))


class OwnerTests(SynchronousTestCase):
    """What is made is the owner's and nobody else reads it; what is there stays as it is."""

    def setUp(self) -> None:
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir()
        self.owner = Owner(54321, 54322) if os.getuid() == 0 else Owner(os.getuid(), os.getgid())

    def seen(self, path: Path) -> tuple[int, int, int]:
        """User, group and mode."""
        there = path.stat()
        return there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode)

    def test_directory(self) -> None:
        """With those above it, which are not given away."""
        path = self.place / "var" / "spool"
        self.owner.directory(str(path))
        self.assertEqual(self.seen(path), (self.owner.uid, self.owner.gid, 0o750))
        self.assertEqual(path.parent.stat().st_uid, os.getuid())
        self.owner.directory(str(path))

    def test_file(self) -> None:
        """Empty, and writable by its owner alone."""
        path = self.place / "mail.log"
        self.owner.file(str(path))
        self.assertEqual(self.seen(path), (self.owner.uid, self.owner.gid, 0o640))
        path.write_text("a line\n")
        self.owner.file(str(path))
        self.assertEqual(path.read_text(), "a line\n")

    def test_link(self) -> None:
        """What a link leads to is not made, and not given away."""
        precious = self.place / "precious"
        (self.place / "link").symlink_to(precious)
        self.assertRaises(OSError, self.owner.file, str(self.place / "link"))
        self.assertFalse(precious.exists())

    def test_of_another(self) -> None:
        """What is there and another's is named with whose it is and what to do, and not taken away."""
        other = Owner(self.owner.uid + 1, self.owner.gid + 1)
        directory, file = self.place / "spool", self.place / "mail.log"
        self.owner.directory(str(directory))
        self.owner.file(str(file))
        before = self.seen(directory), self.seen(file)
        for path, make in ((directory, other.directory), (file, other.file)):
            error = self.assertRaises(StartError, make, str(path))
            self.assertIn(f"of user {self.owner.uid}, and the service is to run as user {other.uid}", str(error))
            self.assertIn(f"chown -R {other.uid}:{other.gid}: {path}", str(error))
        self.assertEqual((self.seen(directory), self.seen(file)), before)

    def test_of_the_group(self) -> None:
        """A place that its group may write to will do, and root may write everywhere."""
        path = self.place / "spool"
        self.owner.directory(str(path))
        path.chmod(0o770)
        Owner(self.owner.uid + 1, self.owner.gid).directory(str(path))
        path.chmod(0o700)
        self.assertRaises(StartError, Owner(self.owner.uid + 1, self.owner.gid).directory, str(path))
        Owner(0, 0).directory(str(path))

    def test_program(self) -> None:
        """A program in a place that its owner does not get into is named before it would miss a file."""
        path = self.place / "lib" / "os.py"
        path.parent.mkdir()
        other = Owner(self.owner.uid + 1, self.owner.gid + 1)
        path.parent.chmod(0o700)
        error = self.assertRaises(StartError, other.check_program, str(path))
        self.assertIn(f"as user {other.uid}, who does not get into {path.parent}", str(error))
        Owner(0, 0).check_program(str(path))
        Owner(os.getuid(), os.getgid()).check_program(str(path))
