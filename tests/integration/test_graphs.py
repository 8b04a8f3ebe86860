"""Knowledge graphs from the bucket to the export: real files, in the commit of their upload, checked, never lost.

Cites I26 (no order shows, nothing is lost) and I27 (a graph changes in the commit of its upload's records).
"""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from tests.support.installation import Installation
from tests.support.uploads import database, graph_database, memory, put_graph_upload

from akosha.errors import CommitConflictError, InvalidUploadError
from akosha.jobs import reading
from akosha.lake.edit import edit_shard
from akosha.lake.graph_schema import ENTITY, GRAPH
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.provenance import about
from akosha.lake.shard_log import Writer
from akosha.quality.fsck import fsck
from akosha.uploads.graph_rows import read_graph
from akosha.uploads.sandbox import Sandbox

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SYSTEM = "les-mbp.local"
SAMPLES = Path(__file__).parents[1] / "data" / "session_buddy"


def entity(own: str, name: str, *observations: str, **fields: Any) -> dict[str, Any]:
    times = {"created_at": "2026-11-20 04:00:00", "updated_at": "2026-11-20 04:00:00"}
    return {"id": own, "name": name, "entity_type": "project", "observations": list(observations), **times, **fields}


def relation(own: str, start: str, end: str) -> dict[str, Any]:
    return {"id": own, "from_entity": start, "to_entity": end, "relation_type": "uses"}


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    return made


@pytest.fixture(scope="module")
def sandbox() -> Any:
    with Sandbox(timeout_seconds=60) as running:
        yield running


def exported(installation: Installation) -> dict[str, list[dict[str, Any]]]:
    out = installation.folder / f"export-{uuid.uuid4().hex}"
    with installation.applied():
        answer = reading.export_lake(out)
    tables: dict[str, list[dict[str, Any]]] = {"entities": [], "relations": [], "observations": []}
    for name in answer["graph_files"]:
        tables[Path(name).name.rpartition("-")[0]] += pq.read_table(out / name).to_pylist()
    assert {name: len(rows) for name, rows in tables.items()} == answer["graph_rows"]
    return tables


def copy_samples(installation: Installation) -> None:
    for path in sorted(SAMPLES.rglob("*")):
        if path.is_file():
            installation.uploads.put(path.relative_to(SAMPLES).as_posix(), path.read_bytes())


def test_the_graphs_of_real_uploads_are_kept_dated_and_exported(installation: Installation):
    copy_samples(installation)
    summary = installation.ingest()
    assert (summary["counts"]["quarantined"], summary["counts"]["graph_rows"]) == (0, 10)
    tables = exported(installation)
    assert sorted((row["system_id"], row["name"], row["entity_type"]) for row in tables["entities"]) == [
        ("legacy-feb", "helm", "tool"), ("legacy-feb", "ops", "project"),
        (SYSTEM, "DuckDB", "library"), (SYSTEM, "etl-jobs", "project"),
    ]  # fmt: skip
    duck = next(row for row in tables["entities"] if row["name"] == "DuckDB")
    assert duck["created_at"].isoformat() == "2026-11-20T23:50:53.291831+00:00", "Los Angeles, told by the records' ids"
    assert duck["updated_at"].isoformat() == "2026-11-20T23:51:11.093903+00:00"
    assert duck["time_evidence"] == "offset"
    assert duck["first_manifest"] < duck["last_manifest"]
    assert "20261120_235111_les-mbp.local" in duck["provenance"]
    ops = next(row for row in tables["entities"] if row["name"] == "ops")
    assert ops["created_at"].isoformat() == "2026-11-20T23:40:39.221971+00:00", "Berlin"
    assert {row["relation_type"] for row in tables["relations"]} == {"uses"}
    assert {row["text"]: row["position"] for row in tables["observations"]} == {
        "runs k8s": 0, "nightly export": 0, "single writer per file": 0
    }  # fmt: skip
    heads = installation.heads()
    assert installation.ingest()["counts"]["uploads"] == 0
    assert installation.heads() == heads

    with installation.applied():
        assert fsck(installation.lake, read_data=True).document()["findings"] == []
    answer = installation.cli_json("status")
    assert {name: answer["graphs"][name] for name in ("systems", "entities", "relations", "observations")} == {
        "systems": 2, "entities": 4, "relations": 2, "observations": 3
    }  # fmt: skip
    assert "knowledge graphs of 2 systems: 4 entities, 2 relations" in installation.main("status").stdout


