"""
C{smtpreuse queue}: lists, shows, flushes and deletes queued mail, over the control socket.

With C{--json} the service's lines pass as they come; for people they look as those of C{postqueue -p}. It knows neither
the queue's storage nor what the service does with its mail.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import quote, urlencode

from smtpreuse.cli.control import ControlSocket, asked
from smtpreuse.control.objects import Changed, FullMessage, Message, written
from smtpreuse.model.logline import clean

# As many as the service shows in one page; the form stays under 20 KiB.
_AT_ONCE = 1000
_USAGE = 2
_MARKS = {"active": "*", "hold": "!", "corrupt": "?"}
_HEADING = "----Queue ID-----  --Size-- ----Arrival Time---- -Sender/Recipient-------"

Action = Callable[[argparse.Namespace, ControlSocket], int]


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    actions = subparsers.add_parser("queue", help="list, show, flush and delete queued mail").add_subparsers(
        metavar="ACTION", required=True
    )
    lister = actions.add_parser("list", parents=[common], help="all messages")
    lister.set_defaults(run=partial(command, list_messages))
    shower = actions.add_parser("show", parents=[common], help="one message with its header")
    shower.add_argument("queue_id", metavar="ID")
    shower.set_defaults(run=partial(command, show_message))
    flusher = actions.add_parser("flush", parents=[common], help="try deferred mail now")
    flusher.add_argument("site", nargs="?", metavar="SITE", help="only mail for this recipient domain or nexthop")
    flusher.set_defaults(run=partial(command, flush))
    deleter = actions.add_parser("delete", parents=[common], help="delete messages without a notice to anybody")
    deleter.add_argument("queue_ids", nargs="+", metavar="ID", help="queue ids, or ALL")
    deleter.set_defaults(run=partial(command, delete))


def command(action: Action, arguments: argparse.Namespace) -> int:
    """Run one of the actions."""
    return asked(arguments, partial(action, arguments))


def list_messages(arguments: argparse.Namespace, service: ControlSocket) -> int:
    """Print every message, each as it comes."""
    if arguments.json:
        for line in service.lines("/queue"):
            print(line)
        return 0
    count = size = 0
    for message in service.objects("/queue", Message):
        if not count:
            print(_HEADING)
        count += 1
        size += message.message_size
        print("\n".join(listed(message)), end="\n\n")
    requests = "1 Request" if count == 1 else f"{count} Requests"
    print(f"-- {size // 1024} Kbytes in {requests}." if count else "Mail queue is empty")
    return 0


def listed(message: Message) -> Iterator[str]:
    """The lines of a message in a list: recipients stand behind the reason that they share."""
    mark = _MARKS.get(message.queue_name, " ")
    head = f"{message.queue_id + mark:<17s} {message.message_size:8d}"
    yield f"{head} {_time(message.arrival_time):<20s} {clean(message.sender)}"
    reasons: dict[str | None, list[str]] = {}
    for recipient in message.recipients:
        reasons.setdefault(recipient.delay_reason, []).append(recipient.address)
    for reason, addresses in reasons.items():
        if reason is not None:
            yield f"{f'({clean(reason)})':>78s}"
        for address in addresses:
            yield f"{'':47s} {clean(address)}"


def show_message(arguments: argparse.Namespace, service: ControlSocket) -> int:
    """Print one message."""
    target = f"/queue/{quote(arguments.queue_id, safe='')}"
    if arguments.json:
        for line in service.lines(target):
            print(line)
        return 0
    for message in service.objects(target, FullMessage):
        print("\n".join(shown(message)))
    return 0


def shown(message: FullMessage) -> Iterator[str]:
    """The lines of a message that was asked for."""
    yield f"queue id:      {message.queue_id} ({message.queue_name})"
    yield f"arrived:       {_time(message.arrival_time)}"
    yield f"size:          {message.message_size}"
    yield f"sender:        {clean(message.sender)}"
    for recipient in message.recipients:
        yield f"recipient:     {clean(recipient.address)}"
        if recipient.delay_reason is not None:
            yield f"  deferred:    {clean(recipient.delay_reason)}"
    yield f"attempts:      {message.attempts}"
    if message.next_attempt is not None:
        yield f"next attempt:  {_time(message.next_attempt)}{f' at {message.site}' if message.site else ''}"
    if message.headers is not None:
        yield ""
        for line in message.headers.splitlines():
            yield clean(line.replace("\t", " "))


def flush(arguments: argparse.Namespace, service: ControlSocket) -> int:
    """Make deferred mail due."""
    target = f"/queue/flush?{urlencode({'site': arguments.site})}" if arguments.site else "/queue/flush"
    changed = service.post(target)
    print(written(changed) if arguments.json else f"{_messages(changed.changed)} due now")
    return 0


def delete(arguments: argparse.Namespace, service: ControlSocket) -> int:
    """Delete messages; what is in flight or is not there makes it a failure."""
    queue_ids = list(dict.fromkeys(arguments.queue_ids))
    if "ALL" in queue_ids and len(queue_ids) > 1:
        print("smtpreuse queue delete: ALL stands for every message: name no others beside it", file=sys.stderr)
        return _USAGE
    if queue_ids == ["ALL"]:
        changed = service.post("/queue/delete", [("all", "yes")])
        missing = 0
    else:
        changed = Changed(changed=0, in_flight=0)
        for start in range(0, len(queue_ids), _AT_ONCE):
            form = [("id", queue_id) for queue_id in queue_ids[start : start + _AT_ONCE]]
            part = service.post("/queue/delete", form)
            changed = Changed(changed=changed.changed + part.changed, in_flight=changed.in_flight + part.in_flight)
        missing = len(queue_ids) - changed.changed - changed.in_flight
    print(written(changed) if arguments.json else f"{_messages(changed.changed)} deleted")
    if changed.in_flight:
        print(f"{_messages(changed.in_flight)} left alone: a delivery is under way", file=sys.stderr)
    if missing > 0:
        print(f"{_messages(missing)} not there: no such queue id", file=sys.stderr)
    return 1 if changed.in_flight or missing > 0 else 0


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _time(moment: float) -> str:
    return time.strftime("%a %b %d %H:%M:%S", time.localtime(moment))
