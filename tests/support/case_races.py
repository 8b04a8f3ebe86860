"""Cases with several writers: frozen ones, simultaneous ones, ones with a wrong clock, and a disk that fills up."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from tests.support import scenarios
from tests.support.cases import Outcome
from tests.support.failures import Failure
from tests.support.installation import Installation
from tests.support.scenarios import Scenario, both, described, installed

from akosha.errors import AkoshaError, RetryableError
from akosha.jobs import plans
from akosha.quality.fsck import fsck

ACTS: Final[dict[str, Callable[[Installation], object]]] = {
    "ingest": scenarios.do_ingest,
    "embed": scenarios.do_embed,
    "hot to warm": scenarios.hot_to_warm,
    "warm to cold": scenarios.warm_to_cold,
    "promote": scenarios.promote,
    "sweep": scenarios.sweep,
}
EITHER: Final = Scenario("several", "due", lambda _: None, both(0), both(1))
EMPTY: Final = Scenario("several", "due", lambda _: None, {}, both(0))


def settle(installation: Installation) -> None:
    """Do whatever is left to do: where writers have raced, this must come to the same."""
    for name in ("ingest", "embed", "hot to warm", "warm to cold"):
        ACTS[name](installation)


def judge(scenario: Scenario, installation: Installation, outcome: Outcome) -> str:
    """Compare a lake with the dictionary and check it; a digest of its export."""
    found = installation.export()
    wrong = scenario.wrong(found)
    outcome.lost += wrong["lost"]
    outcome.doubled += wrong["doubled"]
    outcome.altered += wrong["altered"]
    report = fsck(installation.lake, read_data=True)
    outcome.damage += [f"{one.code} {one.key}: {one.message}" for one in report.findings if one.severity == "damage"]
    return described(found)


def start(act: Callable[[], object], log: Path, failure: Failure | None = None) -> int:
    """Do something in a child; its process id. `log` gets why it failed, and whether that may be tried again."""
    pid = os.fork()
    if pid:
        return pid
    if failure is not None:
        failure.arm()
    code = 0
    try:
        act()
    except Exception as error:
        code = 1 if isinstance(error, RetryableError) else 2
        log.write_text(f"{'' if isinstance(error, AkoshaError) else 'no AkoshaError: '}{type(error).__name__}: {error}")
    os._exit(code)


def ended(pid: int, log: Path, outcome: Outcome) -> None:
    """Wait for a child; what is neither success nor to be tried again is wrong."""
    status = os.waitpid(pid, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    said = log.read_text() if log.exists() else ""
    outcome.ended += {0: "done ", 1: "again "}.get(code, f"exit {code} ")
    outcome.said += said[:300]
    if code not in {0, 1}:
        outcome.differs.append(f"a race ended with {code}: {said}")


def frozen(installation: Installation, request: dict[str, Any]) -> Outcome:
    """A writer stands still at a point while others work, and goes on long after."""
    outcome = Outcome()
    log = installation.folder / "frozen"
    waits = _FreezeAt(request["point"], request["nth"])
    pid = start(lambda: ACTS[request["act"]](installation), log, waits)
    stopped = os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    outcome.fired = request["point"] if stopped else ""
    for name in request["others"]:
        ACTS[name](installation)
    judge(EITHER, installation, outcome)
    if stopped:
        os.kill(pid, signal.SIGCONT)
        ended(pid, log, outcome)
    return _settled(installation, request, outcome)


class _FreezeAt(Failure):
    def __init__(self, point: str, nth: int) -> None:
        super().__init__("freeze", nth)
        self._point = point

    def __call__(self, name: str) -> None:
        if name == self._point:
            super().__call__(name)


def together(installation: Installation, request: dict[str, Any]) -> Outcome:
    """Several writers at once."""
    outcome = Outcome()
    if request["acts"].count("ingest") > 1:
        scenarios.own_sandbox()
    logs = [installation.folder / f"writer-{number}" for number in range(len(request["acts"]))]
    running = [
        (start(lambda name=name: ACTS[name](installation), log), log)  # type: ignore[misc]
        for name, log in zip(request["acts"], logs, strict=True)
    ]
    for pid, log in running:
        ended(pid, log, outcome)
    judge(EITHER, installation, outcome)
    return _settled(installation, request, outcome)


def _settled(installation: Installation, request: dict[str, Any], outcome: Outcome) -> Outcome:
    settle(installation)
    if judge(EITHER, installation, outcome) != request["export"]:
        outcome.differs.append("the export after everything is done is not that of undisturbed runs")
    heads = installation.heads()
    settle(installation)
    if installation.heads() != heads:
        outcome.differs.append("a run with nothing left to do published a version")
    return outcome


def calm(installation: Installation, request: dict[str, Any]) -> dict[str, Any]:
    """What everything done in peace comes to."""
    for name in request["acts"]:
        ACTS[name](installation)
    settle(installation)
    return {"export": described(installation.export())}


def skewed(installation: Installation, request: dict[str, Any]) -> Outcome:
    """Jobs on a machine whose clock is wrong, beside others on one whose clock is right."""
    outcome = Outcome()
    with _clock_off(request["days"]):
        for name in request["acts"]:
            ACTS[name](installation)
    judge(EITHER, installation, outcome)
    return _settled(installation, request, outcome)


@contextmanager
def _clock_off(days: float) -> Any:
    right = plans.now
    wrong = lambda: right() + timedelta(days=days)  # noqa: E731
    modules = [module for name, module in sys.modules.items() if name.startswith("akosha.jobs")]
    found = [module for module in modules if getattr(module, "now", None) is right]
    for module in found:
        module.now = wrong  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in found:
            module.now = right  # type: ignore[attr-defined]


def disk_full(root: Path, request: dict[str, Any]) -> Outcome:
    """Runs on a small disk with little left on it: it fails with the reason or fits; with room again all is done."""
    outcome = Outcome()
    folder = Path(request["disk"]) / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "due", folder)
    installation = installed(folder)
    filler = Path(request["disk"]) / "filler"
    with filler.open("wb") as file, suppress(OSError):
        room = shutil.disk_usage(folder).free - (request["free_kilobytes"] << 10)
        file.write(bytes(max(0, room)))
    try:
        for name in request["acts"]:
            log = Path(request["logs"]) / f"full-{name}"
            pid = start(lambda name=name: ACTS[name](installation), log)  # type: ignore[misc]
            ended(pid, log, outcome)
    finally:
        filler.unlink()
    judge(EITHER, installation, outcome)
    return _settled(installation, request, outcome)


RACES: Final[dict[str, Callable[[Installation, dict[str, Any]], Any]]] = {
    "frozen": frozen,
    "together": together,
    "skewed": skewed,
    "calm race": calm,
}
PAIRS: Final[Sequence[tuple[str, str]]] = (
    ("ingest", "ingest"),
    ("hot to warm", "hot to warm"),
    ("ingest", "hot to warm"),
    ("ingest", "embed"),
    ("hot to warm", "warm to cold"),
)
