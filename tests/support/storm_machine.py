"""A Hypothesis state machine: everything that can be done to a lake, in any order, by writers that die, fail, stand still and meet.

After every event the lake is compared with the dictionary.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from tests.support.cases import memory_folder
from tests.support.storm_world import NAMES, SYSTEMS, VERSIONS, Fate, World, done

from akosha.errors import UsageError

STEPS: Counter[str] = Counter()
LATEST_POINT = 150
systems = st.sampled_from(SYSTEMS)
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
skews = st.sampled_from([0, 0, 0, -400, 400])
# Most acts end undisturbed; the others die, fail or are overtaken at one of their failpoints.
fates = st.one_of(
    st.just(("calm", 0)), st.tuples(st.sampled_from(["calm", "dies", "fails", "waits"]), st.integers(1, LATEST_POINT))
)


class Storm(RuleBasedStateMachine):
    """One lake and its writers."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="akosha-machine-", dir=memory_folder()))
        self.world = World(self.folder)
        self.events = 0

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self.world.assert_sound(read_data=True)
        shutil.rmtree(self.folder)

    def _do(self, name: str, act: Callable[[], None], fate: tuple[str, int], other: str) -> bool:
        kind, at = fate
        met = Fate(kind, at, self._other(other) if kind == "waits" else None)
        ended = done(act, met)
        self._count(name if not met.met else f"{name} that {kind}")
        self.world.check()
        if met.met and kind == "dies":
            STEPS["retries"] += 1
        return ended

    def _count(self, name: str) -> None:
        self.events += 1
        STEPS[name] += 1
        if self.events % 10 == 0:
            self.world.assert_sound(read_data=False)

    def _other(self, name: str) -> Callable[[], None]:
        """What another writer does while one stands still: to both systems."""
        world = self.world

        def act() -> None:
            for system in SYSTEMS:
                if name == "sweep":
                    world.days += 40
                    world.sweep(system, 0)
                elif name == "move":
                    world.move("hot", system, 0)
                elif name == "promote":
                    world.promote(system, NAMES)
                else:
                    world.ingest()

        return act

    @rule(system=systems, rows=st.dictionaries(st.sampled_from(NAMES), st.integers(0, VERSIONS - 1), min_size=1),
          with_vectors=st.booleans())  # fmt: skip
    def send(self, system: str, rows: dict[str, int], with_vectors: bool) -> None:
        self.world.send(system, rows, with_vectors=with_vectors)
        self._count("upload")

    @rule(fate=fates, other=st.sampled_from(["ingest", "move", "sweep", "promote"]))
    def ingest(self, fate: tuple[str, int], other: str) -> None:
        before = {system: model.held for system, model in self.world.models.items()}
        if self._do("ingest", self.world.ingest, fate, other):
            for system, model in self.world.models.items():
                assert before[system] or fate[0] == "waits" or model.records(system, model.applied) == model.records(
                    system, {*model.applied, *model.waiting}
                )  # fmt: skip

    @rule(fate=fates, other=st.sampled_from(["ingest", "sweep"]))
    def embed(self, fate: tuple[str, int], other: str) -> None:
        self._do("embed", self.world.embed, fate, other)

    @rule(kind=st.sampled_from(["hot", "hot", "warm"]), system=systems, skew=skews, fate=fates,
          other=st.sampled_from(["ingest", "move", "sweep", "promote"]))  # fmt: skip
    def move(self, kind: str, system: str, skew: int, fate: tuple[str, int], other: str) -> None:
        self._do(f"move from {kind}", partial(self.world.move, kind, system, skew), fate, other)

    @rule(system=systems, chosen=names, fate=fates, other=st.sampled_from(["ingest", "move", "sweep"]))
    def promote(self, system: str, chosen: list[str], fate: tuple[str, int], other: str) -> None:
        self._do("promote", partial(self.world.promote, system, chosen), fate, other)

    @rule(system=systems, which=st.integers(0, 30), fate=fates)
    def undo(self, system: str, which: int, fate: tuple[str, int]) -> None:
        model = self.world.models[system]
        versions = sorted(model.past, reverse=True)
        if len(versions) < 2:
            return
        target = versions[1 + which % (len(versions) - 1)]
        before, version = model.applied, self.world.found(system)[0]
        met = Fate(fate[0], fate[1])
        try:
            done(partial(self.world.undo, system, target), met)
        except UsageError:
            STEPS["undo refused"] += 1
        if self.world.found(system)[0] != version:
            model.applied = model.past[target]
        self._count("undo" if not met.met else f"undo that {fate[0]}")
        self.world.check()
        assert model.held or model.applied == before

    @precondition(lambda self: any(model.held for model in self.world.models.values()))
    @rule(skip=st.booleans(), fate=fates)
    def release(self, skip: bool, fate: tuple[str, int]) -> None:
        system = next(name for name, model in self.world.models.items() if model.held)
        self._do("release", partial(self.world.release, system, skip=skip), fate, "sweep")
        aside = self.world.set_aside(system)
        assert aside <= frozenset(range(len(self.world.models[system].sent)))
        self.world.models[system].aside = aside - self.world.models[system].applied

    @rule(days=st.integers(0, 20), system=systems, skew=skews, fate=fates)
    def sweep(self, days: int, system: str, skew: int, fate: tuple[str, int]) -> None:
        self.world.days += days
        self._do("sweep", partial(self.world.sweep, system, skew), fate, "ingest")


def play(request: dict[str, Any]) -> dict[str, int]:
    """Draw some lakes by a seed and let the storm loose on each; steps by what was done."""
    run_state_machine_as_test(
        seed(request["seed"])(Storm),
        settings=settings(
            max_examples=request["lakes"], stateful_step_count=request["steps"], deadline=None, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    return dict(STEPS)
