#!/usr/bin/env python3
"""
Measures the service between C{smtpreuse source} and C{smtpreuse sink}, on loopback, with nothing else: messages per
second from the first connect to the last arrival, connections, CPU time and memory of all processes of the service.

Run it with the interpreter of the environment that smtpreuse is installed in:

    .venv/bin/python bench/run.py                       # one run with the defaults
    .venv/bin/python bench/run.py --compare             # reuse against no reuse, in turn; and their ratio
    .venv/bin/python bench/run.py --far                 # a destination 50 ms away that allows 5 connections
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

SMTPREUSE = [sys.executable, "-m", "smtpreuse.cli.main"]
TWISTD = os.path.join(os.path.dirname(sys.executable), "twistd")
TICK = os.sysconf("SC_CLK_TCK")
# Seconds without an arrival after which a run is given up.
STALL = 60.0
CONFIGURATION = {
    "myhostname": "bench.test",
    "mynetworks": "127.0.0.0/8",
    "queue_directory": "spool",
    "maillog_file": "maillog",
    "smtp_tls_security_level": "encrypt",
}

Process = subprocess.Popen[str]


@contextmanager
def running(command: list[str], directory: str, marker: str) -> Iterator[tuple[Process, str]]:
    """
    A process, and what it wrote behind the marker on the line that says that it is ready; it ends with SIGTERM.
    """
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if marker in line), None)
        if line is None:
            raise SystemExit(f"{command[0]} did not start")
        yield process, line.partition(marker)[2].strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        process.wait()


def counts(sink: Process) -> dict[str, float]:
    """What the sink counted so far."""
    assert sink.stdout is not None
    sink.send_signal(signal.SIGUSR1)
    return json.loads(sink.stdout.readline())


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


def used(pid: int) -> tuple[float, float]:
    """CPU seconds so far of a process and its descendants, and the MiB that they have in memory."""
    seconds, mebibytes = 0.0, 0.0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / TICK
        mebibytes += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return seconds, mebibytes


def arrivals(sink: Process, wanted: int) -> dict[str, float]:
    """Wait for so many messages; the counts then."""
    seen, news = counts(sink), time.monotonic()
    while seen["messages"] - seen["doubled"] < wanted and time.monotonic() - news < STALL:
        time.sleep(0.1)
        before, seen = seen, counts(sink)
        if seen["messages"] != before["messages"]:
            news = time.monotonic()
    return seen


def measure(arguments: argparse.Namespace, settings: dict[str, str]) -> dict[str, object]:
    """One run."""
    sink_options = ["--tls", "required", "--delay", str(arguments.delay)]
    sink_options += ["--max-connections", str(arguments.sink_connections)]
    with (
        tempfile.TemporaryDirectory(prefix="smtpreuse-bench-") as directory,
        running([*SMTPREUSE, "sink", *sink_options], directory, '{"listening":') as (sink, listening),
    ):
        host, _, port = listening.strip('"}').rpartition(":")
        values = {**CONFIGURATION, "relayhost": f"[{host}]:{port}", **settings}
        Path(directory, "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
        command = [TWISTD, "-n", "--pidfile=", "--logfile=events", "smtpreuse", "--config", "main.cf"]
        command += ["--listen", "tcp:0:interface=127.0.0.1"]
        with running(command, directory, "ready: listening on ") as (service, address):
            cpu_before, _ = used(service.pid)
            options = [
                "--messages",
                arguments.messages,
                "--size",
                arguments.size,
                "--connections",
                arguments.connections,
            ]
            command = [*SMTPREUSE, "source", address, "--json", *map(str, options)]
            source = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            seen = arrivals(sink, arguments.messages)
            cpu_after, memory = used(service.pid)
            sent = json.loads(source.communicate()[0])
        seconds = seen["last"] - sent["began"]
        return {
            "settings": settings,
            "messages": arguments.messages,
            "delivered": seen["messages"] - seen["doubled"],
            "doubled": seen["doubled"],
            "seconds": round(seconds, 3),
            "messages_per_second": round(seen["messages"] / seconds, 1),
            "taken_per_second": sent["messages_per_second"],
            "connections": seen["connections"],
            "cpu_seconds_per_1000": round((cpu_after - cpu_before) / arguments.messages * 1000, 3),
            "mebibytes": round(memory, 1),
        }


def main() -> int:
    """Measure, and print a line of JSON for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--runs", type=int, default=3)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--connections", type=int, default=20, help="of the source")
    parser.add_argument("--delay", type=float, default=0.0, help="of the sink, in seconds")
    parser.add_argument("--sink-connections", type=int, default=0, help="that the sink allows; 0 is no limit")
    parser.add_argument("--far", action="store_true", help="500 messages, --delay 0.05, --sink-connections 5")
    parser.add_argument("--compare", action="store_true", help="each run with and without reuse")
    parser.add_argument("-o", dest="settings", action="append", default=[], metavar="name=value")
    arguments = parser.parse_args()
    if arguments.far:
        arguments.messages, arguments.delay, arguments.sink_connections = 500, 0.05, 5
    settings = dict(setting.split("=", 1) for setting in arguments.settings)
    variants = [settings]
    if arguments.compare:
        variants.append({**settings, "smtp_tls_connection_reuse": "no"})
    rates: list[list[float]] = [[] for _ in variants]
    good = True
    for _ in range(arguments.runs):
        for variant, collected in zip(variants, rates, strict=True):
            run = measure(arguments, variant)
            print(json.dumps(run), flush=True)
            collected.append(float(str(run["messages_per_second"])))
            good = good and run["delivered"] == arguments.messages and run["doubled"] == 0
    summary = {"median_messages_per_second": [median(collected) for collected in rates]}
    if arguments.compare:
        summary["reuse_is_faster_by"] = [round(median(rates[0]) / median(rates[1]), 2)]
    print(json.dumps(summary))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
