"""From uploads in S3 to an answered search, through a real Airflow, on one machine and without asking anything.

    .venv/bin/python deploy/demo.py [--once]

Everything it makes lies in ``.demo/`` in the checkout: delete the folder to begin anew, keep it to resume. Only
127.0.0.1 is listened on. See `keeper` for why no process is left behind.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keeper
import progress
import report
from airflow_stack import ROOT, USER, Stack, create_pools, free_port, healthy, load_secrets
from processes import Child, Children, Interrupted, LauncherError
from rest import Airflow, RefusedError

# The order of a night, one after the other; schedules and assets stay off until the report is out.
NIGHT = ("akosha_ingest", "akosha_embed", "akosha_hot_to_warm", "akosha_warm_to_cold", "akosha_validate")
QUESTION = "retry a request after a timeout"
UI_PORT = 8080
RUN_SECONDS = 900
HEALTHY_SECONDS = 240
AKOSHA = Path(sys.executable).with_name("akosha")
_FOREIGN = ("AIRFLOW", "AKOSHA_", "AWS_")

Json = dict[str, Any]


class RunFailedError(Exception):
    """A DAG run is red; what there is to say has been printed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the demo keeps what it makes."""

    root: Path

    @property
    def lake(self) -> Path:
        """The lake; with the anchor what makes a second launch a continuation."""
        return self.root / "lake"

    @property
    def home(self) -> Path:
        """AIRFLOW_HOME."""
        return self.root / "airflow"

    @property
    def logs(self) -> Path:
        """What the programs print."""
        return self.root / "logs"

    @property
    def world(self) -> Path:
        """The uploads, as files."""
        return self.root / "world"

    @property
    def world_report(self) -> Path:
        """What `akosha demo-uploads` said about them; there when they are complete."""
        return self.root / "world.json"

    def anchor(self) -> str:
        """The instant at which the world of uploads ends: the first launch, so that later ones re-create equal objects."""
        path = self.root / "anchor"
        if not path.exists():
            unfinished = self.root / "anchor.new"
            unfinished.write_text(datetime.now(UTC).replace(second=0, microsecond=0).isoformat())
            unfinished.replace(path)
        return path.read_text().strip()


@dataclass(slots=True)
class Demo:
    """One launch."""

    place: Place
    stack: Stack
    children: Children
    client: Airflow
    screen: progress.Screen = field(default_factory=progress.Screen)
    started: float = field(default_factory=time.monotonic)

    def prepare(self) -> Json:
        """Start S3 and Airflow and write the uploads, all at the same time as far as one does not need the other.

        Returns:
            What `akosha demo-uploads` says about the world.
        """
        say = self.screen.line
        migration = self.stack.begin_migration(self.children)
        say(f"{'preparing Airflow (once), ' if migration else ''}starting S3 and Airflow, writing uploads")
        s3_port = int(self.children.environment["AKOSHA_S3_ENDPOINT_URL"].rpartition(":")[2])
        moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(s3_port)]
        self.children.start("s3", moto, service=True)
        self.children.wait(lambda: not _free(s3_port), "the S3 server", seconds=120)
        self.children.finished(self.children.start("buckets", [sys.executable, ROOT / "deploy" / "buckets.py"]))
        building = None if self.place.world_report.exists() else self._begin_world()
        since = datetime.now(UTC)
        self.stack.start(self.children, migration)
        self.answer(self.akosha("init"))
        world = self._world(building)
        say(
            f"{progress.clock(self.started)}  S3 holds {world['uploads']} uploads of {world['systems']} systems, "
            f"{report.size(world['size_bytes'])}"
        )
        self.children.wait(
            lambda: healthy(self.client, since), "Airflow to be healthy", seconds=HEALTHY_SECONDS, every=0.5
        )
        self.client.log_in()
        create_pools(self.client)
        self.children.wait(self._dags_known, "Airflow to read the DAG files", seconds=120, every=0.5)
        say(
            f"{progress.clock(self.started)}  Airflow is up: {self.stack.url} (user {USER}, {self.stack.secrets.password})"
        )
        return world

    def _begin_world(self) -> Child:
        """Build the uploads in a folder, once: later launches copy the same bytes into their new S3 server."""
        shutil.rmtree(self.place.world, ignore_errors=True)
        self.place.world.mkdir()
        elsewhere = f"AKOSHA_UPLOADS_URL={self.place.world.as_uri()}"
        command = ["env", elsewhere, AKOSHA, "demo-uploads", "--anchor", self.place.anchor(), "--json"]
        return self.children.start("akosha-demo-uploads", command)

    def _world(self, building: Child | None) -> Json:
        """Put the uploads into S3; what `akosha demo-uploads` said about them."""
        if building is not None:
            made = self.answer(building)
            unfinished = self.place.world_report.with_suffix(".new")
            unfinished.write_text(json.dumps(made))
            unfinished.replace(self.place.world_report)
        publish = [sys.executable, ROOT / "deploy" / "publish_world.py", self.place.world]
        self.children.finished(self.children.start("publish-world", publish))
        return json.loads(self.place.world_report.read_text())

    def _dags_known(self) -> bool:
        if errors := self.client.import_errors():
            message = f"Airflow cannot read {errors[0]['filename']}:\n{errors[0]['stack_trace']}"
            raise LauncherError(message)
        return self.client.dag_ids() >= set(NIGHT)

    def run(self, dag_id: str) -> Json:
        """Trigger a DAG and `follow` it."""
        return self.follow(dag_id, self.trigger(dag_id))

    def trigger(self, dag_id: str) -> str:
        """Start a run; its id."""
        run_id = self.client.trigger(dag_id)
        self.client.pause(dag_id, paused=False)
        return run_id

    def follow(self, dag_id: str, run_id: str) -> Json:
        """Follow a run to its end.

        Returns:
            The summary that its last task returned.

        Raises:
            RunFailedError: the run is red.
        """
        told: set[tuple[str, int, int]] = set()
        began = time.monotonic()

        def ended() -> bool:
            tasks = self.client.tasks(dag_id, run_id)
            self._tell(tasks, told)
            self.screen.live(f"{progress.clock(self.started)}  {dag_id:<21}", progress.describe(tasks))
            return progress.finished(tasks) and self.client.run_state(dag_id, run_id) in {"success", "failed"}

        self.children.wait(ended, f"{dag_id} to end", seconds=RUN_SECONDS, every=1.0)
        summary = self.client.result(dag_id, run_id, "finish")
        if self.client.run_state(dag_id, run_id) == "failed" or summary is None:
            self.screen.line(
                f"{progress.clock(self.started)}  {dag_id:<21}FAILED after {progress.clock(began).strip()}"
            )
            raise RunFailedError(dag_id)
        took = progress.clock(began).strip()
        self.screen.line(f"{progress.clock(self.started)}  {dag_id:<21}{summary['message']} [{took}]")
        return summary

    def _tell(self, tasks: list[Json], told: set[tuple[str, int, int]]) -> None:
        """Print every failed attempt once, as soon as it is known."""
        for task in progress.troubled(tasks):
            attempt = (task["task_id"], task["map_index"], task["try_number"])
            if attempt not in told:
                told.add(attempt)
                self.screen.line(progress.explain(task, self.place.home / "logs"))

    def akosha(self, *arguments: str) -> Child:
        """Start an `akosha` command."""
        return self.children.start(f"akosha-{arguments[0]}", [AKOSHA, *arguments, "--json"])

    def answer(self, child: Child) -> Json:
        """What an `akosha` command answered."""
        text = self.children.finished(child)
        # Warnings of libraries go to the same log; the answer is one object.
        return json.loads(text[text.index("{") : text.rindex("}") + 1])

    def night(self) -> None:
        """Run every DAG and print the report: one after the other, or all at once when nothing new came in."""
        ingest, *others = NIGHT
        summaries = {ingest: self.run(ingest)}
        if not summaries[ingest]["rows_changed"]:
            runs = {dag_id: self.trigger(dag_id) for dag_id in others}
            search = self.akosha("search", QUESTION)
            summaries |= {dag_id: self.follow(dag_id, run_id) for dag_id, run_id in runs.items()}
            self._report(summaries, search)
            return
        summaries |= {dag_id: self.run(dag_id) for dag_id in others[:-1]}
        # What is searched is in place; loading the model for the question takes a while, and validation only reads.
        search = self.akosha("search", QUESTION)
        summaries[NIGHT[-1]] = self.run(NIGHT[-1])
        self._report(summaries, search)

    def _report(self, summaries: dict[str, Json], search: Child) -> None:
        status = self.answer(self.akosha("status"))
        memos = self.answer(self.akosha("quarantine", "list"))["quarantined"]
        lines = [
            *report.discovered(summaries["akosha_ingest"]),
            *report.moved(summaries),
            "",
            *report.tiers(status),
            "",
            *report.verified(summaries["akosha_validate"]),
            "",
            *report.quarantined(memos),
            "",
            *report.search(QUESTION, self.answer(search)),
        ]
        self.screen.line()
        for line in lines:
            self.screen.line(line)

    def stay(self) -> None:
        """Leave everything running until somebody stops the launcher."""
        self.stack.start_schedules(self.children)
        for dag_id in NIGHT:
            self.client.pause(dag_id, paused=False)
        self.screen.line()
        self.screen.line(f"Airflow     {self.stack.url}   user {USER}   password {self.stack.secrets.password}")
        self.screen.line("            The DAGs now run on their own schedules. Ctrl-C stops everything.")
        while True:
            self.children.check()
            time.sleep(0.5)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def environment(place: Place, s3_port: int) -> dict[str, str]:
    """What every program finds in its environment: nothing of Airflow, Akosha or AWS that the caller had set."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    local = "127.0.0.1,localhost"
    return inherited | {
        # As many as a small machine has cores: every mapped task imports what it works with.
        "AKOSHA_BATCHES": "2",
        "AKOSHA_CACHE_DIR": str(place.root / "cache"),
        "AKOSHA_LAKE_URL": place.lake.as_uri(),
        "AKOSHA_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "AKOSHA_UPLOADS_URL": "s3://akosha-uploads",
        # The S3 server takes any credentials; the caller's own must not come near it.
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": local,
        "no_proxy": local,
        "PATH": f"{AKOSHA.parent}{os.pathsep}{inherited.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
    }


