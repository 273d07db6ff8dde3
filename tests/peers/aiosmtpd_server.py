"""
A destination made of aiosmtpd, as a program: it offers STARTTLS and keeps each message in a file named after its
recipient.

    python -m tests.peers.aiosmtpd_server DIRECTORY CERTIFICATE

prints the port that it listens on, and runs until it is ended.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

# So that what the service sends is seen, not what aiosmtpd makes of it.
SMTP.line_length_limit = 2**20


class Keeper:
    """Keeps what comes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """A message is complete."""
        content = envelope.original_content
        assert content is not None
        for recipient in envelope.rcpt_tos:
            part = self._directory / f"{recipient}.part"
            part.write_bytes(content)
            part.rename(self._directory / recipient)
        return "250 2.0.0 kept" if session.ssl is not None else "250 2.0.0 kept, in plaintext"


async def serve(directory: Path, certificate: str) -> None:
    """Listen, for ever."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    def protocol() -> SMTP:
        return SMTP(
            Keeper(directory), data_size_limit=None, enable_SMTPUTF8=True, tls_context=context, require_starttls=True
        )

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
