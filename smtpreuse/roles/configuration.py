"""
The configuration as a start needs it: what C{twistd smtpreuse} runs with, and what every C{--check} looks at.

Beside what C{config} knows, the TLS policies are read and the endpoints parsed. What is in the files of keys is
looked at where that is asked for, and by whoever makes TLS of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from smtpreuse.config.load import read_settings
from smtpreuse.config.settings import Settings
from smtpreuse.errors import BadValue, IdentityError, StartError
from smtpreuse.model.tlsfacts import TLSRole, TLSSettings
from smtpreuse.tls.context import Contexts
from smtpreuse.tls.identity import Identity, identity_files, load_identity, read_files
from smtpreuse.tls.policy import Policies

_HIGHEST_PORT = 65535


def startable_settings(
    path: str | None, overrides: Sequence[str], current: str | None = None, *, keys: bool = False
) -> Settings:
    """
    Settings that a service can be started with, as far as that shows before.

    @param path: as in L{read_settings}; C{current} likewise.
    @param keys: whether to look into the files of keys as well. At a start that is left to who needs them.
    @raise ConfigurationError: with all that is wrong with them.
    """
    checks = (_policies, _endpoints, *((_keys,) if keys else ()))
    return read_settings(path, overrides, checks=checks, current=current)


def identity_of(settings: Settings) -> Identity | None:
    """
    Read what clients are shown; L{None} where they are offered no TLS.

    @raise StartError: when there is none that can be used, with the file and the parameter.
    """
    files = identity_files(settings)
    if not files:
        return None
    try:
        identity = load_identity(read_files(files))
        Contexts(identity).context(TLSSettings(role=TLSRole.SERVER))
    except IdentityError as error:
        raise StartError(f"{settings.source(error.parameter)}: {error.parameter}: {error}") from error
    except ValueError as error:
        name = files[-1].parameter
        raise StartError(f"{settings.source(name)}: {name}: {error}: {files[-1].path}") from error
    return identity


def _keys(settings: Settings) -> Iterator[str]:
    try:
        identity_of(settings)
    except StartError as error:
        yield str(error)


def _policies(settings: Settings) -> list[str]:
    return Policies(settings).problems()


def _endpoints(settings: Settings) -> Iterator[str]:
    """What Twisted cannot listen on; whether there is room for us there is seen when the service starts."""
    for text in settings.listen:
        try:
            endpoint(text)
        except BadValue as error:
            what = f"{error} (allowed: such as tcp:2525:interface=127.0.0.1)"
            yield f"{settings.source('listen')}: listen: {what}"


def endpoint(text: str) -> IStreamServerEndpoint:
    """
    Where to listen.

    @param text: as Twisted writes it.
    @raise BadValue: when it is none, with its reason.
    """
    # Not at the top: whoever imports the reactor has chosen which.
    from twisted.internet import reactor

    try:
        found: IStreamServerEndpoint = serverFromString(reactor, text)
    except Exception as error:  # parsers are plugins, and may look for files, keys and descriptors
        reason = str(error)
        if text.startswith("systemd:") and isinstance(error, LookupError):
            reason = "systemd has passed no such socket: was this started by its socket unit?"
        raise BadValue(f"not an endpoint of Twisted ({reason}): {text}") from error
    # Twisted lets the operating system stumble over it, when the service is half up.
    port = getattr(found, "_port", 0)
    if isinstance(port, int) and not 0 <= port <= _HIGHEST_PORT:
        raise BadValue(f"not an endpoint of Twisted (ports end at {_HIGHEST_PORT}): {text}")
    return found
