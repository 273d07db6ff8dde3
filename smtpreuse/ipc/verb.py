"""
What may be asked or told over a link: a name, and the types of its values, which are checked when they come.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

A = TypeVar("A")
R = TypeVar("R")

encode = msgspec.msgpack.Encoder().encode
# What msgspec raises for octets that are no such value.
MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError)


class Verb(Generic[A, R]):
    """
    One thing that may be asked or told.

    @ivar descriptors: how many come with it.
    """

    def __init__(self, name: str, argument: type[A], answer: type[R], *, descriptors: int = 0) -> None:
        self.name = name
        self.octets = name.encode()
        self.descriptors = descriptors
        self.argument = msgspec.msgpack.Decoder(argument)
        self.answer = msgspec.msgpack.Decoder(answer)

    def __repr__(self) -> str:
        return f"<Verb {self.name}>"
