"""
Faults that change nothing anybody could see: L{mutants<tests.mutants>} does not count them.

(module, line as it stands in the text, what is changed) -> why nothing follows from it.
"""

from __future__ import annotations

_LAZY = "what stands behind it decides how much it takes, greedy or not"
_WHOLE = "growth is by whole steps of one, so that nothing is left over"

HARMLESS: dict[tuple[str, str, str], str] = {
    ("smtpreuse.smtp.capabilities", 'number = words[1] if len(words) > 1 else ""', "'' to '?'"): (
        "neither is a number"
    ),
    (
        "smtpreuse.smtp.command",
        '_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"',
        "'[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?' to '[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])??'",
    ): _LAZY,
    (
        "smtpreuse.smtp.command",
        r'''_DOMAIN = rf"(?P<domain>{_LABEL}(?:\.{_LABEL})*)"''',
        r"'(?:\\.' to '(?:\\.?'",
    ): "two labels without a dot between them are one label",
    ("smtpreuse.smtp.command", """_ROUTE = r'(?:@[^:<>"]*:)?'""", """'(?:@[^:<>"]*:)?' to '(?:@[^:<>"]*:)??'"""): _LAZY,
    (
        "smtpreuse.smtp.command",
        r'_BARE_PATH = re.compile(rf"[ \t]*{_MAILBOX}(?=[ \t]|$)".encode())',
        r"'[ \\t]*' to '[ \\t]*?'",
    ): _LAZY,
    ("smtpreuse.smtp.command", '_SIZE = re.compile(rb"[0-9]{1,20}")', "b'[0-9]{1,20}' to b'[0-9]{1,20}?'"): _LAZY,
    ("smtpreuse.smtp.content", "self._skip = 2", "2 to 3"): "only asked whether it is 0",
    ("smtpreuse.smtp.content", "return self._decoded(data[: end + 2]), data[end + 5 :]", "2 to 3"): (
        "the dot that comes along is taken off like any other"
    ),
    (
        "smtpreuse.smtp.content",
        r'if lines != raw.count(b"\r") or lines != raw.count(b"\r\n") or b"\0" in raw:',
        r"b'\r\n' to b'\r\n?'",
    ): "a quick look before the thorough one, which finds nothing either",
    ("smtpreuse.smtp.content", "self._tail = (self._tail + data[-2:])[-2:]", "2 to 3"): (
        "of the two numbers that of the part: the other one cuts to two"
    ),
    ("smtpreuse.smtp.reply", "self._code = 0", "removed"): "set with the first line of a reply, read with the second",
    ("smtpreuse.smtp.reply", "self._code = 0", "0 to 1"): "set with the first line of a reply, read with the second",
    (
        "smtpreuse.smtp.reply",
        r'if len(rest) > LINE_LIMIT and len(rest.removesuffix(b"\r")) > LINE_LIMIT:',
        "Gt to GtE",
    ): "of the two comparisons the first, which spares the second",
    ("smtpreuse.smtp.reply", "self._lines = []", "removed"): "memory of a parser that takes nothing any more",
    ("smtpreuse.smtp.lines", "if self._at < len(self._buffer):", "Lt to LtE"): "puts nothing before what came",
    ("smtpreuse.smtp.lines", "if len(self) > LINE_LIMIT + 1:", "1 to 2"): (
        "keeps one octet more; the line is found too long by itself"
    ),
    ("smtpreuse.smtp.server", "self._decoder = None", "removed"): "memory of a session that is over",
    (
        "smtpreuse.smtp.answers",
        'text = "".join(letter if " " <= letter <= "~" else "?" for letter in text)',
        "'~' to '~?'",
    ): "no single letter is between the two",
    ("smtpreuse.scache.store", "self._saved = 0", "0 to 1"): "numbers are unique and rise: no more is promised",
    ("smtpreuse.scache.store", "self._saved += 1", "1 to 2"): "numbers are unique and rise: no more is promised",
    ("smtpreuse.scache.store", "self._sweep = 0.0", "0.0 to 1.0"): "set with the first destination",
    ("smtpreuse.scache.store", "if surplus <= 0:", "LtE to Lt"): "takes none of them out, with more work",
    ("smtpreuse.queue.schedule", "while self._success + 0.5 >= 1:", "GtE to Gt"): _WHOLE,
    ("smtpreuse.queue.schedule", "self.size = min(self.size, limit)", "removed"): _WHOLE,
    ("smtpreuse.queue.schedule", "self._success = 0.0", "removed"): _WHOLE,
    ("smtpreuse.queue.schedule", "while self._failure - 0.5 < 0:", "Lt to LtE"): _WHOLE,
    ("smtpreuse.queue.schedule", "if self._cohorts >= 1 - 1e-9:", "GtE to Gt"): "no sum of fractions is exactly this",
    ("smtpreuse.queue.schedule", "self._cohorts = 0.0", "removed"): (
        "on death: whatever comes next, a failure kills again and a success sets it to 0"
    ),
    ("smtpreuse.queue.schedule", "self._cohorts = 0.0", "0.0 to 1.0"): (
        "on death: whatever comes next, a failure kills again and a success sets it to 0"
    ),
    ("smtpreuse.queue.schedule", "_limit: int = 0", "0 to 1"): "not believed before a limit is learned",
    ("smtpreuse.queue.schedule", "_until: float = 0.0", "0.0 to 1.0"): "the limit is 0 until one is learned",
}
