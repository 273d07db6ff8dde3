"""
Tests of L{smtpreuse.routing.ourselves}.
"""

from __future__ import annotations

import socket
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.nexthop import Endpoint
from smtpreuse.routing import ourselves
from smtpreuse.routing.ourselves import Ourselves, _delivered_here, is_local


class IsLocalTests(SynchronousTestCase):
    """Whether an address is this host's, by what the kernel says of it."""

    def test_both(self) -> None:
        """Loopback is, a documentation address is not."""
        for address in ("127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::"):
            self.assertTrue(is_local(address), address)
        for address in ("192.0.2.1", "2001:db8::1", "255.255.255.255", "224.0.0.1", "ff02::1"):
            self.assertFalse(is_local(address), address)

    def test_table(self) -> None:
        """The table of routes has an entry for each of this host's addresses, and the whole of 127.0.0.0/8 is."""
        self.assertTrue(_delivered_here(socket.AF_INET, bytes([127, 0, 0, 2])))
        self.assertFalse(_delivered_here(socket.AF_INET, bytes([192, 0, 2, 1])))
        self.assertFalse(_delivered_here(socket.AF_INET6, bytes([0x20, 0x01, 0x0D, 0xB8, *[0] * 11, 1])))

    def test_without_table(self) -> None:
        """Where the table cannot be asked, an address is ours when a socket can be bound to it."""
        with mock.patch.object(ourselves, "_delivered_here", side_effect=OSError(97, "no such family")):
            self.assertFalse(is_local("192.0.2.1"))
            with mock.patch.object(socket.socket, "bind") as bind:
                self.assertTrue(is_local("192.0.2.1"))
        bind.assert_called_once_with(("192.0.2.1", 0))


class OurselvesTests(SynchronousTestCase):
    """A server is ourselves where we listen, and nowhere else."""

    def ourselves(self, *listens: Endpoint) -> Ourselves:
        """With 192.0.2.1 and 2001:db8::1 as addresses of this host."""
        return Ourselves("Host.example.com", listens, lambda address: address in ("192.0.2.1", "2001:db8::1"))

    def test_exact(self) -> None:
        """Address and port must both be ours: another server may run on this host."""
        us = self.ourselves(Endpoint("127.0.0.1", 2525))
        self.assertTrue(us.listen_at(Endpoint("127.0.0.1", 2525)))
        self.assertFalse(us.listen_at(Endpoint("127.0.0.1", 25)))
        self.assertFalse(us.listen_at(Endpoint("192.0.2.1", 2525)))

    def test_everywhere(self) -> None:
        """A wildcard stands for every address of this host; that of IPv6 for IPv4 too."""
        us = self.ourselves(Endpoint("0.0.0.0", 25))
        self.assertTrue(us.listen_at(Endpoint("192.0.2.1", 25)))
        self.assertFalse(us.listen_at(Endpoint("192.0.2.2", 25)))
        self.assertFalse(us.listen_at(Endpoint("2001:db8::1", 25)))
        self.assertFalse(us.listen_at(Endpoint("192.0.2.1", 26)))
        us = self.ourselves(Endpoint("::", 25))
        self.assertTrue(us.listen_at(Endpoint("192.0.2.1", 25)))
        self.assertTrue(us.listen_at(Endpoint("2001:db8::1", 25)))

    def test_mapped(self) -> None:
        """An IPv4 address in IPv6 form is that address."""
        us = self.ourselves(Endpoint("127.0.0.1", 25), Endpoint("0.0.0.0", 26))
        self.assertTrue(us.listen_at(Endpoint("::ffff:127.0.0.1", 25)))
        self.assertTrue(us.listen_at(Endpoint("::ffff:192.0.2.1", 26)))
        self.assertFalse(us.listen_at(Endpoint("::ffff:192.0.2.1", 25)))
        self.assertTrue(self.ourselves(Endpoint("::ffff:127.0.0.1", 25)).listen_at(Endpoint("127.0.0.1", 25)))

    def test_listen_on(self) -> None:
        """Only where we listen last counts."""
        us = self.ourselves(Endpoint("127.0.0.1", 25))
        us.listen_on([Endpoint("127.0.0.1", 2525)])
        self.assertFalse(us.listen_at(Endpoint("127.0.0.1", 25)))
        self.assertTrue(us.listen_at(Endpoint("127.0.0.1", 2525)))

    def test_name(self) -> None:
        """Our name is us at our port alone."""
        us = self.ourselves(Endpoint("0.0.0.0", 25))
        self.assertTrue(us.are("host.example.com", 25))
        self.assertFalse(us.are("host.example.com", 26))
        self.assertFalse(us.are("mail.example.com", 25))
        self.assertTrue(us.may_be(25))
        self.assertFalse(us.may_be(26))