def build(place: Place) -> Demo:
    """Choose ports and secrets and put the launch together; nothing is started."""
    for folder in (place.home, place.logs):
        folder.mkdir(parents=True, exist_ok=True)
    stack = Stack(place.home, free_port(UI_PORT), load_secrets(place.root / "secrets.json"))
    children = Children(place.logs, environment(place, free_port()))
    return Demo(place, stack, children, stack.client())


def play(demo: Demo, *, once: bool) -> int:
    """The whole launch; the exit code of the outcome."""
    code = 1
    try:
        demo.prepare()
        demo.night()
        code = 0
    except RunFailedError as failure:
        demo.screen.line()
        demo.screen.line(f"{failure} failed; what was committed before stays, and running the demo again resumes.")
        demo.screen.line(f"The lake: {demo.place.lake}   The logs: {demo.place.home / 'logs'}")
    if not once:
        try:
            demo.stay()
        except Interrupted:
            demo.screen.line("stopping")
    return code


def main() -> int:
    """Parse, take the lock, play, and stop every process whatever happens."""
    parser = argparse.ArgumentParser(description="Akosha end to end on this machine, until Ctrl-C.")
    parser.add_argument("--once", action="store_true", help="stop after the report; the exit code tells the outcome")
    parser.add_argument("--state", type=Path, default=ROOT / ".demo", help="folder for everything (default: .demo)")
    options = parser.parse_args()
    place = Place(options.state.resolve())
    place.root.mkdir(parents=True, exist_ok=True)
    lock = (place.root / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another demo is running with {place.root}: stop it first", file=sys.stderr)
        return 1
    keeper.adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup means what it says; SIGINT is ignored in whatever a script starts with `&`, where it means nothing.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    demo = build(place)
    try:
        return play(demo, once=options.once)
    except Interrupted as interrupted:
        demo.screen.line("stopping")
        return interrupted.exit_code
    except (LauncherError, RefusedError, OSError) as error:
        demo.screen.line(f"the demo failed: {error}")
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        demo.children.stop()


def _interrupt(number: int, _frame: object) -> None:
    raise Interrupted(number)


if __name__ == "__main__":
    sys.exit(main())