def test_records_and_graph_of_an_upload_come_in_one_commit(installation: Installation):
    """I27, I5."""
    records = database({"conversations_v2": [memory("a", "A note about retries.", NOW - HOUR)]})
    graph = graph_database([entity("e", "etl", "is slow")], [relation("r", "e", "gone")])
    put_graph_upload(installation.uploads, SYSTEM, NOW, graph, records)
    assert installation.ingest()["counts"]["commits"] == 1
    head = installation.lake.shard(shard_of(SYSTEM)).head()
    assert head.version == 1
    nothing = dict.fromkeys(("changed", "gone", "older", "retimed", "amended"), 0)
    assert head.counts == {"new": 1, "graph_rows": 3, **nothing}
    assert head.uploads[0]["graph"] == {
        "new_entities": 1, "changed_entities": 0, "new_relations": 1, "changed_relations": 0,
        "new_observations": 1, "dangling": 1,
    }  # fmt: skip
    entry = head.graphs[SYSTEM]
    assert (entry.entities, entry.relations, entry.observations, entry.rows) == (1, 1, 1, 3)
    assert entry.newest_manifest == (NOW + timedelta(seconds=1)).isoformat()


def test_uploads_in_any_order_leave_the_same_graph(tmp_path: Path):
    """I26 end to end: graphs alone, without records."""
    snapshots = [
        (NOW, [entity("e", "etl", "one")], [relation("r", "e", "f")]),
        (NOW + HOUR, [entity("e", "etl", "one", "two"), entity("f", "web")], []),
        (NOW + 2 * HOUR, [entity("e", "renamed", "two")], [relation("r", "f", "e")]),
    ]
    seen = []
    for number, order in enumerate(itertools.permutations(range(3))):
        made = Installation.local(tmp_path / str(number))
        made.folder.mkdir()
        Lake.create(made.settings, now=NOW)
        for at in order:
            moment, entities, relations = snapshots[at]
            put_graph_upload(made.uploads, SYSTEM, moment, graph_database(entities, relations))
            assert made.ingest()["counts"]["applied"] == 1
        tables = exported(made)
        for rows in tables.values():
            for row in rows:
                row.pop("provenance")  # names the manifest's ETag, which is made of the file's times
        seen.append(tables)
    assert all(tables == seen[0] for tables in seen)
    assert {row["text"]: row["position"] for row in seen[0]["observations"]} == {"one": None, "two": 0}
    assert {row["entity_id"]: row["name"] for row in seen[0]["entities"]} == {"e": "renamed", "f": "web"}


def test_machines_that_share_a_name_do_not_overwrite_each_others_entities(installation: Installation):
    """I26."""
    for number, name in enumerate(("etl", "web")):
        put_graph_upload(
            installation.uploads, "unknown-system", NOW + number * HOUR, graph_database([entity("e", name)])
        )
    installation.ingest()
    found = {row["name"]: row["entity_id"] for row in exported(installation)["entities"]}
    assert found["etl"] == "e"
    assert found["web"].startswith("e~")
    assert len(found["web"]) == len("e~") + 8


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (None, "missing-object"),
        (b"", "not-a-database"),
        (b"x" * 20_000, "not-a-database"),
        (graph_database([entity("e", "etl", "x" * 5_000)])[:-20_000], "damaged"),
        (database({"customers": "SELECT 1 AS id"}), "unknown-tables"),
    ],
    ids=["missing", "empty", "text", "torn", "foreign"],
)
def test_a_broken_graph_sets_the_whole_upload_aside_and_is_named(
    graph: bytes | None, reason: str, installation: Installation
):
    """I5: half an upload is not applied."""
    records = database({"conversations_v2": [memory("a", "A note about retries.", NOW - HOUR)]})
    put_graph_upload(installation.uploads, SYSTEM, NOW, graph, records)
    summary = installation.ingest()
    assert (summary["counts"]["quarantined"], summary["counts"]["new"]) == (1, 0)
    memo = installation.quarantine()[SYSTEM]
    assert memo["reason"] == reason
    assert memo["message"].startswith("knowledge_graph.duckdb: ")
    assert memo["evidence"]["file"] == "knowledge_graph.duckdb"
    assert installation.heads() == {}

    put_graph_upload(installation.uploads, SYSTEM, NOW, graph_database([entity("e", "etl")]), records)
    assert installation.run("plan_replay", [memo["memo"]])["counts"]["applied"] == 1


