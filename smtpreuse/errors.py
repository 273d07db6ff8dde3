"""
The error tree.

Exceptions end sessions, look-ups and starts; what a server says about a recipient is no exception but an
L{Outcome<smtpreuse.model.delivery.Outcome>}. Every error says what was tried, with what, and what follows.
"""

from __future__ import annotations


class SmtpreuseError(Exception):
    """Whatever this service raises on purpose."""


class ConfigurationError(SmtpreuseError):
    """
    The configuration cannot be used.

    @ivar problems: one line per error, each in the form C{FILE:LINE: NAME: what is wrong: VALUE (allowed: ...)}.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ServiceEnding(SmtpreuseError):
    """The service is about to end, and does nothing new."""


class StartError(SmtpreuseError):
    """The service cannot start: what its configuration names is not to be had."""


class IdentityError(SmtpreuseError):
    """
    There is no key with its certificate in the files that are to hold them; nothing of what is in them is quoted.

    @ivar parameter: that names the file.
    """

    def __init__(self, parameter: str, text: str) -> None:
        super().__init__(text)
        self.parameter = parameter


class TableError(SmtpreuseError):
    """A look-up table could not be read or asked; the mail in question is to be deferred."""


class AddressError(SmtpreuseError, ValueError):
    """A mail address, nexthop or literal that does not follow its grammar."""


class ProtocolError(SmtpreuseError):
    """A peer broke the SMTP grammar; its connection is not to be believed any more."""


class SessionLost(SmtpreuseError):
    """
    A session ended, or stalled for longer than its phase allows.

    @ivar stage: what was going on, in the words of Postfix's log (C{sending MAIL FROM}).
    """

    def __init__(self, reason: str, stage: str = "") -> None:
        super().__init__(f"{reason} while {stage}" if stage else reason)
        self.reason = reason
        self.stage = stage


class DeliveryProblem(SmtpreuseError):
    """
    No session can be had for a request; what it is recorded with.

    @ivar status: RFC 3463 status; its class says whether to defer (4) or to bounce (5).
    """

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class RouteError(DeliveryProblem):
    """A destination could not be resolved to candidates."""


class PolicyError(DeliveryProblem):
    """A policy could not be learned or cannot be met: the mail is deferred, never sent with less."""


class DNSError(SmtpreuseError):
    """
    A question of the domain name system has no answer.

    @ivar temporary: whether asking later may help (time-out, SERVFAIL), or the answer is final.
    """

    def __init__(self, text: str, *, temporary: bool) -> None:
        super().__init__(text)
        self.temporary = temporary


class NoSuchName(DNSError):
    """NXDOMAIN: the name does not exist."""

    def __init__(self, text: str) -> None:
        super().__init__(text, temporary=False)


class NoSuchRecords(DNSError):
    """NODATA: the name exists and has no records of the type asked for."""

    def __init__(self, text: str) -> None:
        super().__init__(text, temporary=False)


class SpoolError(SmtpreuseError):
    """The queue's storage failed: nothing may be promised until it works again."""


class SpoolInUse(SpoolError):
    """Another service holds the queue directory."""


class SpoolSchemaError(SpoolError):
    """The queue was written by another version of the schema."""


class SpoolFull(SpoolError):
    """Too little free space to take another message."""


class LinkError(SmtpreuseError):
    """A process of ours cannot be asked, or what it says is not what was agreed on."""


class LinkBroken(LinkError):
    """A process of ours does not keep to what was agreed: nothing it says is believed any more."""


class LinkRefused(LinkError):
    """A process of ours was asked, and says no."""


class DescriptorError(SmtpreuseError):
    """A descriptor was used by somebody who does not own it."""


class BadValue(SmtpreuseError, ValueError):
    """
    A text is no value of its parameter.

    @ivar problems: one for each error, C{what is wrong: VALUE}; who knows the parameter puts its place and name before
        them.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
