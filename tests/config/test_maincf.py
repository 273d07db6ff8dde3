"""
Tests of C{smtpreuse.config.maincf}.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.maincf import Assignment, Definitions, logical_lines, parse, parse_override, references
from smtpreuse.errors import BadValue

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
WORDS = st.text("abc$%{}()?:=#,. ", max_size=20)


def expanded(text: str, **texts: str) -> str:
    return Definitions(texts).expand(text)


class LogicalLineTests(SynchronousTestCase):
    """
    Lines are those of Postfix: joined where the next begins with white space, without comments.
    """

    def test_continuation(self) -> None:
        """
        A line that begins with white space belongs to the one before, without the line end between them.
        """
        self.assertEqual(logical_lines("a = b\n  c\n\td\ne = f"), ([(1, "a = b  c\td"), (4, "e = f")], []))

    def test_commentsWithin(self) -> None:
        """
        Comments and empty lines, indented or not, do not end a logical line.
        """
        self.assertEqual(logical_lines("a = b\n# no\n\n   # no\n   \n c\n"), ([(1, "a = b c")], []))

    def test_nothingToContinue(self) -> None:
        """
        A first line that begins with white space is lost, and its number told.
        """
        self.assertEqual(logical_lines("\n  a = b\n\tc\nd = e"), ([(4, "d = e")], [2, 3]))

    def test_otherBlanks(self) -> None:
        """
        Blanks beyond ASCII are letters like any other: such a line continues nothing, and what follows is no name.
        """
        self.assertEqual(logical_lines("a = b\n\u00a0c = d\u00a0"), ([(1, "a = b"), (2, "\u00a0c = d\u00a0")], []))
        self.assertEqual(parse("\u00a0c = d\n", "x")[1], ["x:1: not a parameter name: \u00a0c"])

    def test_commentSignWithin(self) -> None:
        """
        Only at the beginning of a line does the sign begin a comment.
        """
        self.assertEqual(logical_lines("a = b # c"), ([(1, "a = b # c")], []))

    def test_carriageReturns(self) -> None:
        """
        Files with CRLF line ends read the same.
        """
        self.assertEqual(logical_lines("a = b\r\n\r\n c\r\n"), ([(1, "a = b c")], []))

    def test_otherSeparators(self) -> None:
        """
        What some call line ends, form feed and U+2028, ends no line.
        """
        self.assertEqual(logical_lines("a = b\x0cc\u2028d"), ([(1, "a = b\x0cc\u2028d")], []))

    @given(st.text("ab=# \t\n", max_size=60))
    def test_everyVisibleOctetKept(self, text: str) -> None:
        """
        Every visible character that is in no comment is in exactly one logical line or in a lost one, in order.
        """
        lines, lost = logical_lines(text)
        kept = "".join(line for number, line in lines)
        told = "".join(text.split("\n")[number - 1] for number in lost)
        wanted = "".join(line for line in text.split("\n") if not line.strip().startswith("#"))
        self.assertEqual("".join((told + kept).split()), "".join(wanted.split()))


class ParseTests(SynchronousTestCase):
    """
    A file becomes assignments that know where they stand, and one line for each error.
    """

    def test_assignments(self) -> None:
        """
        Space around name and value goes; what is empty is a value.
        """
        found, problems = parse("a=1\n\nb  =  two words  \nc =\n", "main.cf")
        self.assertEqual(problems, [])
        self.assertEqual(
            found,
            [
                Assignment(name="a", value="1", origin="main.cf:1"),
                Assignment(name="b", value="two words", origin="main.cf:3"),
                Assignment(name="c", value="", origin="main.cf:4"),
            ],
        )

    def test_equalsInValue(self) -> None:
        """
        The first C{=} divides.
        """
        self.assertEqual([assignment.value for assignment in parse("a = b = c", "x")[0]], ["b = c"])

    def test_everyAssignmentKept(self) -> None:
        """
        Two assignments to one name are two, in the order of the file.
        """
        self.assertEqual([assignment.origin for assignment in parse("a = 1\na = 2", "x")[0]], ["x:1", "x:2"])

    def test_allErrors(self) -> None:
        """
        One wrong line hides neither the next nor what is right.
        """
        found, problems = parse(" lost\nno assignment\n= 3\na-b = 3\nc = 4", "/etc/main.cf")
        self.assertEqual(
            problems,
            [
                "/etc/main.cf:1: a line that begins with white space continues nothing",
                "/etc/main.cf:2: no '=' behind the name: no assignment",
                "/etc/main.cf:3: not a parameter name: ",
                "/etc/main.cf:4: not a parameter name: a-b",
            ],
        )
        self.assertEqual([assignment.name for assignment in found], ["c"])

    def test_override(self) -> None:
        """
        An option of the command line is an assignment that says so.
        """
        self.assertEqual(parse_override("a=b c"), Assignment(name="a", value="b c", origin="command line"))
        with self.assertRaises(BadValue) as caught:
            parse_override("a")
        self.assertEqual(caught.exception.problems, ("no '=' behind the name: a",))

    @given(st.dictionaries(NAMES, st.from_regex(r"(\S( ?\S){0,5})?", fullmatch=True), max_size=6))
    def test_roundTrip(self, texts: Mapping[str, str]) -> None:
        """
        What is written as C{name = value} is read as such.
        """
        found, problems = parse("".join(f"{name} = {value}\n" for name, value in texts.items()), "x")
        self.assertEqual(problems, [])
        self.assertEqual({assignment.name: assignment.value for assignment in found}, dict(texts))

    @given(st.lists(st.from_regex(r"[a-z$={}]{1,5}", fullmatch=True), min_size=1, max_size=5), st.data())
    def test_everyCut(self, words: list[str], data: st.DataObject) -> None:
        """
        A value may be continued on the next line at every one of its spaces.
        """
        separators = [data.draw(st.sampled_from([" ", "\n ", "\n# comment\n ", "\n\n "])) for word in words]
        text = "a =" + "".join(map("".join, zip(separators, words, strict=True)))
        self.assertEqual(parse(text, "x"), ([Assignment(name="a", value=" ".join(words), origin="x:1")], []))


class ExpansionTests(SynchronousTestCase):
    """
    C{$names} are replaced as in Postfix.
    """

    def test_forms(self) -> None:
        """
        All ways of writing a name give its value.
        """
        for text in ("$a", "${a}", "$(a)", "${ a }"):
            self.assertEqual(expanded(f"<{text}>", a="1"), "<1>", text)

    def test_nameEnds(self) -> None:
        """
        A name without brackets ends before the first character that no name has.
        """
        self.assertEqual(expanded("$a/$a.b$a_b", a="1", a_b="2"), "1/1.b2")

    def test_dollar(self) -> None:
        """
        Two dollars are one, and begin no name.
        """
        self.assertEqual(expanded("$$a$$$a", a="1"), "$a$1")

    def test_nested(self) -> None:
        """
        Values of names are expanded in their turn.
        """
        self.assertEqual(expanded("$a", a="<$b>", b="${c}c", c="1"), "<1c>")

    def test_whenSet(self) -> None:
        """
        C{?} gives its text where the name has a value, C{:} where it has none or is not defined.
        """
        self.assertEqual(expanded("${a?yes}", a="1"), "yes")
        self.assertEqual(expanded("${a?yes}", a=""), "")
        self.assertEqual(expanded("${a?yes}"), "")
        self.assertEqual(expanded("${a:no}", a="1"), "")
        self.assertEqual(expanded("${a:no}", a=""), "no")
        self.assertEqual(expanded("${a:no}"), "no")

    def test_whenExpandsToNothing(self) -> None:
        """
        A name whose value expands to nothing has none.
        """
        self.assertEqual(expanded("${a?yes}${a:no}", a="$b", b=""), "no")

    def test_braces(self) -> None:
        """
        The texts of both cases may stand in braces.
        """
        for text in ("${a?{yes}:{no}}", "${a ? {yes} : {no} }", "${a?{yes}:no}"):
            self.assertEqual(expanded(text, a="1"), "yes", text)
            self.assertEqual(expanded(text, a=""), "no", text)
        self.assertEqual(expanded("${a?{yes}}${a:{no}}", a="1"), "yes")
        self.assertEqual(expanded("${a?{yes}}${a:{no}}", a=""), "no")

    def test_bracesWithin(self) -> None:
        """
        Texts may hold braces and names; the one not chosen is not looked at.
        """
        self.assertEqual(expanded("${a?{x{$b}y}:{$none}}", a="1", b="2"), "x{2}y")
        self.assertEqual(expanded("${a?${b?{1}:{2}}}z", a="1", b=""), "2z")

    def test_colonWithoutBraces(self) -> None:
        """
        A text without braces goes to the end, colons included.
        """
        self.assertEqual(expanded("${a?b:c}", a="1"), "b:c")

    def test_undefined(self) -> None:
        """
        A name that is not defined is an error where its value is wanted.
        """
        for text in ("$none", "${none}", "$(none)"):
            with self.assertRaises(BadValue) as caught:
                expanded(text)
            self.assertEqual(str(caught.exception), "refers to a name that is not defined: $none")

    def test_cycle(self) -> None:
        """
        Names that lead back to themselves are named in their order, from where the circle begins.
        """
        definitions = Definitions({"start": "$a", "a": "$b", "b": "x${c:y}", "c": "$(a)"})
        for name, cycle in (("start", "a -> b -> c -> a"), ("b", "b -> c -> a -> b")):
            with self.assertRaises(BadValue) as caught:
                definitions.value(name)
            self.assertEqual(str(caught.exception), f"its $names lead in a circle: {cycle}")

    def test_depth(self) -> None:
        """
        What is nested too deeply for us is an error like any other.
        """
        deep = "".join("${a?{" for _ in range(5000)) + "x" + "}}" * 5000
        for texts in ({"a": "1", "b": deep}, {f"b{n}": f"$b{n + 1}" for n in range(5000)} | {"b5000": "", "b": "$b0"}):
            with self.assertRaises(BadValue) as caught:
                Definitions(texts).value("b")
            self.assertEqual(str(caught.exception), "its $names are nested too deeply")

    def test_afterCycle(self) -> None:
        """
        An error leaves nothing behind: other values can still be had.
        """
        definitions = Definitions({"a": "$a", "b": "1"})
        self.assertRaises(BadValue, definitions.value, "a")
        self.assertEqual(definitions.value("b"), "1")
        self.assertRaises(BadValue, definitions.value, "a")

    def test_syntaxErrors(self) -> None:
        """
        What is no reference is told, never passed on.
        """
        for text, what in {
            "a$": "a $ that no name follows (one $ is written $$): a$",
            "$-": "a $ that no name follows (one $ is written $$): $-",
            "${a": "a '{' that is not closed: ${a",
            "$(a}": "a '(' that is not closed: $(a}",
            "${}": "a $ whose brackets hold no name: ${}",
            "${a!b}": "neither '?' nor ':' behind the name: !b",
            "${a?{b}c}": "what does not belong behind '}': c",
            "${a?{b}:{c}d}": "what does not belong behind '}': {c}d",
            "${a:{b}:{c}}": "what does not belong behind '}': :{c}",
            "${a?{b}": "a '{' that is not closed: ${a?{b}",
            "${{a} == {b}?{c}:{d}}": "comparisons do not work yet: ${{a} == {b}?{c}:{d}}",
        }.items():
            with self.assertRaises(BadValue) as caught:
                expanded(text, a="1")
            self.assertEqual(str(caught.exception), what)

    def test_references(self) -> None:
        """
        Every name that is mentioned counts as used, in a text not chosen too; C{$$} mentions none.
        """
        self.assertEqual(references("$a ${b?$c} $(d) ${ e:{$f}} $$g $"), {"a", "b", "c", "d", "e", "f"})

    @given(st.dictionaries(NAMES, WORDS, max_size=4), WORDS)
    @example({"a": "$b", "b": "$a"}, "$a")
    def test_endsAlways(self, texts: Mapping[str, str], text: str) -> None:
        """
        Whatever is written, it is expanded or refused with a reason.
        """
        try:
            result = Definitions(dict(texts)).expand(text)
        except BadValue as error:
            self.assertTrue(str(error))
        else:
            self.assertTrue("$" in text or result == text)

    @given(st.text(max_size=30))
    def test_escaped(self, text: str) -> None:
        """
        With its dollars doubled every text is itself.
        """
        self.assertEqual(expanded(text.replace("$", "$$")), text)

    @given(st.text("abc =:?.", max_size=10), st.text("abc =.", max_size=10))
    def test_choice(self, yes: str, no: str) -> None:
        """
        Of two texts in braces exactly one is taken, as it stands.
        """
        text = f"${{a?{{{yes}}}:{{{no}}}}}"
        self.assertEqual(expanded(text, a="1"), yes)
        self.assertEqual(expanded(text, a=""), no)