def test_an_empty_graph_says_nothing(installation: Installation):
    put_graph_upload(installation.uploads, SYSTEM, NOW, database({}))
    put_graph_upload(installation.uploads, SYSTEM, NOW + HOUR, graph_database())
    assert installation.ingest()["counts"]["unchanged"] == 2
    assert exported(installation)["entities"] == []


def read(sandbox: Sandbox, folder: Path, *statements: str) -> Any:
    with duckdb.connect(str(folder / "graph.duckdb")) as con:
        for statement in statements:
            con.execute(statement)
    return read_graph(sandbox.extract("graph", folder / "graph.duckdb", folder / "out"), folder / "out")


def test_columns_of_other_types_or_missing_are_taken_as_far_as_they_go(sandbox: Sandbox, tmp_path: Path):
    snapshot = read(
        sandbox, tmp_path,
        "CREATE TABLE kg_entities AS SELECT 7 AS \"ID\", 'etl' AS name, '[a, b]' AS observations, 'never' AS created_at, "
        "[1.5, 2]::DOUBLE[] AS embedding, {'k': 1} AS properties",
        "CREATE TABLE other (x INTEGER)",
    )  # fmt: skip
    (row,) = snapshot.entities.to_pylist()
    assert (row["client_id"], row["name"], row["observations"], row["created_local"]) == ("7", "etl", ["a", "b"], None)
    assert (row["embedding"], row["type"]) == (None, None)
    assert snapshot.faults.dropped_vectors == {"vector-wrong-length": 1}
    assert snapshot.relations.num_rows == 0
    assert snapshot.ignored == ("other",)


def test_rows_that_are_no_entity_or_relation_are_counted_with_examples(sandbox: Sandbox, tmp_path: Path):
    vector = "list_resize([0.0::FLOAT], 384, {}::FLOAT)::FLOAT[384]"
    snapshot = read(
        sandbox, tmp_path,
        "CREATE TABLE kg_entities (id VARCHAR, name VARCHAR, observations VARCHAR[], embedding FLOAT[384])",
        "INSERT INTO kg_entities VALUES (NULL, 'x', [], NULL), ('', 'x', [], NULL), ('a', NULL, [], NULL), "
        "(repeat('i', 2000), 'x', [], NULL), ('b', 'x', [repeat('o', 5000000)], NULL), "
        f"('c', 'x', ['kept', NULL, ''], {vector.format(chr(39) + 'nan' + chr(39))}), ('d', 'x', NULL, {vector.format(0)})",
        "CREATE TABLE kg_relationships (id VARCHAR, from_entity VARCHAR, to_entity VARCHAR)",
        "INSERT INTO kg_relationships VALUES ('r', 'a', NULL), ('s', 'a', 'nobody')",
    )  # fmt: skip
    assert snapshot.faults.refused == {"no-id": 2, "no-name": 1, "long-id": 1, "too-long": 1, "no-end": 1}
    assert snapshot.faults.dropped_vectors == {"vector-not-finite": 1, "vector-zero": 1}
    assert [(row["client_id"], row["observations"], row["embedding"]) for row in snapshot.entities.to_pylist()] == [
        ("c", ["kept"], None), ("d", None, None)
    ]  # fmt: skip
    assert snapshot.relations.column("client_id").to_pylist() == ["s"]


