"""
A destination made of aiosmtpd, as a program: it asks for STARTTLS and keeps each message in a file named after its
recipient.

    python aiosmtpd_server.py DIRECTORY CERTIFICATE

prints the port that it listens on and then C{connection}, C{handshake} or C{message} for each of them, and runs until
it is ended.
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

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """A session begins, or begins anew within TLS."""
        session.host_name = hostname
        print("connection" if session.ssl is None else "handshake", flush=True)
        return responses

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """A message is complete."""
        content = envelope.original_content
        assert content is not None
        for recipient in envelope.rcpt_tos:
            self._keep(recipient, content)
        print("message", flush=True)
        return "250 2.0.0 kept" if session.ssl is not None else "250 2.0.0 kept, in plaintext"

    def _keep(self, recipient: str, content: bytes) -> None:
        part = self._directory.with_suffix(".part")
        part.write_bytes(content)
        kept = self._directory / recipient
        while kept.exists():
            # It came twice: it is there twice.
            kept = kept.with_name(f"{kept.name}+")
        part.rename(kept)


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
