"""The one write that matters, with answers lost, writers racing, and documents spoiled (docs/format.md, Commits). Cites I17 and I18: one chain; nothing is deleted or planned while an outcome is unknown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.integration.small_lake import NOW, keys_of, memories, new_lake, table_of
from tests.support.s3_proxy import ALWAYS, Proxy, s3_proxy

from akosha.errors import CommitConflictError, CommitUnknownError, CommitVoidError, FormatVersionError, IntegrityError
from akosha.lake import shard_log
from akosha.lake.commits import Change, Commit, FileEntry, Removal
from akosha.lake.documents import seal
from akosha.lake.edit import FAN_IN, ShardEdit, edit_shard, files_to_absorb
from akosha.lake.files import MAX_ROWS
from akosha.lake.lake import Lake
from akosha.lake.layout import commit_key, commits_prefix, shard_of
from akosha.lake.local_store import LocalStore
from akosha.lake.objects import ObjectInfo
from akosha.lake.provenance import about
from akosha.lake.s3_store import S3Store, make_client
from akosha.lake.shard_log import ShardLog, Writer

pytestmark = pytest.mark.integration

WRITER = Writer("run-1", 1, NOW)
SHARD = shard_of("laptop-7")
SETTING = "AKOSHA_LAKE_URL"


def file(name: str) -> FileEntry:
    return FileEntry("hot", "lake", f"shards/077/hot/{name}.duckdb", 10, 1, "aa", NOW.isoformat(), NOW.isoformat())


def adding(*names: str) -> Change:
    return Change("ingest", add=tuple(file(name) for name in names))


def names_in(commit: Commit) -> set[str]:
    return {Path(path).stem for path in commit.files}


def assert_one_chain(log: ShardLog) -> list[Commit]:
    """Every version once, each with the digest of the one before. Newest first."""
    chain = [log.read(version) for version in log.versions()]
    assert [commit.version for commit in chain] == list(range(len(chain), 0, -1))
    for newer, older in pairwise(chain):
        assert newer.parent_sha256 == older.sha256
    assert len({commit.commit_id for commit in chain}) == len(chain)
    return chain


@pytest.fixture
def log(tmp_path: Path) -> ShardLog:
    return ShardLog(LocalStore(tmp_path / "lake", setting=SETTING), SHARD)


@pytest.fixture
def proxy(s3_server: str) -> Iterator[Proxy]:
    with s3_proxy(s3_server) as running:
        yield running


@pytest.fixture
def s3_log(proxy: Proxy, bucket: str) -> ShardLog:
    """A log whose every request goes through the proxy."""
    return ShardLog(S3Store(make_client(proxy.url), bucket, "lake", setting=SETTING), SHARD)


@pytest.fixture
def other_log(s3_server: str, bucket: str) -> ShardLog:
    """The same log as another writer sees it, undisturbed."""
    return ShardLog(S3Store(make_client(s3_server), bucket, "lake", setting=SETTING), SHARD)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same protocol with shorter waits and fewer attempts."""
    monkeypatch.setattr(shard_log, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(shard_log, "PUT_ATTEMPTS", 3)


class TestAnswers:
    def test_a_lost_answer_commits_once(self, proxy: Proxy, s3_log: ShardLog):
        rule = proxy.rule("lose", method="PUT", path="/commits/")
        published = s3_log.publish(s3_log.head(), adding("a"), WRITER)
        assert rule.spoiled == 1
        assert published.version == 1
        (found,) = assert_one_chain(s3_log)
        assert found.commit_id == published.commit_id
        assert names_in(found) == {"a"}

    @pytest.mark.slow
    @pytest.mark.parametrize("action", ["lose", "reset", "answer"])
    def test_an_unknown_outcome_is_asked_again_until_it_is_definite(
        self, proxy: Proxy, s3_log: ShardLog, impatient: None, action: str
    ):
        """Longer than the client library's own patience: our retry must put the same document."""
        rule = proxy.rule(action, method="PUT", path="/commits/", count=5, status=503)
        published = s3_log.publish(s3_log.head(), adding("a"), WRITER)
        assert rule.spoiled == 5
        (found,) = assert_one_chain(s3_log)
        assert (found.commit_id, found.sha256) == (published.commit_id, published.sha256)

    @pytest.mark.slow
    def test_somebody_else_may_win_while_the_outcome_is_unknown(
        self, proxy: Proxy, s3_log: ShardLog, other_log: ShardLog, impatient: None
    ):
        stale = s3_log.head()
        other_log.publish(stale, adding("theirs"), WRITER)
        proxy.rule("reset", method="PUT", path="/commits/", count=5)
        published = s3_log.publish(stale, adding("mine"), WRITER)
        assert published.version == 2
        assert names_in(assert_one_chain(other_log)[0]) == {"theirs", "mine"}

    @pytest.mark.slow
    def test_an_outcome_that_stays_unknown_is_said_to_be(
        self, proxy: Proxy, s3_log: ShardLog, other_log: ShardLog, impatient: None
    ):
        proxy.rule("lose", method="PUT", path="/commits/", count=ALWAYS)
        with pytest.raises(CommitUnknownError):
            s3_log.publish(s3_log.head(), adding("a"), WRITER)
        assert names_in(other_log.head()) == {"a"}

    def test_a_conflict_answer_of_s3_is_not_taken_for_a_refusal(self, proxy: Proxy, s3_log: ShardLog, impatient: None):
        rule = proxy.rule("answer", method="PUT", path="/commits/", status=409, code="ConditionalRequestConflict")
        assert s3_log.publish(s3_log.head(), adding("a"), WRITER).version == 1
        assert rule.spoiled == 1
        assert len(assert_one_chain(s3_log)) == 1


class TestRebase:
    def test_an_unrelated_commit_in_between_keeps_both(self, log: ShardLog):
        planned_on = log.publish(log.head(), adding("old"), WRITER)
        log.publish(planned_on, adding("theirs"), WRITER)
        mine = log.publish(planned_on, replace(adding("mine"), remove=(file("old"),)), WRITER)
        assert mine.version == 3
        assert names_in(mine) == {"theirs", "mine"}
        assert_one_chain(log)

    def test_a_conflicting_removal_list_means_plan_again(self, log: ShardLog):
        """I1."""
        planned_on = log.publish(log.head(), adding("old"), WRITER)
        masked = [replace(file("old"), removal=Removal(f"r{n}", n, "bb")) for n in (1, 2)]
        log.publish(planned_on, Change("ingest", mask=((file("old"), masked[0]),)), WRITER)
        with pytest.raises(CommitConflictError, match="plan again"):
            log.publish(planned_on, Change("ingest", mask=((file("old"), masked[1]),)), WRITER)
        assert log.head().files[file("old").path].removal == masked[0].removal

    def test_a_head_that_does_not_descend_voids_the_commit(self, log: ShardLog, tmp_path: Path):
        """A writer freezes for days; the sweep takes old documents; its number is free again."""
        frozen_on = log.head()
        for number in range(5):
            last = log.publish(log.head(), adding(f"f{number}"), WRITER)
            frozen_on = last if number == 0 else frozen_on
        for version in (1, 2, 3):
            (tmp_path / "lake" / commit_key(SHARD, version)).unlink()
        with pytest.raises(CommitConflictError, match="void"):
            log.publish(frozen_on, adding("mine"), WRITER)
        assert log.head() == last

    def test_a_commit_that_others_build_on_at_once_stands(self, tmp_path: Path):
        class Busy(LocalStore):
            """Others commit twice between our put and our look at the chain."""

            busy = True

            def put_if_absent(self, key: str, data: bytes) -> bool:
                made = super().put_if_absent(key, data)
                if self.busy:
                    self.busy = False
                    for name in ("one", "two"):
                        ShardLog(self, SHARD).publish(ShardLog(self, SHARD).head(), adding(name), WRITER)
                return made

        log = ShardLog(Busy(tmp_path / "lake", setting=SETTING), SHARD)
        assert log.publish(log.head(), adding("mine"), WRITER).version == 1
        assert names_in(assert_one_chain(log)[0]) == {"mine", "one", "two"}


class TestWriters:
    def test_threads_share_a_log_without_losing_a_file(self, log: ShardLog):
        def write(writer: int) -> list[int]:
            stale = log.head()
            return [log.publish(stale, adding(f"{writer}-{n}"), WRITER).version for n in range(6)]

        with ThreadPoolExecutor(4) as pool:
            versions = sorted(version for won in pool.map(write, range(4)) for version in won)
        assert versions == list(range(1, 25))
        assert names_in(assert_one_chain(log)[0]) == {f"{writer}-{n}" for writer in range(4) for n in range(6)}

    def test_processes_share_a_log_without_losing_a_file(self, log: ShardLog, tmp_path: Path):
        program = (
            "import sys\n"
            "from tests.integration.test_commit_protocol import LocalStore, ShardLog, SHARD, WRITER, adding\n"
            "from pathlib import Path\n"
            "log = ShardLog(LocalStore(Path(sys.argv[1]), setting='X'), SHARD)\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "for n in range(12): print(log.publish(log.head(), adding(f'{sys.argv[2]}-{n}'), WRITER).version)\n"
        )
        root = Path(__file__).parents[2]
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", program, tmp_path / "lake", str(number)],
                cwd=root, env={"PYTHONPATH": f"{root}:{root / 'plugins'}", "HOME": str(tmp_path)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for number in range(2)
        ]  # fmt: skip
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        answers = [writer.communicate("go\n", timeout=60)[0] for writer in writers if writer.stdin is not None]
        versions = sorted(int(line) for answer in answers for line in answer.split())
        assert versions == list(range(1, 25))
        assert len(names_in(assert_one_chain(log)[0])) == 24


class TestDocuments:
    @pytest.fixture
    def head(self, log: ShardLog) -> Commit:
        return log.publish(log.head(), adding("a"), WRITER)

    def path(self, tmp_path: Path, version: int = 1, shard: int = SHARD) -> Path:
        return tmp_path / "lake" / commit_key(shard, version)

    def test_a_flipped_bit_is_damage(self, log: ShardLog, head: Commit, tmp_path: Path):
        """I3."""
        data = bytearray(self.path(tmp_path).read_bytes())
        data[len(data) // 2] ^= 4
        self.path(tmp_path).write_bytes(data)
        with pytest.raises(IntegrityError, match="akosha fsck"):
            log.head()

    @pytest.mark.parametrize("data", [b"", b"{", b"null\n"])
    def test_a_torn_document_is_damage(self, log: ShardLog, head: Commit, tmp_path: Path, data: bytes):
        self.path(tmp_path).write_bytes(data)
        with pytest.raises(IntegrityError):
            log.head()

    def test_a_newer_document_is_left_alone(self, log: ShardLog, head: Commit, tmp_path: Path):
        document = json.loads(self.path(tmp_path).read_bytes())
        self.path(tmp_path).write_bytes(seal({**document, "format": "akosha-commit/3", "more": 1}))
        with pytest.raises(FormatVersionError, match="newer Akosha"):
            log.head()
        with pytest.raises(FormatVersionError):
            log.publish(Commit(SHARD, 0), adding("b"), WRITER)

    def test_a_document_under_another_number_or_shard_is_damage(self, log: ShardLog, head: Commit, tmp_path: Path):
        data = self.path(tmp_path).read_bytes()
        self.path(tmp_path, 2).write_bytes(data)
        with pytest.raises(IntegrityError, match="another shard or version"):
            log.head()
        other = self.path(tmp_path, 1, 5)
        other.parent.mkdir(parents=True)
        other.write_bytes(data)
        with pytest.raises(IntegrityError, match="another shard or version"):
            ShardLog(LocalStore(tmp_path / "lake", setting=SETTING), 5).head()


def rows(count: int, *, seed: int = 1, first: int = 0):
    """Hot rows of laptop-7."""
    return table_of("hot", memories("laptop-7", "hot", first + count, seed=seed)[first:])


def put_hot(lake: Lake, count: int, *, seed: int = 1) -> Commit:
    with edit_shard(lake, lake.shard(SHARD).head(), about()) as edit:
        edit.put("hot", rows(count, seed=seed))
        return edit.publish("ingest", WRITER, counts={})


def drop_first(edit: ShardEdit, lake: Lake, count: int) -> None:
    """Drop the first live rows of the only hot file of the head."""
    (entry,) = edit.head.of_tier("hot")
    numbers = lake.rows(entry, ["record_id"]).column("row").to_numpy()[:count]
    edit.drop(entry, numbers)


def drop_hot(lake: Lake, count: int) -> Commit:
    with edit_shard(lake, lake.shard(SHARD).head(), about()) as edit:
        drop_first(edit, lake, count)
        return edit.publish("ingest", WRITER, counts={})


def ids(lake: Lake) -> list[str]:
    head = lake.shard(SHARD).head()
    return sorted(one for entry in head.of_tier("hot") for one in lake.rows(entry).column("record_id").to_pylist())


def data_files(lake: Lake) -> set[str]:
    return {found.key for found in lake.store.list("shards/") if commits_prefix(SHARD) not in found.key}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return new_lake(tmp_path)


@pytest.fixture
def s3_lake(proxy: Proxy, bucket: str, tmp_path: Path) -> Lake:
    return new_lake(tmp_path, lake_url=f"s3://{bucket}/lake", s3_endpoint_url=proxy.url)


class TestStagedFiles:
    def test_a_definite_conflict_leaves_no_staged_file(self, lake: Lake):
        put_hot(lake, 10)
        stale = lake.shard(SHARD).head()
        drop_hot(lake, 1)
        before = data_files(lake)

        def write_on_stale() -> None:
            with edit_shard(lake, stale, about()) as edit:
                drop_first(edit, lake, 2)
                edit.put("hot", rows(3, seed=9))
                edit.publish("ingest", WRITER, counts={})

        with pytest.raises(CommitConflictError):
            write_on_stale()
        assert data_files(lake) == before
        assert len(ids(lake)) == 9

    @pytest.mark.slow
    def test_an_unknown_outcome_keeps_every_staged_file(
        self, proxy: Proxy, s3_lake: Lake, s3_server: str, bucket: str, impatient: None, tmp_path: Path
    ):
        """I1: the commit did land; deleting its files would lose its records."""
        proxy.rule("lose", method="PUT", path="/commits/", count=ALWAYS)
        with pytest.raises(CommitUnknownError):
            put_hot(s3_lake, 10)
        undisturbed = new_lake(tmp_path / "b", lake_url=f"s3://{bucket}/lake", s3_endpoint_url=s3_server)
        assert len(ids(undisturbed)) == 10

    def test_a_failed_plan_leaves_no_staged_file(self, lake: Lake):
        def fail() -> None:
            with edit_shard(lake, lake.shard(SHARD).head(), about()) as edit:
                edit.put("hot", rows(3))
                edit.stage()
                assert data_files(lake)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert data_files(lake) == set()
        assert lake.heads() == []

    def test_a_void_commit_keeps_every_staged_file(self, lake: Lake):
        """I18: frozen for days, its number was swept and used again; what it staged is the sweep's to judge."""
        frozen_on = put_hot(lake, 3)
        last = [put_hot(lake, 3, seed=seed) for seed in range(2, 6)][-1]
        for version in (1, 2, 3):
            lake.store.delete(commit_key(SHARD, version))
        before = data_files(lake)

        def thaw() -> None:
            with edit_shard(lake, frozen_on, about()) as edit:
                edit.put("hot", rows(3, seed=9))
                edit.publish("ingest", WRITER, counts={})

        with pytest.raises(CommitVoidError):
            thaw()
        assert lake.shard(SHARD).head() == last
        assert list(lake.shard(SHARD).versions()) == [5, 4]
        assert before < data_files(lake)

    def test_a_listing_that_lags_costs_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """I1: a store whose listing is stale must not make a writer take its own commit for void."""

        class Lagging(LocalStore):
            lag = False

            def list(self, prefix: str, *, start_after: str = "", limit: int = 0) -> Iterator[ObjectInfo]:
                found = list(super().list(prefix, start_after=start_after))
                if self.lag and "/commits/" in prefix:
                    found = found[1:]
                yield from found[:limit] if limit else found

        lake = new_lake(tmp_path)
        lake.store = store = Lagging(tmp_path / "lake", setting=SETTING)
        put_hot(lake, 4)
        head = lake.shard(SHARD).head()

        def write() -> None:
            with edit_shard(lake, head, about()) as edit:
                edit.put("hot", rows(3, seed=9))
                store.lag = True
                edit.publish("ingest", WRITER, counts={})

        with pytest.raises(CommitUnknownError):
            write()
        store.lag = False
        assert len(ids(lake)) == 7

    @pytest.mark.parametrize("kind", ["/hot/", "/keys/", "/removals/"])
    def test_bytes_changed_on_the_way_are_never_committed(self, proxy: Proxy, s3_lake: Lake, kind: str):
        """I2, I3."""
        put_hot(s3_lake, 10)
        before = (data_files(s3_lake), s3_lake.shard(SHARD).head())
        rule = proxy.rule("corrupt", method="PUT", path=kind)

        def write() -> None:
            with edit_shard(s3_lake, before[1], about()) as edit:
                drop_first(edit, s3_lake, 1)
                edit.put("hot", rows(3, seed=9))
                edit.set_keys("laptop-7", keys_of(memories("laptop-7", "hot", 3)), newest=NOW)
                edit.publish("ingest", WRITER, counts={})

        with pytest.raises(IntegrityError):
            write()
        assert rule.spoiled == 1
        assert (data_files(s3_lake), s3_lake.shard(SHARD).head()) == before

    def test_a_copy_to_another_file_system_is_read_back(self, lake: Lake, tmp_path: Path):
        """I2, I3: where a link is not possible the store copies, and a copy can go wrong."""

        class Careless(LocalStore):
            def upload(self, key: str, path: Path) -> None:
                data = bytearray(path.read_bytes())
                data[-1] ^= 1
                self.put(key, bytes(data))

        lake.store = Careless(tmp_path / "lake", setting=SETTING)
        with pytest.raises(IntegrityError, match="other bytes than were sent"):
            put_hot(lake, 3)
        assert data_files(lake) == set()


class TestFiles:
    @pytest.mark.parametrize(
        ("sizes", "rows", "absorbed"),
        [
            ([], 5, 0),
            ([1] * 6, 1, 0),
            ([1] * 7, 1, 7),
            ([1] * 7 + [8] * 6, 1, 7),
            ([1] * 7 + [8] * 7, 1, 14),
            ([8] * 7, 1, 0),
            ([4_096] * 7, 4_096, 0),
            ([MAX_ROWS] * 9, MAX_ROWS, 0),
        ],
    )
    def test_eight_files_of_one_size_class_become_one(self, sizes: list[int], rows: int, absorbed: int):
        entries = [replace(file(f"{number}"), rows=size) for number, size in enumerate(sizes)]
        assert len(files_to_absorb(entries, rows)) == absorbed

    def test_many_small_commits_make_few_files_and_lose_no_row(self, lake: Lake):
        written = 0
        for number in range(17):
            head = lake.shard(SHARD).head()
            with edit_shard(lake, head, about()) as edit:
                edit.put("hot", rows(2, first=2 * number))
                after = edit.publish("ingest", WRITER, counts={})
            written += sum(after.files[path].rows for path in after.files.keys() - head.files.keys())
        assert ids(lake) == [f"hot-{number:04d}" for number in range(34)]
        assert len(after.files) == 3
        assert FAN_IN == 8
        assert written <= 2 * 34  # every row once, and once more per size class it has grown through

    def test_full_files_are_written_while_rows_still_come(self, lake: Lake):
        """A batch of any size is held one file at a time."""
        with edit_shard(lake, lake.shard(SHARD).head(), about()) as edit:
            for half in (0, 1):
                some = memories("laptop-7", "hot", 40)
                for number, memory in enumerate(some):
                    memory.vector, memory.record_id = None, f"{half}-{number}"
                wide = table_of("hot", some)
                edit.put("hot", pa.concat_tables([wide] * 300))
                assert len(data_files(lake)) == half
            head = edit.publish("ingest", WRITER, counts={})
        assert sorted(entry.rows for entry in head.of_tier("hot")) == [4_000, MAX_ROWS]
        assert sum(lake.rows(entry, ["record_id"]).num_rows for entry in head.of_tier("hot")) == 24_000

    def test_rows_are_kept_in_order_of_system_and_time(self, lake: Lake):
        for number in reversed(range(8)):
            put_hot(lake, 1, seed=number + 1)
        (entry,) = lake.shard(SHARD).head().of_tier("hot")
        table = lake.rows(entry)
        assert table.num_rows == 8
        assert table.sort_by([("system_id", "ascending"), ("created_at", "ascending")]).equals(table)

    def test_a_few_rows_leave_by_a_removal_list(self, lake: Lake):
        before = put_hot(lake, 10)
        after = drop_hot(lake, 3)
        assert after.files.keys() == before.files.keys()
        (entry,) = after.of_tier("hot")
        assert (entry.rows, entry.live_rows) == (10, 7)
        assert ids(lake) == [f"hot-{number:04d}" for number in range(3, 10)]

    def test_a_file_more_than_30_percent_removed_is_rewritten(self, lake: Lake):
        before = put_hot(lake, 10)
        after = drop_hot(lake, 4)
        assert not after.files.keys() & before.files.keys()
        (entry,) = after.of_tier("hot")
        assert (entry.rows, entry.removal) == (6, None)
        assert ids(lake) == [f"hot-{number:04d}" for number in range(4, 10)]

    def test_removals_add_up(self, lake: Lake):
        put_hot(lake, 10)
        drop_hot(lake, 2)
        (entry,) = drop_hot(lake, 1).of_tier("hot")
        assert entry.live_rows == 7
        (entry,) = drop_hot(lake, 1).of_tier("hot")
        assert (entry.rows, entry.removal) == (6, None)
        assert ids(lake) == [f"hot-{number:04d}" for number in range(4, 10)]

    def test_a_record_that_left_is_not_counted_as_lacking_a_vector(self, lake: Lake):
        """The embedding lane asks this number whether there is work."""
        some = memories("laptop-7", "hot", 10)
        for memory in some[1:4]:
            memory.vector = None
        with edit_shard(lake, lake.shard(SHARD).head(), about()) as edit:
            edit.put("hot", table_of("hot", some))
            (entry,) = edit.publish("ingest", WRITER, counts={}).of_tier("hot")
        assert entry.without_vector == 3
        (entry,) = drop_hot(lake, 2).of_tier("hot")
        assert (entry.live_rows, entry.without_vector) == (8, 2)

    def test_an_emptied_file_leaves_the_head(self, lake: Lake):
        put_hot(lake, 10)
        assert drop_hot(lake, 10).files == {}

    def test_a_spoiled_removal_list_is_damage(self, lake: Lake):
        """I3: rows that left must not come back, nor others go."""
        put_hot(lake, 10)
        (entry,) = drop_hot(lake, 2).of_tier("hot")
        assert entry.removal is not None
        lake.store.put(entry.removal.path, np.array([0, 2], dtype="<u4").tobytes())
        with pytest.raises(IntegrityError, match="removal list"):
            lake.rows(entry)

    @pytest.mark.parametrize("tier", ["hot", "warm", "cold", "archive"])
    def test_a_file_fetched_with_other_bytes_is_never_read(
        self, s3_lake: Lake, tier: str, s3_server: str, bucket: str, tmp_path: Path
    ):
        """I3: a reader without a cache compares what it fetched."""
        with edit_shard(s3_lake, s3_lake.shard(SHARD).head(), about()) as edit:
            edit.put(tier, table_of(tier, memories("laptop-7", "hot", 3)))
            commit = edit.publish("ingest", WRITER, counts={})
        (entry,) = commit.of_tier(tier)
        store = s3_lake.store_of(entry)
        data = bytearray(store.get(entry.path))
        data[len(data) // 2] ^= 1
        store.put(entry.path, bytes(data))
        fresh = new_lake(tmp_path / "b", lake_url=f"s3://{bucket}/lake", s3_endpoint_url=s3_server)
        with pytest.raises(IntegrityError, match="a file does not match its SHA-256"):
            fresh.rows(entry)

    def test_an_edit_that_changes_nothing_publishes_nothing(self, lake: Lake):
        """I4."""
        head = put_hot(lake, 3)
        with edit_shard(lake, head, about()) as edit:
            edit.put("hot", rows(3).slice(0, 0))
            edit.drop(head.of_tier("hot")[0], np.array([], dtype=np.uint32))
            assert edit.publish("ingest", WRITER, counts={"new": 0}) == head
        assert lake.shard(SHARD).head() == head

    def test_a_key_file_confirmed_again_by_the_same_upload_publishes_nothing(self, lake: Lake):
        """I4."""
        with edit_shard(lake, lake.shard(SHARD).head(), about()) as edit:
            edit.set_keys("laptop-7", keys_of(memories("laptop-7", "hot", 3)), newest=NOW, file_xxh128="aa")
            head = edit.publish("ingest", WRITER, counts={})
        with edit_shard(lake, head, about()) as edit:
            edit.confirm_keys("laptop-7", newest=NOW, file_xxh128="aa")
            assert edit.publish("ingest", WRITER, counts={}) == head
        assert lake.shard(SHARD).head() == head

    def test_a_text_that_is_not_its_digest_is_never_written(self, lake: Lake):
        """I6."""
        table = rows(3)
        wrong = table.set_column(
            table.schema.get_field_index("content"), table.schema.field("content"), [["a", "b", "c"]]
        )

        def write() -> None:
            with edit_shard(lake, lake.shard(SHARD).head(), about()) as edit:
                edit.put("hot", wrong)
                edit.stage()

        with pytest.raises(IntegrityError, match="does not match its digest"):
            write()
        assert data_files(lake) == set()


def test_committed_times_are_those_of_the_writer(log: ShardLog):
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    log.publish(log.head(), adding("a"), Writer("run-9", 3, moment))
    head = log.head()
    assert (head.run_id, head.policy, head.committed_at) == ("run-9", 3, moment.isoformat())
