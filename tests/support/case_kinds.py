"""What a case does: a copied lake, a victim that meets a failure, what is left, and the next run. See `tests.support.cases`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from botocore import endpoint
from tests.support import scenarios
from tests.support.case_damage import objects, spoil
from tests.support.case_races import EITHER, RACES, disk_full, judge
from tests.support.cases import Outcome, in_child, memory_folder
from tests.support.failures import Failure
from tests.support.installation import Installation
from tests.support.mutation_corpus import SmallSandbox
from tests.support.scenarios import SCENARIOS, Scenario, described, installed
from tests.support.storm_machine import play

from akosha.errors import AkoshaError, ConfigurationError, RetryableError
from akosha.jobs import reading
from akosha.lake import failpoints, s3_store, shard_log
from akosha.lake.s3_store import S3Store

SAID: Final = 300
IMPORTED: Final = ("pandas", "pyarrow.dataset", "boto3.s3.transfer", "jsonschema")


def prepare(stack: ExitStack) -> None:
    """Start what all cases of this process share, and import what the jobs import where they need it."""
    for name in IMPORTED:
        import_module(name)
    scenarios.share_sandbox(stack.enter_context(SmallSandbox()))
    assert reading.fsck_lake


def run(request: dict[str, Any]) -> Any:
    """Do what a request asks for."""
    if request["do"] in RACES:
        with in_bucket(request, EITHER) if "bucket" in request else _twice(request, EITHER) as (installation, _):
            return RACES[request["do"]](installation, request)
    if request["do"] == "disk full":
        return disk_full(Path(request["root"]), request)
    return {
        "stages": make_stages,
        "calm": calm,
        "crash": crash,
        "calm s3": calm_s3,
        "weather": weather,
        "objects": objects,
        "spoil": spoil,
        "machine": play,
    }[request["do"]](request)


def make_stages(request: dict[str, Any]) -> Any:
    scenarios.stages(Path(request["root"]))
    return {}


@contextmanager
def copied(request: dict[str, Any], scenario: Scenario) -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(dir=memory_folder(), prefix="akosha-storm-") as folder:
        shutil.copytree(Path(request["root"]) / scenario.stage, Path(folder) / "case")
        yield installed(Path(folder) / "case")


@contextmanager
def _twice(request: dict[str, Any], scenario: Scenario) -> Iterator[tuple[Installation, Installation]]:
    with copied(request, scenario) as installation:
        yield installation, installation


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
        judge(scenario, installation, outcome)
        scenario.act(installation)
        export = judge(scenario, installation, outcome)
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


@contextmanager
def in_bucket(request: dict[str, Any], scenario: Scenario) -> Iterator[tuple[Installation, Installation]]:
    """The stage's lake copied into a bucket, as seen through the proxy and as seen directly."""
    with copied(request, scenario) as local:
        bucket = request["bucket"]
        client = s3_store.make_client(request["direct"])
        client.create_bucket(Bucket=bucket)
        for source, prefix in (("lake", "lake"), ("uploads", "up")):
            store = S3Store(client, bucket, prefix, setting="AKOSHA_LAKE_URL")
            folder = local.folder / source
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    store.put(path.relative_to(folder).as_posix(), path.read_bytes())
        folder = local.folder
        yield tuple(
            Installation.on_s3(folder, endpoint, bucket, **scenarios.SETTINGS)
            for endpoint in (request["proxy"], request["direct"])
        )  # type: ignore[misc]


def calm_s3(request: dict[str, Any]) -> Any:
    """The undisturbed run on S3: ETags in the provenance differ from those of a folder."""
    scenario = SCENARIOS[request["scenario"]]
    with in_bucket(request, scenario) as (_, direct):
        scenario.act(direct)
        return {"export": described(direct.export())}


def weather(request: dict[str, Any]) -> Outcome:
    """A run whose every request may meet a fault, tried again while it fails, and at last once without."""
    _hasten()
    scenario, outcome = SCENARIOS[request["scenario"]], Outcome()
    with in_bucket(request, scenario) as (stormy, direct):
        for _ in range(request["attempts"]):
            try:
                scenario.act(stormy)
            except AkoshaError as error:
                outcome.ended = "failed"
                outcome.said += f"{type(error).__name__}: {error}"[:SAID] + "\n"
                if not isinstance(error, RetryableError | ConfigurationError):
                    outcome.differs.append(f"a fault of the network was taken for something else: {outcome.said}")
            else:
                outcome.ended = "done"
                break
            judge(scenario, direct, outcome)
        scenario.act(direct)
        if judge(scenario, direct, outcome) != request["export"]:
            outcome.differs.append("the export after the next run is not that of an undisturbed run")
    return outcome


def _hasten() -> None:
    """Shorter waits of the client library and of the commit protocol: what they wait for here is a test."""
    real = time.sleep
    endpoint.time = SimpleNamespace(sleep=lambda seconds: real(min(seconds, 0.01)))  # type: ignore[attr-defined]
    shard_log.FIRST_WAIT_SECONDS = 0.001
    s3_store.READ_TIMEOUT_SECONDS = 1


def _serve() -> None:
    with ExitStack() as stack:
        prepare(stack)
        for line in sys.stdin:
            request = json.loads(line)
            sys.stdout.write(json.dumps(in_child(lambda: run(request))) + "\n")  # noqa: B023 - called at once
            sys.stdout.flush()


if __name__ == "__main__":
    _serve()
