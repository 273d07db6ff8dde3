"""
Plants faults into the pure modules, one at a time, and looks whether their tests notice: C{tox -e mutants}.

Each fault lives in a forked child, which loads the changed module and runs the module's tests, the quickest first,
until one fails. A child that takes far longer than the sound module did counts as noticed: it hangs.

    python -m tests.mutants [--survivors] [MODULE...]

Exit status 1 when less than 85 % of a module's faults were noticed, or when one that L{HARMLESS} lists was noticed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import random
import resource
import signal
import sys
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from attrs import define, field

from tests.faults import Fault, faults
from tests.harmless import HARMLESS

LEAST = 0.85
# Module -> the tests that are to notice.
TARGETS = {
    "smtpreuse.smtp.answers": ("tests.smtp.test_answers", "tests.smtp.test_server", "tests.smtp.test_server_starttls"),
    "smtpreuse.smtp.capabilities": ("tests.smtp.test_capabilities",),
    "smtpreuse.smtp.client": ("tests.smtp.test_client",),
    "smtpreuse.smtp.command": ("tests.smtp.test_command",),
    "smtpreuse.smtp.content": ("tests.smtp.test_content", "tests.smtp.test_linebreaker"),
    "smtpreuse.smtp.lines": ("tests.smtp.test_lines",),
    "smtpreuse.smtp.order": ("tests.smtp.test_server", "tests.smtp.test_server_starttls"),
    "smtpreuse.smtp.reply": ("tests.smtp.test_reply",),
    "smtpreuse.smtp.server": ("tests.smtp.test_server", "tests.smtp.test_server_starttls"),
    "smtpreuse.tls.carry": ("tests.tls.test_carry",),
    "smtpreuse.scache.idle": ("tests.scache.test_idle",),
    "smtpreuse.scache.store": ("tests.scache.test_store",),
    "smtpreuse.queue.line": ("tests.queue.test_line",),
    "smtpreuse.queue.schedule": ("tests.queue.test_schedule",),
}
MEMORY = 4 << 30
_OURS = ("tests", "tests.mutants", "tests.faults", "tests.harmless")


@define
class Tally:
    """What became of a module's faults."""

    killed: int = 0
    harmless: int = 0
    survivors: list[str] = field(factory=list)
    seconds: float = 0.0

    @property
    def share(self) -> float:
        return self.killed / max(1, self.killed + len(self.survivors))


class _FirstFailure(unittest.TestResult):
    """Stops at what is not as it should be."""

    failfast = True


def _cases(names: tuple[str, ...]) -> list[unittest.TestCase]:
    def flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
        for test in suite:
            if isinstance(test, unittest.TestCase):
                yield test
            else:
                yield from flat(test)

    return list(flat(unittest.defaultTestLoader.loadTestsFromNames(names)))


def _calm_hypothesis() -> None:
    """The same examples each time, and no search for the smallest: that it fails is all we ask."""
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants", phases=[Phase.explicit, Phase.generate], database=None, derandomize=True, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    settings.load_profile("mutants")


def _load(name: str, tree: ast.Module, path: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None, name
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(ast.fix_missing_locations(tree), path, "exec"), module.__dict__)
    package, _, short = name.rpartition(".")
    setattr(sys.modules[package], short, module)


def _sound(tests: tuple[str, ...]) -> list[tuple[float, str]]:
    """
    Run the tests over the module as it is, in this process.

    @return: each test's seconds and id, the quickest first.
    """
    timed = []
    for case in _cases(tests):
        result = _FirstFailure()
        begun = time.perf_counter()
        case.run(result)
        if not result.wasSuccessful():
            sys.exit(f"{case.id()} fails without any fault:\n{(result.errors + result.failures)[0][1]}")
        timed.append((time.perf_counter() - begun, case.id()))
    return sorted(timed)


def _in_child(work: Callable[[], object], limit: float) -> int:
    """
    @param limit: seconds after which the child is killed.
    @return: the child's wait status: 0 when C{work} returned.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        work()
        status = 0
    finally:
        os._exit(status)


def _survives(name: str, tree: ast.Module, path: str, order: dict[str, int], tests: tuple[str, ...]) -> None:
    """Raise when the tests notice that the module is this one."""
    _load(name, tree, path)
    for case in sorted(_cases(tests), key=lambda case: order.get(case.id(), 0)):
        result = _FirstFailure()
        case.run(result)
        if not result.wasSuccessful():
            raise AssertionError(case.id())


def _examine(name: str, tests: tuple[str, ...]) -> Tally:
    """Plant all faults into one module. Runs in a process of its own that has loaded nothing of the project's."""
    begun = time.perf_counter()
    timed = _sound(tests)
    limit = 5 + 10 * sum(each for each, _ in timed)
    order = {identity: place for place, (_, identity) in enumerate(timed)}
    path = importlib.import_module(name).__file__ or ""
    _forget()
    source = Path(path).read_text()
    lines = source.splitlines()
    tree = ast.parse(source)
    if _in_child(lambda: _survives(name, tree, path, order, tests), limit):
        sys.exit(f"{name}: loaded anew, it fails its tests without any fault")
    tally = Tally()
    met: set[tuple[str, str]] = set()
    for fault in faults(tree):
        text = lines[fault.line - 1].strip()

        def work(fault: Fault = fault) -> None:
            fault.plant()
            _survives(name, tree, path, order, tests)

        if _in_child(work, limit):
            tally.killed += 1
        elif (name, text, fault.what) in HARMLESS:
            met.add((text, fault.what))
            tally.harmless += 1
        else:
            tally.survivors.append(f"{name}:{fault.line}: {fault.what}\n    {text}")
    for module, text, what in HARMLESS:
        if module == name and (text, what) not in met:
            sys.exit(f"{name}: listed as harmless, but gone or noticed: {what!r} in {text!r}")
    tally.seconds = time.perf_counter() - begun
    return tally


def _forget() -> None:
    """Unload what the project has loaded here, but this module: each child loads it anew, around its fault."""
    for loaded in list(sys.modules):
        if loaded.split(".")[0] in ("smtpreuse", "tests") and loaded not in _OURS:
            del sys.modules[loaded]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--survivors", action="store_true", help="show the faults that nobody noticed")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TARGETS)}")
    options = parser.parse_args()
    os.nice(10)
    random.seed(1)
    _calm_hypothesis()
    print(f"{'module':<30} {'faults':>6} {'noticed':>7} {'share':>6} {'harmless':>8} {'seconds':>7}", flush=True)
    enough = True
    for name in options.modules or TARGETS:
        enough = _report(name, options.survivors) and enough
    return 0 if enough else 1


def _report(name: str, survivors: bool) -> bool:
    """Examine one module in a process of its own, and print its line; whether enough was noticed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            tally = _examine(name, TARGETS[name])
            planted = tally.killed + len(tally.survivors)
            share, harmless = f"{tally.share:.1%}", tally.harmless
            print(f"{name:<30} {planted:>6} {tally.killed:>7} {share:>6} {harmless:>8} {tally.seconds:>7.1f}")
            if survivors and tally.survivors:
                print("\n".join(tally.survivors))
            status = 0 if tally.share >= LEAST else 1
        except SystemExit as refusal:
            print(refusal)
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    sys.exit(main())
