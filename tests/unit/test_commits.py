"""A change on top of a head: what may be rebased and what must be planned again. No store in sight."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from akosha.errors import CommitConflictError, IntegrityError, ShardHeldError
from akosha.lake.commits import (
    Change,
    Commit,
    FileEntry,
    GraphFile,
    HoldFile,
    KeyFile,
    Removal,
    Undo,
    Undone,
    apply,
    commit_document,
    parse_commit,
)
from akosha.lake.documents import NEWEST, seal, unseal


def file(name: str, **fields) -> FileEntry:
    entry = FileEntry("hot", "lake", f"shards/017/hot/{name}.duckdb", 10, 100, "aa", "2026-01-01T00:00:00+00:00", "")
    return replace(entry, last="2026-01-02T00:00:00+00:00", **fields)


def keys(name: str, system_id: str = "laptop-7") -> KeyFile:
    return KeyFile(system_id, f"shards/017/keys/{name}.parquet", 10, 100, "bb", "2026-01-02T00:00:00+00:00")


def graph(name: str, system_id: str = "laptop-7") -> GraphFile:
    path = f"shards/017/graph/{name}.parquet"
    return GraphFile(system_id, path, 3, 2, 1, 100, "dd", "2026-01-02T00:00:00+00:00")


FIELDS_OF_VERSION_2 = {
    FileEntry: "tier root path rows bytes sha256 first last without_vector removal xxh128",
    KeyFile: "system_id path rows bytes sha256 newest_manifest newest_file_xxh128 xxh128",
    GraphFile: "system_id path entities relations observations bytes sha256 newest_manifest xxh128",
    HoldFile: "path rows bytes sha256 xxh128",
    Removal: "path rows sha256",
}


@pytest.mark.parametrize("kind", FIELDS_OF_VERSION_2)
def test_another_field_of_an_entry_is_another_version_of_the_format(kind: type):
    """A release that does not know a field cannot read the document, and must be told to be upgraded."""
    assert (NEWEST["commit"], " ".join(kind.__slots__)) == (2, FIELDS_OF_VERSION_2[kind])


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


HOLD = HoldFile("shards/017/holds/h.parquet", 2, 50, "ee")
OLD = replace(HEAD, version=3, sha256="old", commit_id="c3", files={A.path: A}, keys={})
NOW_HEAD = replace(HEAD, commit_id="c4", holds=HOLD)


def taking_back(head: Commit, target: Commit = OLD) -> Change:
    undone = (Undone(head.version, head.commit_id, "ingest", "run-9"),)
    return Change(
        "undo", restore=target, undo=Undo(target.version, target.commit_id, undone, "why"), held_by="undo-run"
    )


class TestUndo:
    """I28, I30."""

    def test_an_undo_is_the_next_version_with_everything_of_the_old_one(self):
        after = apply(NOW_HEAD, taking_back(NOW_HEAD))
        assert (after.version, after.parent_sha256, after.held_by) == (5, "head", "undo-run")
        assert (after.files, after.keys, after.graphs, after.holds) == (OLD.files, OLD.keys, OLD.graphs, None)
        assert after.undo is not None
        assert after.undo.to_commit_id == "c3"

    def test_an_undo_is_never_rebased(self):
        """It names what it takes back: a commit that came meanwhile is not among it."""
        meanwhile = replace(apply(NOW_HEAD, Change("ingest", add=(C,))), commit_id="c5")
        with pytest.raises(CommitConflictError, match="moved on since the undo was planned"):
            apply(meanwhile, taking_back(NOW_HEAD))

    def test_what_the_sweep_has_condemned_does_not_come_back(self):
        with pytest.raises(CommitConflictError, match="condemned"):
            apply(replace(NOW_HEAD, files={B.path: B}, condemned=(A.path,)), taking_back(NOW_HEAD))

    def test_an_undo_does_not_reach_below_the_floor(self):
        with pytest.raises(CommitConflictError, match="below the floor"):
            apply(replace(NOW_HEAD, floor=4), taking_back(NOW_HEAD))

    @pytest.mark.parametrize(
        "change",
        [Change("ingest", add=(C,)), Change("hot-to-warm", remove=(A,)), Change("sweep", condemn=("x",))],
        ids=lambda change: change.operation,
    )
    def test_a_held_shard_is_changed_by_nothing_else(self, change: Change):
        held = replace(apply(NOW_HEAD, taking_back(NOW_HEAD)), commit_id="c5")
        with pytest.raises(
            ShardHeldError, match="shard 17 is held after an undo by run undo-run; `akosha release --shard 17`"
        ):
            apply(held, change)

    def test_a_release_changes_only_who_holds_it(self):
        held = replace(apply(NOW_HEAD, taking_back(NOW_HEAD)), commit_id="c5", sha256="five")
        free = apply(held, Change("release", release="c5"))
        assert (free.held_by, free.undo, free.version, free.files) == ("", None, 6, held.files)
        assert apply(free, Change("ingest", add=(C,))).version == 7

    def test_a_release_is_that_of_the_undo_that_was_looked_at(self):
        held = replace(apply(NOW_HEAD, taking_back(NOW_HEAD)), commit_id="c5")
        again = replace(apply(held, taking_back(held)), commit_id="c6")
        with pytest.raises(CommitConflictError, match="not held by the undo"):
            apply(again, Change("release", release="c5"))

    def test_documents_of_undone_and_swept_shards_say_the_same_when_they_are_read(self):
        held = replace(apply(NOW_HEAD, taking_back(NOW_HEAD)), commit_id="c5", floor=2, sweeps=3, holds=HOLD)
        document = unseal(seal(commit_document(held)), kind="commit", key="k")
        assert replace(parse_commit(document, key="k"), sha256="") == held

    def test_a_commit_without_such_things_has_no_such_fields(self):
        assert not {"undo", "holds", "floor", "sweeps"} & commit_document(HEAD).keys()


class TestSweep:
    """I31."""

    def test_a_sweep_names_what_it_condemns_in_the_place_of_what_was(self):
        swept = apply(replace(HEAD, condemned=("gone",)), Change("sweep", condemn=(C.path,)))
        assert (swept.condemned, swept.sweeps, swept.files) == ((C.path,), 1, HEAD.files)
        assert apply(swept, Change("ingest", remove=(A,))).condemned == (C.path,)

    def test_what_the_head_names_is_not_condemned(self):
        named = replace(HEAD, files={A.path: replace(A, removal=Removal("r1", 1, "x"))}, holds=HOLD)
        for path in (A.path, "r1", HEAD.keys["laptop-7"].path, HOLD.path):
            with pytest.raises(CommitConflictError, match="named again"):
                apply(named, Change("sweep", condemn=(path,)))

    @pytest.mark.parametrize("kind", ["file", "keys", "removal", "graph", "holds"])
    def test_nothing_condemned_is_named_again(self, kind: str):
        new_keys, new_graph = keys("k2"), graph("g2")
        removal = Removal("r2", 1, "x")
        change, path = {
            "file": (Change("ingest", add=(C,)), C.path),
            "keys": (Change("ingest", keys=((HEAD.keys["laptop-7"], new_keys),)), new_keys.path),
            "removal": (Change("ingest", mask=((A, replace(A, removal=removal)),)), removal.path),
            "graph": (Change("ingest", graphs=((None, new_graph),)), new_graph.path),
            "holds": (Change("promote", holds=(None, HOLD)), HOLD.path),
        }[kind]
        with pytest.raises(CommitConflictError, match="condemned a staged file"):
            apply(replace(HEAD, condemned=(path,)), change)


def test_a_move_plans_again_when_a_promotion_has_put_records_on_hold():
    """I32."""
    move = Change("hot-to-warm", remove=(A,), add=(C,), holds=(None, None))
    assert apply(HEAD, move).holds is None
    with pytest.raises(CommitConflictError, match="records on hold have changed"):
        apply(replace(HEAD, holds=HOLD), move)
    assert Change("hot-to-warm", holds=(HOLD, HOLD)).empty
    assert not Change("promote", holds=(HOLD, None)).empty


def test_a_commit_of_version_1_is_read():
    commit = replace(HEAD, files={A.path: replace(A, xxh128="ee")}, sha256="")
    document = {**commit_document(commit), "format": "akosha-commit/1"}
    for entry in (*document["files"], *document["keys"]):
        entry.pop("xxh128", None)
        entry.pop("newest_file_xxh128", None)
    found = parse_commit(unseal(seal(document), kind="commit", key="k"), key="k")
    assert found == replace(commit, files={A.path: A}, sha256=found.sha256)
    assert commit_document(found)["format"] == "akosha-commit/2"