def test_views_and_macros_in_the_place_of_tables_are_not_run(sandbox: Sandbox, tmp_path: Path):
    with pytest.raises(InvalidUploadError) as caught:
        read(sandbox, tmp_path, "CREATE VIEW kg_entities AS SELECT * FROM read_text('/etc/passwd')")
    assert caught.value.reason == "unknown-tables"


def test_a_graph_of_too_many_observations_is_refused(sandbox: Sandbox, tmp_path: Path):
    with pytest.raises(InvalidUploadError, match="200,000") as caught:
        read(
            sandbox, tmp_path,
            "CREATE TABLE kg_entities AS SELECT i::VARCHAR AS id, 'x' AS name, "
            "list_transform(range(60000), lambda n: n::VARCHAR) AS observations FROM range(10) AS r(i)",
        )  # fmt: skip
    assert caught.value.reason == "too-large"


def test_two_writers_of_one_graph_do_not_both_win(installation: Installation):
    """I27: the second one planned without what the first one wrote."""
    put_graph_upload(installation.uploads, SYSTEM, NOW, graph_database([entity("e", "etl")]))
    installation.ingest()
    lake = installation.lake
    head = lake.shard(shard_of(SYSTEM)).head()
    table = lake.graph(head.graphs[SYSTEM])
    writer = Writer("test", 1, NOW)

    def write() -> int:
        with edit_shard(lake, head, about()) as edit:
            edit.set_graph(SYSTEM, table, newest=NOW)
            return edit.publish("ingest", writer, counts={}).version

    assert write() == 2
    with pytest.raises(CommitConflictError, match="graph file"):
        write()
    assert (
        lake.shard(shard_of(SYSTEM)).head().graphs[SYSTEM].newest_manifest == (NOW + timedelta(seconds=1)).isoformat()
    )


def spoiled(installation: Installation, change: Any) -> set[str]:
    """Publish a graph file that `change` made of the sound one; the codes that fsck finds."""
    put_graph_upload(installation.uploads, SYSTEM, NOW, graph_database([entity("e", "etl", "one")]))
    installation.ingest()
    lake = installation.lake
    head = lake.shard(shard_of(SYSTEM)).head()
    rows = lake.graph(head.graphs[SYSTEM]).to_pylist()
    change(rows)
    with edit_shard(lake, head, about()) as edit:
        edit.set_graph(SYSTEM, GRAPH.empty_table().from_pylist(rows, schema=GRAPH), newest=NOW)
        edit.publish("ingest", Writer("test", 1, NOW), counts={})
    return {finding.code for finding in fsck(lake, read_data=True).findings if finding.severity == "damage"}


def test_fsck_finds_a_graph_that_breaks_its_rules(tmp_path: Path):
    changes = {
        "": lambda rows: None,
        "graph_doubled": lambda rows: rows.append(rows[0]),
        "graph_stray": lambda rows: rows.remove(next(row for row in rows if row["kind"] == ENTITY)),
        "content_digest": lambda rows: rows[-1].update(text="another"),
    }
    for code, change in changes.items():
        made = Installation.local(tmp_path / f"lake-{code}")
        made.folder.mkdir()
        Lake.create(made.settings, now=NOW)
        assert spoiled(made, change) == ({code} if code else set())


def test_fsck_finds_a_flipped_bit_and_a_missing_graph_file(installation: Installation):
    """I3."""
    put_graph_upload(installation.uploads, SYSTEM, NOW, graph_database([entity("e", "etl", "one")]))
    installation.ingest()
    lake = installation.lake
    path = lake.store.local_path(lake.shard(shard_of(SYSTEM)).head().graphs[SYSTEM].path)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    assert {finding.code for finding in fsck(lake, read_data=True).findings} == {"file_digest"}
    path.unlink()
    (finding,) = fsck(lake, read_data=False).findings
    assert (finding.code, "uploads of its system" in finding.recoverable_from) == ("file_missing", True)
