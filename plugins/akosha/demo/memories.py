"""What every machine remembers: texts, ages, projects; drawn from seeds alone, so that they never depend on the clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from akosha.demo import ids
from akosha.demo.cast import SHARES, TABLES, Kind, Machine
from akosha.demo.variants import VARIANTS, Variant, decorate, pick, seeded, vary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

PROJECTS: Final = (
    "etl-jobs", "telemetry", "mobile-app", "auth-service", "billing-api", "docs-site", "search-svc", "infra-live",
    "storefront", "ops", "データ基盤",
)  # fmt: skip
SHARED: Final = 0.20
"""Share of texts that another row, mostly of another system, holds too."""
NEAR: Final = 0.08
"""Share of texts that are a near-duplicate of an earlier one."""
JOINED: Final = 0.05
LONGEST: Final = 65_536
TRUNCATED: Final = "[TRUNCATED]"
OLDEST: Final = timedelta(days=200)
_AGES: Final = ((0.30, 0.0, 7.0), (0.45, 7.0, 90.0), (0.25, 90.0, 200.0))
_NO_VECTOR: Final = frozenset({"checkpoint", "legacy_reflection"})


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and its near-duplicate. ``swapped`` is a hard negative: near in words, other in meaning."""

    original: str
    variant: str
    kind: Variant


@dataclass(frozen=True, slots=True)
class Memory:
    """One record as its machine holds it, before it is given a date.

    Attributes:
        kind: what it is; decides table, id and columns.
        number: its place among the memories of its machine.
        content: the text; empty for a checkpoint, whose text holds its time.
        age: before the anchor.
        vector: whether it carries an embedding.
        project: what the client knows of its project.
        rewritten: the text that takes its place in the last upload, or None.
        gone_from: number of the first upload that no longer holds it, or None.
    """

    machine: Machine
    kind: Kind
    number: int
    content: str
    age: timedelta
    vector: bool
    project: str | None
    rewritten: str | None = None
    gone_from: int | None = None

    @property
    def table(self) -> str:
        """The table it lies in."""
        return TABLES[self.kind]

    @property
    def seed(self) -> str:
        """Distinguishes it from every other memory of the world."""
        return f"{self.machine.seed}/{self.kind}/{self.number}"

    @property
    def contents(self) -> tuple[str, ...]:
        """Every text it ever holds, apart from a checkpoint's, which depends on the anchor."""
        return tuple(text for text in (self.content, self.rewritten) if text)

    def created(self, anchor: datetime) -> datetime:
        """When it was stored, UTC, to the microsecond."""
        return anchor - self.age

    def record_id(self, anchor: datetime) -> str:
        """Its id as the client makes it."""
        if self.kind in ("context", "turn", "old_conversation"):
            return ids.content_id(self.content)
        if self.kind in ("repeat", "reflection", "insight"):
            return ids.ulid(self.created(anchor), self.seed)
        return ids.md5_id(self.seed) if self.kind in _NO_VECTOR else ids.uuid4(self.seed)

    def text(self, anchor: datetime) -> str:
        """Its content as first stored."""
        return self.content or _checkpoint(self, self.created(anchor))

    def text_in(self, upload: int, anchor: datetime) -> str:
        """Its content in one upload of its machine."""
        last = len(self.machine.uploads) - 1
        return self.rewritten if self.rewritten and upload == last else self.text(anchor)

    def lies_in(self, upload: int) -> bool:
        """Whether an upload of its machine holds it."""
        return self.age > self.machine.uploads[upload] and (self.gone_from is None or upload < self.gone_from)


