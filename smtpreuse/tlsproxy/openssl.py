"""
OpenSSL's error queue, and its errors as words.

The queue belongs to the process, not to a connection: what one call left there would be taken for the error of the next
(Postfix 20200515). So it is emptied before every call.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

clear_errors: Callable[[], None] = Binding().lib.ERR_clear_error


def reason_of(error: Exception) -> str:
    """
    What ended a connection, for people. A connection that ended without close_notify counts as closed: SMTP says itself
    where a reply ends.
    """
    if isinstance(error, SSL.ZeroReturnError):
        return "connection closed"
    if isinstance(error, OSError):
        return f"lost connection ({error.strerror})"
    queue = error.args[0] if error.args else None
    if isinstance(error, SSL.SysCallError) or not queue:
        # What OpenSSL has to say of an end without close_notify.
        return "connection closed"
    return f"TLS error: {queue[-1][-1] or 'unknown'}"
