"""The knowledge graph of a system, compared with a plain dict: whatever the order of the uploads, the same graph.

Cites I26: the newest manifest wins, ties by digest; no entity, relation or observation is ever lost.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akosha.lake.graph_schema import GRAPH
from akosha.uploads.graph import GraphPlan, plan_graph
from akosha.uploads.graph_reader import ENTITIES, RELATIONS
from akosha.uploads.graph_rows import Anchors, GraphSnapshot, Origin, digest, incoming_rows
from akosha.uploads.sources import RowFaults

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Entity:
    id: str
    name: str
    observations: tuple[str, ...] = ()
    properties: str = "{}"
    hour: int | None = 0
    vector: float | None = None

    @property
    def identity(self) -> bytes:
        return digest(self.name, "project", self.properties, None)

    @property
    def content(self) -> bytes:
        vector = None if self.vector is None else np.full(384, self.vector, "<f4").tobytes()
        return digest(self.identity, vector, *self.observations)


@dataclass(frozen=True)
class Relation:
    id: str
    ends: tuple[str, str]
    type: str = "uses"

    @property
    def content(self) -> bytes:
        return digest(*self.ends, self.type, "{}", None)


@dataclass(frozen=True)
class Upload:
    hour: int
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    zone: int = 0

    @property
    def at(self) -> datetime:
        return START + self.hour * HOUR

    def local(self, hour: int | None) -> datetime | None:
        return None if hour is None else (START + (hour + self.zone) * HOUR).replace(tzinfo=None)

    def snapshot(self) -> GraphSnapshot:
        entities = [
            {
                "client_id": one.id, "name": one.name, "type": "project", "observations": list(one.observations),
                "embedding": None if one.vector is None else [one.vector] * 384, "unusable_vector": False,
                "properties": one.properties, "created_local": self.local(one.hour), "updated_local": self.local(one.hour),
            }
            for one in self.entities
        ]  # fmt: skip
        relations = [
            {
                "client_id": one.id, "from_entity": one.ends[0], "to_entity": one.ends[1], "type": one.type,
                "properties": "{}", "created_local": self.local(0), "updated_local": None,
            }
            for one in self.relations
        ]  # fmt: skip
        return GraphSnapshot(
            pa.Table.from_pylist(entities, schema=ENTITIES),
            pa.Table.from_pylist(relations, schema=RELATIONS),
            RowFaults(),
        )

    def rows(self, anchors: Anchors | None = None) -> pa.Table:
        return incoming_rows(self.snapshot(), Origin(self.at, f'{{"upload":{self.hour}}}'), anchors)[0]


@dataclass
class Graph:
    ambiguous: bool = False
    table: pa.Table = field(default_factory=GRAPH.empty_table)

    def apply(self, *uploads: Upload) -> GraphPlan:
        for upload in uploads:
            plan = plan_graph(self.table, upload.rows(), ambiguous=self.ambiguous)
            self.table = self.table if plan.table is None else plan.table
        return plan

    def of(self, kind: str) -> dict[Any, dict[str, Any]]:
        rows = [row for row in self.table.to_pylist() if row["kind"] == kind]
        found = {(row["id"], row["text"]) if kind == "observation" else row["id"]: row for row in rows}
        assert len(found) == len(rows), "a key twice"
        return found


def model(uploads: list[Upload]) -> tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any]]:
    """Entities, relations, observations as they must come out."""
    entities: dict[Any, Any] = {}
    observations: dict[Any, Any] = {}
    for own in {one.id for upload in uploads for one in upload.entities}:
        seen = [(upload.at, one) for upload in uploads for one in upload.entities if one.id == own]
        newest = max(seen, key=lambda pair: (pair[0], pair[1].content))[1]
        times = [at for at, _ in seen]
        entities[own] = (newest.name, newest.properties, newest.content, min(times), max(times))
        for text in {text for _, one in seen for text in one.observations}:
            held = [at for at, one in seen if text in one.observations]
            place = newest.observations.index(text) if text in newest.observations else None
            observations[own, text] = (place, min(held), max(held))
    relations: dict[Any, Any] = {}
    for own in {one.id for upload in uploads for one in upload.relations}:
        seen = [(upload.at, one.content, one) for upload in uploads for one in upload.relations if one.id == own]
        relations[own] = max(seen, key=lambda found: found[:2])[2].ends
    return entities, relations, observations


def as_kept(graph: Graph) -> tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any]]:
    entities = {
        key: (row["name"], row["properties"], row["content_sha256"], row["first_manifest"], row["last_manifest"])
        for key, row in graph.of("entity").items()
    }
    relations = {key: (row["from_entity"], row["to_entity"]) for key, row in graph.of("relation").items()}
    observations = {
        key: (row["position"], row["first_manifest"], row["last_manifest"])
        for key, row in graph.of("observation").items()
    }
    return entities, relations, observations


TEXTS = st.lists(st.sampled_from(["runs nightly", "is slow", "was replaced"]), max_size=3).map(tuple)
ENTITY = st.builds(
    Entity,
    id=st.sampled_from("ab"),
    name=st.sampled_from(["etl", "web"]),
    observations=TEXTS,
    properties=st.sampled_from(["{}", '{"a":1}']),
    hour=st.sampled_from([None, 0, 5]),
    vector=st.sampled_from([None, 0.5]),
)
RELATION = st.builds(Relation, id=st.sampled_from("rs"), ends=st.tuples(st.sampled_from("ab"), st.sampled_from("bc")))
# A few hours only, so that manifests often carry the same time; ids may repeat inside one upload.
UPLOADS = st.lists(
    st.builds(
        Upload,
        hour=st.integers(10, 13),
        entities=st.lists(ENTITY, max_size=3).map(tuple),
        relations=st.lists(RELATION, max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=4,
)


@given(UPLOADS, st.data())
@settings(max_examples=25, deadline=None)
def test_any_order_of_the_same_uploads_gives_the_same_graph(uploads: list[Upload], data: st.DataObject):
    """I26, also with uploads that come twice."""
    order = data.draw(st.permutations(uploads))
    again = data.draw(st.lists(st.sampled_from(order), max_size=2))
    graph, in_order = Graph(), Graph()
    graph.apply(*order, *again)
    in_order.apply(*sorted(uploads, key=lambda upload: upload.hour))
    assert as_kept(graph) == model(uploads)
    assert graph.table.equals(in_order.table), "every column, times and provenance included"


@given(UPLOADS, st.data())
@settings(max_examples=20, deadline=None)
def test_machines_under_one_name_overwrite_nothing_in_any_order(uploads: list[Upload], data: st.DataObject):
    """I26 for an ambiguous system: every identity under one id stays, and has the same name whatever came first."""
    order = data.draw(st.permutations(uploads))
    graph, in_order = Graph(ambiguous=True), Graph(ambiguous=True)
    graph.apply(*order, order[0])
    in_order.apply(*sorted(uploads, key=lambda upload: upload.hour))
    assert graph.table.equals(in_order.table)
    identities = {(one.id, one.identity) for upload in uploads for one in upload.entities}
    kept = graph.of("entity").values()
    assert {(row["client_id"], row["identity_sha256"]) for row in kept} == identities
    texts = {(one.id, one.identity, text) for upload in uploads for one in upload.entities for text in one.observations}
    notes = graph.of("observation").values()
    assert {(row["client_id"], row["identity_sha256"], row["text"]) for row in notes} == texts
    ends = {(one.id, one.ends) for upload in uploads for one in upload.relations}
    assert {(row["client_id"], (row["from_entity"], row["to_entity"])) for row in graph.of("relation").values()} == ends


@given(UPLOADS, st.booleans())
@settings(max_examples=8, deadline=None)
def test_a_graph_applied_before_changes_nothing(uploads: list[Upload], ambiguous: bool):
    """I4."""
    graph = Graph(ambiguous=ambiguous)
    graph.apply(*uploads)
    for upload in uploads:
        plan = graph.apply(upload)
        assert plan.table is None
        assert (plan.numbers.new_entities, plan.numbers.changed_entities, plan.numbers.new_observations) == (0, 0, 0)


def test_absence_deletes_nothing_and_a_note_that_left_the_list_stays_without_a_place():
    """I12."""
    graph = Graph()
    graph.apply(Upload(1, (Entity("a", "etl", ("old", "kept")), Entity("b", "web")), (Relation("r", ("a", "b")),)))
    plan = graph.apply(Upload(2, (Entity("a", "etl", ("kept", "new")),)))
    assert set(graph.of("entity")) == {"a", "b"}
    assert set(graph.of("relation")) == {"r"}
    places = {text: row["position"] for (_, text), row in graph.of("observation").items()}
    assert places == {"old": None, "kept": 0, "new": 1}
    assert (plan.numbers.changed_entities, plan.numbers.new_observations) == (1, 1)


def test_equal_contents_are_no_change_but_are_known_to_have_been_seen_later():
    """Or an upload between the two, come late, would win."""
    graph = Graph()
    graph.apply(Upload(1, (Entity("a", "etl"),)))
    plan = graph.apply(Upload(3, (Entity("a", "etl"),)))
    assert (plan.numbers.new_entities, plan.numbers.changed_entities) == (0, 0)
    graph.apply(Upload(2, (Entity("a", "renamed"),)))
    assert graph.of("entity")["a"]["name"] == "etl"


def test_dangling_relations_are_kept_and_counted():
    plan = Graph().apply(Upload(1, (Entity("a", "etl"),), (Relation("r", ("a", "gone")), Relation("s", ("a", "a")))))
    assert (plan.numbers.new_relations, plan.numbers.dangling) == (2, 1)


def test_better_evidence_improves_a_time_in_any_order():
    """I14: anchors of the other database beat a guess, although the guess came with the older manifest."""
    anchor = Anchors(
        np.array([int(START.timestamp() * 1e6) - 8 * 3_600_000_000]), np.array([int(START.timestamp() * 1e6)])
    )
    sure = Upload(30, (Entity("a", "etl", hour=2),), zone=-8).rows(anchor)
    guess = Upload(20, (Entity("a", "etl", hour=2),), zone=-8).rows()
    graphs = [GRAPH.empty_table()] * 2
    for number, order in enumerate(((sure, guess), (guess, sure))):
        for rows in order:
            graphs[number] = plan_graph(graphs[number], rows, ambiguous=False).table
    assert graphs[0].equals(graphs[1])
    (row,) = graphs[0].to_pylist()
    assert (row["created_at"], row["time_evidence"]) == (START + 2 * HOUR, "offset")
    assert row["time_manifest"] == START + 30 * HOUR


def test_an_entity_without_a_time_has_that_of_its_manifest():
    graph = Graph()
    graph.apply(Upload(7, (Entity("a", "etl", hour=None),)))
    row = graph.of("entity")["a"]
    assert (row["created_at"], row["time_evidence"], row["updated_at"]) == (START + 7 * HOUR, "none", None)


def test_the_first_identity_of_an_ambiguous_id_keeps_it_and_the_next_is_marked():
    graph = Graph(ambiguous=True)
    graph.apply(Upload(2, (Entity("a", "web"),)), Upload(1, (Entity("a", "etl"),)), Upload(3, (Entity("a", "etl"),)))
    suffix = Entity("a", "web").identity.hex()[:8]
    assert {key: row["name"] for key, row in graph.of("entity").items()} == {"a": "etl", f"a~{suffix}": "web"}


def test_notes_that_grow_do_not_make_another_entity_under_an_ambiguous_id():
    graph = Graph(ambiguous=True)
    graph.apply(Upload(1, (Entity("a", "etl", ("one",)),)), Upload(2, (Entity("a", "etl", ("one", "two")),)))
    assert list(graph.of("entity")) == ["a"]
    assert set(graph.of("observation")) == {("a", "one"), ("a", "two")}


@pytest.mark.parametrize("hostile", ["a~" + Entity("a", "web").identity.hex()[:8], "a~0123abcd", "~00000000"])
def test_an_id_that_looks_like_a_marked_one_clashes_with_none(hostile: str):
    graph = Graph(ambiguous=True)
    graph.apply(Upload(1, (Entity(hostile, "x"), Entity("a", "etl"))), Upload(2, (Entity("a", "web"),)))
    assert len(graph.of("entity")) == 3
    assert hostile not in {key for key, row in graph.of("entity").items() if row["client_id"] == hostile}


def test_digests_of_other_splits_of_the_same_letters_differ():
    parts = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", None), ("abc", "")]
    assert len({digest(*split) for split in parts}) == len(parts)
    assert digest("a") != hashlib.sha256(b"a").digest()
