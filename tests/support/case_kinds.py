"""What a case does: a copied lake, a victim that meets a failure, what is left, and the next run. See `tests.support.cases`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tests.support import scenarios
from tests.support.cases import Outcome, in_child, memory_folder
from tests.support.failures import Failure
from tests.support.installation import Installation
from tests.support.mutation_corpus import SmallSandbox
from tests.support.scenarios import SCENARIOS, Scenario, described, installed

from akosha.errors import AkoshaError
from akosha.jobs import reading
from akosha.lake import failpoints
from akosha.quality.fsck import fsck

SAID: Final = 300
IMPORTED: Final = ("pandas", "great_expectations.expectations", "pyarrow.dataset", "boto3.s3.transfer", "jsonschema")


def prepare(stack: ExitStack) -> None:
    """Start what all cases of this process share, and import what the jobs import where they need it."""
    for name in IMPORTED:
        import_module(name)
    scenarios.share_sandbox(stack.enter_context(SmallSandbox()))
    assert reading.fsck_lake


def run(request: dict[str, Any]) -> Any:
    """Do what a request asks for."""
    return {"stages": make_stages, "calm": calm, "crash": crash}[request["do"]](request)


def make_stages(request: dict[str, Any]) -> Any:
    scenarios.stages(Path(request["root"]))
    return {}


@contextmanager
def copied(request: dict[str, Any], scenario: Scenario) -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(dir=memory_folder(), prefix="akosha-storm-") as folder:
        shutil.copytree(Path(request["root"]) / scenario.stage, Path(folder) / "case")
        yield installed(Path(folder) / "case")


def calm(request: dict[str, Any]) -> Any:
    """The undisturbed run: its failpoints, and what every other run must end as."""
    scenario = SCENARIOS[request["scenario"]]
    with copied(request, scenario) as installation:
        names: list[str] = []
        failpoints.hooks.append(names.append)
        scenario.act(installation)
        failpoints.hooks.clear()
        found = installation.export()
        assert not any(scenario.wrong(found).values())
        return {"points": len(names), "names": names, "export": described(found)}


def crash(request: dict[str, Any]) -> Outcome:
    """A victim that meets one failure; then what it left is judged, and the next run must heal it."""
    scenario = SCENARIOS[request["scenario"]]
    with copied(request, scenario) as installation:
        outcome = _victim(scenario, installation, Failure(request["kind"], request["at"]))
        _judge(scenario, installation, outcome)
        scenario.act(installation)
        export = _judge(scenario, installation, outcome)
        if export != request["export"]:
            outcome.differs.append("the export after the next run is not that of an undisturbed run")
        heads = installation.heads()
        scenario.act(installation)
        if installation.heads() != heads:
            outcome.differs.append("a run with nothing left to do published a version")
        return outcome


def _victim(scenario: Scenario, installation: Installation, failure: Failure) -> Outcome:
    log = installation.folder / "points"
    pid = os.fork()
    if pid == 0:
        os._exit(_be_victim(scenario, installation, failure, log))
    status = os.waitpid(pid, 0)[1]
    outcome = Outcome()
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        outcome.ended, outcome.fired = "killed", f"point {failure.at}"
        return outcome
    points, outcome.fired, outcome.said = log.read_text().split("\n", 2)
    outcome.points, outcome.ended = int(points), ("done", "failed")[os.WEXITSTATUS(status)]
    return outcome


def _be_victim(scenario: Scenario, installation: Installation, failure: Failure, log: Path) -> int:
    failure.arm()
    said, code = "", 0
    try:
        scenario.act(installation)
    except Exception as error:
        code = 1
        said = f"{'AkoshaError' if isinstance(error, AkoshaError) else 'error'} {type(error).__name__}: {error}"
    log.write_text(f"{failure.points}\n{failure.fired}\n{said[:SAID]}")
    return code


def _judge(scenario: Scenario, installation: Installation, outcome: Outcome) -> str:
    found = installation.export()
    wrong = scenario.wrong(found)
    outcome.lost += wrong["lost"]
    outcome.doubled += wrong["doubled"]
    outcome.altered += wrong["altered"]
    report = fsck(installation.lake, read_data=True)
    outcome.damage += [f"{one.code} {one.key}: {one.message}" for one in report.findings if one.severity == "damage"]
    return described(found)


def _serve() -> None:
    with ExitStack() as stack:
        prepare(stack)
        for line in sys.stdin:
            request = json.loads(line)
            sys.stdout.write(json.dumps(in_child(lambda: run(request))) + "\n")  # noqa: B023 - called at once
            sys.stdout.flush()


if __name__ == "__main__":
    _serve()
