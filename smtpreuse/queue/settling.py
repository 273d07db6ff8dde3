"""
What becomes of recipients when a report comes: told to the operator, counted, recorded, returned to the sender, or
given out once more.

It applies what C{queue.schedule.settle} decides, and knows neither lanes nor what is in memory.
"""

from __future__ import annotations

from random import Random

from attrs import evolve, frozen

from smtpreuse.interfaces import IMailLog
from smtpreuse.model import logline
from smtpreuse.model.delivery import Blame, DeliveryReport, Ending, Outcome
from smtpreuse.model.message import Recipient
from smtpreuse.model.queueview import Counters
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.ledger import Ledger
from smtpreuse.queue.line import Job
from smtpreuse.queue.returns import Returns
from smtpreuse.queue.schedule import RetryRules, Settled, settle


@frozen(kw_only=True)
class SettlingRules:
    """
    @ivar sessions: that one request may have in one attempt, 0 for no limit.
    """

    retry: RetryRules
    sessions: int


class Settling:
    """Brings each report to its end."""

    def __init__(
        self, ledger: Ledger, returns: Returns, maillog: IMailLog, contents: ContentCache, random: Random,
        rules: SettlingRules,
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._returns = returns
        self._maillog = maillog
        self._contents = contents
        self._random = random
        self._rules = rules
        self._counts = {"delivered": 0, "reused": 0, "deferred": 0, "bounced": 0}

    def adopt(self, rules: SettlingRules) -> None:
        """Settle by these rules from now on."""
        self._rules = rules

    def counters(self) -> Counters:
        """What was done since the start."""
        return Counters(**self._counts)

    def finish(self, job: Job, report: DeliveryReport, program: str = "smtp", *, tried: bool = True) -> bool:
        """
        A request ended.

        @param program: under whose name the operator's log has it.
        @param tried: whether it counts as an attempt.
        @return: whether the job, with those of its recipients that nothing was decided of, is to be given out again.
        """
        message = job.message
        settled = settle(
            message.queue_id, message.sender, message.arrived, report, self._rules.retry,
            others_left=self._others_left(job, report), now=report.finished, jitter=self._random.random(), tried=tried,
        )  # fmt: skip
        self._tell(job, report, settled, program)
        if settled.failed and message.sender:
            self._returns.make(message, report, settled, self._contents.get(message.queue_id), self._ledger.enter)
        elif settled.recorded:
            self._ledger.enter(settled.recorded)
        if not settled.again:
            return False
        job.sessions += 1 if report.uses else 0
        if settled.elsewhere and report.endpoint is not None:
            job.tried |= {report.endpoint}
        elif report.uses:
            job.fresh = True
        if len(settled.again) != len(message.recipients):
            job.message = evolve(message, recipients=settled.again)
        return True

    def _others_left(self, job: Job, report: DeliveryReport) -> bool:
        limit = self._rules.sessions
        if job.route is None or report.endpoint is None or (limit and job.sessions + 1 >= limit):
            return False
        tried = job.tried | {report.endpoint}
        return any(candidate.endpoint not in tried for candidate in job.route.candidates)

    def _tell(self, job: Job, report: DeliveryReport, settled: Settled, program: str) -> None:
        """To the operator's log, and to the counters."""
        message, counts = job.message, self._counts
        if report.uses > 1:
            counts["reused"] += 1
        for outcome in report.outcomes:
            if outcome.recipient in settled.again:
                continue
            failed = outcome in settled.failed
            if self._rules.retry.soft_bounce and outcome.status[0] == "5":
                outcome = evolve(outcome, status=f"4{outcome.status[1:]}")
            counts["bounced" if failed else "delivered" if outcome.ending is Ending.DELIVERED else "deferred"] += 1
            line = logline.attempt(message.queue_id, message.arrived, job.since, report, outcome)
            self._maillog.write(program, line, report.process)
        if settled.again and report.uses:
            first = next(each for each in report.outcomes if each.recipient in settled.again)
            self._maillog.write(program, f"{message.queue_id}: {first.text}", report.process)
        if settled.expired:
            self._maillog.write("qmgr", logline.expired(message.queue_id, message.sender))


def own_report(recipients: tuple[Recipient, ...], status: str, text: str, now: float) -> DeliveryReport:
    """
    A report of what needed no session: a local transport, a failed route, a fault of ours.

    @param now: UNIX time.
    """
    ending = Ending.DELIVERED if status[0] == "2" else Ending.REFUSED
    outcomes = tuple(Outcome(recipient=each, ending=ending, status=status, text=text) for each in recipients)
    return DeliveryReport(
        ticket=0, outcomes=outcomes, started=now, ready=now, finished=now, exhausted=True, blame=Blame.OURSELVES
    )
