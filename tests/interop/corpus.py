"""
Sixty messages that have broken mail software, each with a name. None of them may be changed on its way.
"""

from __future__ import annotations

# Where buffers of 4 KiB to 64 KiB end; Twisted reads 64 KiB at a time.
_CUTS = (4096, 8192, 16384, 32768, 65536)
_LINES = (997, 998, 999, 1000, 1001, 1002, 1100, 2047, 2048, 2049, 4096, 100_000)
MEBIBYTE = 1024 * 1024


def _headed(name: str, body: bytes) -> bytes:
    return f"From: <sender@source.test>\r\nSubject: {name}\r\nMessage-ID: <{name}@source.test>\r\n\r\n".encode() + body


def _dot_at(name: str, offset: int) -> bytes:
    """A message in which a line that begins with a dot begins at this offset."""
    head = _headed(name, b"")
    lines, rest = divmod(offset - len(head) - 2, 80)
    return head + (b"x" * 78 + b"\r\n") * lines + b"y" * rest + b"\r\n" + b"." + b"z" * 70 + b"\r\n..\r\nend\r\n"


def corpus() -> dict[str, bytes]:
    """All messages by name; those that do not end in CRLF get one on their way."""
    messages = {}
    for cut in _CUTS:
        for shift in (-1, 0, 1):
            name = f"dot-at-{cut + shift}"
            messages[name] = _dot_at(name, cut + shift)
    for length in _LINES:
        name = f"line-of-{length}"
        messages[name] = _headed(name, b"a" * length + b"\r\n")
    bodies = {
        "one-dot": b".\r\n",
        "two-dots": b"..\r\n",
        "three-dots": b"...\r\n",
        "lines-of-dots": b".\r\n..\r\n.\r\n...\r\n" * 70_000,
        "hundred-dots": b"." * 100 + b"\r\n",
        "dot-last": b"text\r\n.\r\n",
        "dot-and-blank": b".\r\n\r\n.\r\n",
        "dot-and-command": b".\r\nMAIL FROM:<x@y.test>\r\nRCPT TO:<y@y.test>\r\nDATA\r\n.\r\nQUIT\r\n",
        "no-body": b"",
        "blank-lines": b"\r\n" * 50,
        "one-letter": b"a\r\n",
        "no-last-newline": b"the end",
        "no-last-newline-dot": b"the end\r\n.",
        "trailing-blanks": b"text \t \r\n \r\n\t\r\n",
        "latin-1": "Grüße, ça va?\r\n".encode("latin-1"),
        "utf-8": "Grüße, Привет, 你好\r\n".encode(),
        "every-octet": bytes(octet for octet in range(1, 256) if octet not in (10, 13)) + b"\r\n",
        "from-line": b"From someone Mon Jan 1\r\n>From someone\r\n",
        "html": b"<p>" + b"<b>bold</b>" * 80 + b"</p>\r\n",
        "many-short-lines": b"\r\n".join(b"%d" % number for number in range(20_000)) + b"\r\n",
        "one-mebibyte": (b"m" * 76 + b"\r\n") * (MEBIBYTE // 78),
        "fifty-mebibytes": (b"M" * 1022 + b"\r\n") * (50 * 1024),
        "base64": (b"QUJD" * 19 + b"\r\n") * 300,
    }
    for name, body in bodies.items():
        messages[name] = _headed(name, body)
    folded = b"".join(b"\tfolded line %d\r\n" % number for number in range(500))
    messages["folded-header"] = b"X-Folded: begins\r\n" + folded + _headed("folded-header", b"body\r\n")
    fields = b"".join(b"X-Field-%d: %s\r\n" % (number, b"f" * 900) for number in range(1130))
    messages["header-of-one-mebibyte"] = fields + _headed("header-of-one-mebibyte", b"body\r\n")
    messages["one-field-of-64-kibibytes"] = b"X-Long: " + b"l" * 65_536 + b"\r\n" + _headed("long", b"body\r\n")
    hops = b"".join(b"Received: from h%d.test by h%d.test\r\n" % (hop, hop + 1) for hop in range(40))
    messages["forty-hops"] = b"X-First: field\r\n" + hops + _headed("forty-hops", b"body\r\n")
    # What follows has no header as such, or nothing at all.
    messages["empty"] = b""
    messages["only-a-newline"] = b"\r\n"
    messages["only-a-dot"] = b".\r\n"
    messages["only-two-dots"] = b"..\r\n"
    messages["only-newlines-and-dots"] = b"\r\n.\r\n\r\n..\r\n"
    messages["no-header"] = b"just text\r\n"
    return messages
