"""A change on top of a head: what may be rebased and what must be planned again. No store in sight."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from akosha.errors import CommitConflictError, IntegrityError
from akosha.lake.commits import (
    Change,
    Commit,
    FileEntry,
    GraphFile,
    KeyFile,
    Removal,
    apply,
    commit_document,
    parse_commit,
)
from akosha.lake.documents import seal, unseal


def file(name: str, **fields) -> FileEntry:
    entry = FileEntry("hot", "lake", f"shards/017/hot/{name}.duckdb", 10, 100, "aa", "2026-01-01T00:00:00+00:00", "")
    return replace(entry, last="2026-01-02T00:00:00+00:00", **fields)


def keys(name: str, system_id: str = "laptop-7") -> KeyFile:
    return KeyFile(system_id, f"shards/017/keys/{name}.parquet", 10, 100, "bb", "2026-01-02T00:00:00+00:00")


def graph(name: str, system_id: str = "laptop-7") -> GraphFile:
    path = f"shards/017/graph/{name}.parquet"
    return GraphFile(system_id, path, 3, 2, 1, 100, "dd", "2026-01-02T00:00:00+00:00")


A, B, C = file("a"), file("b"), file("c")
HEAD = Commit(17, 4, sha256="head", files={A.path: A, B.path: B}, keys={"laptop-7": keys("k1")})


def test_a_change_makes_the_next_version():
    after = apply(HEAD, Change("ingest", add=(C,), remove=(A,), counts={"new": 3}))
    assert (after.version, after.parent_sha256, after.operation, after.counts) == (5, "head", "ingest", {"new": 3})
    assert set(after.files) == {B.path, C.path}
    assert set(HEAD.files) == {A.path, B.path}


def test_what_an_earlier_commit_said_of_itself_is_not_inherited():
    after = apply(replace(HEAD, uploads=({"memo": "x"},), counts={"new": 9}), Change("embed", add=(C,)))
    assert after.uploads == ()
    assert after.counts == {}


def test_a_removed_file_that_is_gone_is_a_conflict():
    with pytest.raises(CommitConflictError, match="plan again"):
        apply(HEAD, Change("move", remove=(C,)))


def test_a_removed_file_with_another_removal_list_is_a_conflict():
    """I1: the plan did not see the rows that have left since."""
    masked = replace(A, removal=Removal("shards/017/removals/r.rows", 1, "cc"))
    with pytest.raises(CommitConflictError):
        apply(replace(HEAD, files={A.path: masked, B.path: B}), Change("move", remove=(A,)))


def test_a_masked_file_must_be_as_the_plan_saw_it():
    """I1: two removal lists for one file cannot both win."""
    mine = replace(A, removal=Removal("shards/017/removals/mine.rows", 1, "cc"))
    theirs = replace(A, removal=Removal("shards/017/removals/theirs.rows", 1, "dd"))
    assert apply(HEAD, Change("ingest", mask=((A, mine),))).files[A.path] == mine
    with pytest.raises(CommitConflictError):
        apply(replace(HEAD, files={A.path: theirs}), Change("ingest", mask=((A, mine),)))


def test_a_key_file_must_be_as_the_plan_saw_it():
    """I1: two uploads of one system planned side by side; the second knows nothing of the keys of the first."""
    assert apply(HEAD, Change("ingest", keys=((keys("k1"), keys("k2")),))).keys["laptop-7"] == keys("k2")
    for seen in (None, keys("k0")):
        with pytest.raises(CommitConflictError, match="key file"):
            apply(HEAD, Change("ingest", keys=((seen, keys("k2")),)))


def test_key_files_of_other_systems_do_not_matter():
    after = apply(HEAD, Change("ingest", keys=((None, keys("new", "other")),)))
    assert set(after.keys) == {"laptop-7", "other"}


def test_a_graph_file_must_be_as_the_plan_saw_it():
    """I27: two uploads of one system planned side by side; the second knows nothing of the graph of the first."""
    head = replace(HEAD, graphs={"laptop-7": graph("g1")})
    assert apply(head, Change("ingest", graphs=((graph("g1"), graph("g2")),))).graphs["laptop-7"] == graph("g2")
    assert apply(head, Change("ingest", graphs=((None, graph("new", "other")),))).graphs["laptop-7"] == graph("g1")
    for seen in (None, graph("g0")):
        with pytest.raises(CommitConflictError, match="graph file"):
            apply(head, Change("ingest", graphs=((seen, graph("g2")),)))
    with pytest.raises(CommitConflictError, match="condemned"):
        apply(replace(head, condemned=(graph("g2").path,)), Change("ingest", graphs=((graph("g1"), graph("g2")),)))


def test_a_held_shard_takes_nothing():
    with pytest.raises(CommitConflictError, match="held after an undo"):
        apply(replace(HEAD, held_by="undo"), Change("ingest", add=(C,)))


def test_a_condemned_file_is_never_named_again():
    with pytest.raises(CommitConflictError, match="condemned"):
        apply(replace(HEAD, condemned=(C.path,)), Change("ingest", add=(C,)))


def test_an_empty_change_is_known_as_such():
    assert Change("move", counts={"moved": 0}).empty
    assert not Change("move", add=(A,)).empty
    assert not Change("move", remove=(A,)).empty
    assert not Change("move", mask=((A, A),)).empty
    assert not Change("move", keys=((None, keys("k")),)).empty
    assert not Change("move", graphs=((None, graph("g")),)).empty


def test_a_commit_comes_back_from_its_document():
    masked = replace(A, removal=Removal("shards/017/removals/r.rows", 1, "cc"), without_vector=2)
    commit = replace(
        HEAD, files={masked.path: masked}, uploads=({"memo": "m", "new": 1},), counts={"new": 1}, condemned=("x",),
        graphs={"laptop-7": graph("g")},
        commit_id="id", run_id="run", policy=2, operation="ingest", committed_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    document = unseal(seal(commit_document(commit)), kind="commit", key="k")
    assert parse_commit(document, key="k") == replace(commit, sha256=document["sha256"])


def test_a_document_from_before_graphs_has_none():
    document = {**commit_document(replace(HEAD, graphs={"laptop-7": graph("g")})), "sha256": "x"}
    assert set(parse_commit(document, key="k").graphs) == {"laptop-7"}
    del document["graphs"]
    assert parse_commit(document, key="k").graphs == {}


@pytest.mark.parametrize("missing", ["files", "keys", "version", "commit_id", "condemned", "parent_sha256"])
def test_a_document_without_a_field_is_damage(missing: str):
    document = {**commit_document(HEAD), "sha256": "x"}
    del document[missing]
    with pytest.raises(IntegrityError, match=missing):
        parse_commit(document, key="k")


def test_live_rows_are_those_that_are_not_removed():
    assert A.live_rows == 10
    assert replace(A, removal=Removal("r", 3, "")).live_rows == 7


def test_a_file_is_older_than_a_cutoff_after_its_first_row():
    assert A.older_than(datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC))
    assert not A.older_than(datetime(2026, 1, 1, tzinfo=UTC))