@dataclass(slots=True)
class _Texts:
    """Hands out texts; remembers which (machine, table) holds which, because ids come from texts."""

    fresh: Iterator[str]
    used: list[str] = field(default_factory=list)
    held: set[tuple[str, str, str]] = field(default_factory=set)
    pairs: list[Pair] = field(default_factory=list)
    longest: str = ""

    def draw(self, place: tuple[str, str], random: Random) -> str:
        """A text that nothing at `place` (machine, table) holds yet."""
        text = self._candidate(place, random)
        while (*place, text) in self.held:
            text = self._candidate(place, random)
        self.held.add((*place, text))
        self.used.append(text)
        return text

    def draw_longest(self) -> str:
        """One text of the greatest length that a client stores, cut and marked as the client does."""
        text = "\n\n".join(self.used * (1 + LONGEST // sum(map(len, self.used))))
        self.longest = text[:LONGEST] + TRUNCATED
        return self.longest

    def _candidate(self, place: tuple[str, str], random: Random) -> str:
        chance = random.random()
        fresh = None if self.used and chance < SHARED + NEAR else next(self.fresh, None)
        if fresh is not None:
            joined = self.used and random.random() < JOINED
            return f"{decorate(fresh, random)}\n\n{pick(random, self.used)}" if joined else decorate(fresh, random)
        original = pick(random, self.used)
        if chance < SHARED and (*place, original) not in self.held:
            return original
        pair = Pair(original, vary(original, kind := pick(random, VARIANTS), random), kind)
        self.pairs.append(pair)
        return pair.variant


def remember(
    machines: tuple[Machine, ...], texts: tuple[str, ...], scale: float = 1.0
) -> tuple[list[list[Memory]], list[Pair]]:
    """All memories, per machine and oldest first, and the near-duplicates among their texts.

    Args:
        machines: who remembers.
        texts: what there is to remember, in order; each is used once before near-duplicates fill the rest.
        scale: share of the rows of each layer, for small worlds.
    """
    store = _Texts(iter(texts))
    worlds = [_of_machine(machine, store, scale) for machine in machines]
    used = set(store.used)
    return worlds, [pair for pair in store.pairs if pair.variant in used]


def _of_machine(machine: Machine, store: _Texts, scale: float) -> list[Memory]:
    random = seeded(machine.seed)
    found: list[Memory] = []
    for kind in _kinds(machine, scale):
        number = len(found)
        found.append(_memory(machine, kind, number, _age(machine, number, random), store, random))
    found.sort(key=lambda memory: -memory.age)
    return _with_changes(machine, found, random)


def _kinds(machine: Machine, scale: float) -> list[Kind]:
    kinds: list[Kind] = []
    for layer, rows in reversed(machine.rows):  # newest layer first: it gets the rows that lie just before each upload
        for kind, share in SHARES[layer]:
            kinds += [kind] * max(round(rows * scale * share), 2)
    return kinds


def _memory(machine: Machine, kind: Kind, number: int, age: timedelta, store: _Texts, random: Random) -> Memory:
    place = (machine.seed, TABLES[kind])
    project = None if kind in ("turn", "insight", "legacy_reflection") else pick(random, PROJECTS)
    if kind == "checkpoint":
        return Memory(machine, kind, number, "", age, vector=False, project=project)
    text = store.draw_longest() if kind == "turn" and not store.longest else store.draw(place, random)
    vector = kind not in _NO_VECTOR and random.random() < machine.vectors
    return Memory(machine, kind, number, text, age, vector, project)


def _age(machine: Machine, number: int, random: Random) -> timedelta:
    uploads = machine.uploads
    if number < len(uploads):  # a client uploads when a session ends: something was stored a moment before
        return uploads[number] + timedelta(seconds=40 + 50 * random.random())
    chance, days = random.random(), 0.0
    for share, low, high in _AGES:
        days = low + (high - low) * max(chance, 0.0) / share
        if chance < share:
            break
        chance -= share
    youngest = uploads[-1] + timedelta(minutes=3)
    return youngest + timedelta(days=days) * ((OLDEST - youngest) / OLDEST)


def _with_changes(machine: Machine, found: list[Memory], random: Random) -> list[Memory]:
    """Two rows vanish from later uploads; in the prefixed layout one is stored again with another text."""
    changed = list(found)
    last = len(machine.uploads) - 1
    kinds: tuple[tuple[Kind, int], ...] = (("context", 1), ("context", last), ("old_reflection", last))
    old = [place for place, memory in enumerate(found) if memory.age > machine.uploads[0] + timedelta(hours=1)]
    for kind, gone_from in kinds:
        place = next((at for at in old if changed[at].kind == kind and changed[at].gone_from is None), None)
        if place is not None:
            changed[place] = replace(changed[place], gone_from=gone_from)
    place = next((at for at in old if changed[at].kind == "old_conversation"), None)
    if place is not None:
        changed[place] = replace(changed[place], rewritten=vary(changed[place].content, "edit", random))
    return changed


def _checkpoint(memory: Memory, created: datetime) -> str:
    random = seeded(memory.seed)
    scores = [40 + int(random.random() * 55) for _ in range(4)]
    moment = (created - timedelta(milliseconds=11)).isoformat()
    return (
        f"# Conversation Context: CHECKPOINT\nProject: {memory.project}\nTimestamp: {moment}\n\n"
        f"Quality Score: {scores[0]}/100\n\n\n## Quality History\nRecent scores: {scores[1]}, {scores[2]}, {scores[3]}\n"
        "Trend: stable\n\n\n## Metadata\nis_manual: False\n\n"
    )
