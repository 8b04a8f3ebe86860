"""Fetching uploads: several at a time; one whose manifest is replaced meanwhile comes again. Cites I5."""

from __future__ import annotations

import gzip
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_upload

from akosha.errors import (
    AkoshaError,
    DiskFullError,
    InvalidUploadError,
    ObjectMissingError,
    StoppedError,
    StoreUnavailableError,
)
from akosha.jobs.stopping import stoppable
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.local_store import LocalStore
from akosha.lake.objects import ObjectInfo, ObjectStore
from akosha.lake.shard_log import Writer
from akosha.uploads.discovery import list_manifests
from akosha.uploads.ingest import Ingester, IngestOutcome
from akosha.uploads.memos import UploadRef
from akosha.uploads.prepare import AHEAD_BYTES, FetchedUpload, Source, fetch
from akosha.uploads.sandbox import Sandbox
from akosha.uploads.schedule import Scope

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
GRAPH = "knowledge_graph.duckdb"


@dataclass
class ReplacedStore:
    """A store whose `number`-th read of an object happens right after its upload was written anew; 0 = never."""

    store: ObjectStore
    again: Callable[[], object]
    number: int
    asked: list[str]

    def read(self, key: str, *, max_bytes: int) -> tuple[ObjectInfo, bytes]:
        self._ask("read", key)
        return self.store.read(key, max_bytes=max_bytes)

    def download(self, key: str, path: Path, *, max_bytes: int = 0) -> ObjectInfo:
        self._ask("download", key)
        return self.store.download(key, path, max_bytes=max_bytes)

    def stat(self, key: str) -> ObjectInfo | None:
        self._ask("stat", key)
        return self.store.stat(key)

    def _ask(self, what: str, key: str) -> None:
        self.asked.append(f"{what} {key.rpartition('/')[2]}")
        if len(self.asked) == self.number:
            self.again()


def sound(text: str) -> bytes:
    return database({"conversations_v2": [memory("a", text, NOW)]})


def graph_beside(document: dict[str, Any]) -> None:
    folder = document["files"][0]["path"].rpartition("/")[0]
    document["files"].append(
        {**document["files"][0], "name": GRAPH, "path": f"{folder}/{GRAPH}", "compression": "none"}
    )


@dataclass
class Uploads:
    """One system's uploads in a folder, and what reading the newest gives."""

    store: LocalStore
    folder: Path
    with_graph: bool = False

    def write(self, text: str) -> UploadRef:
        key = put_upload(self.store, "laptop", NOW, sound(text), change=self._change(text))
        (found,) = list_manifests(self.store, Scope("laptop/")).refs
        assert found.manifest_key == key
        return found

    def fetch(self, ref: UploadRef, *, replaced_at: int = 0) -> tuple[FetchedUpload | None, list[str]]:
        """What comes of it, None = it changed meanwhile; and what was asked for."""
        asked: list[str] = []
        store = ReplacedStore(self.store, lambda: self.write("second"), replaced_at, asked)
        try:
            return fetch(Source(store), ref, self.folder, max_bytes=1 << 30), asked  # type: ignore[arg-type]
        except ObjectMissingError:
            return None, asked

    def _change(self, text: str) -> Callable[[dict[str, Any]], object]:
        def change(document: dict[str, Any]) -> None:
            document["metadata"]["of"] = text
            if self.with_graph:
                graph_beside(document)
                self.store.put(document["files"][1]["path"], sound(f"graph of {text}"))

        return change


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "fetched").mkdir()
    return Uploads(LocalStore(tmp_path / "uploads", setting="AKOSHA_UPLOADS_URL"), tmp_path / "fetched")


def test_the_only_object_is_read_before_its_manifest_and_nothing_is_asked_afterwards(uploads: Uploads):
    ref = uploads.write("first")
    assert ref.beside == "reflection.duckdb"
    fetched, asked = uploads.fetch(ref)
    assert asked == ["download reflection.duckdb", "read manifest.json"]
    assert fetched is not None
    assert fetched.records is not None
    assert fetched.records.read_bytes() == sound("first")


@pytest.mark.parametrize("replaced_at", [1, 2])
def test_an_upload_replaced_before_or_after_its_object_was_read_comes_again(uploads: Uploads, replaced_at: int):
    assert uploads.fetch(uploads.write("first"), replaced_at=replaced_at)[0] is None


def test_objects_read_after_the_manifest_are_followed_by_another_look_at_it(uploads: Uploads):
    uploads.with_graph = True
    ref = uploads.write("first")
    assert ref.beside == ""
    asked = ["read manifest.json", "download reflection.duckdb", f"download {GRAPH}", "stat manifest.json"]
    fetched, found = uploads.fetch(ref)
    assert fetched is not None
    assert found == asked


@pytest.mark.parametrize("replaced_at", [1, 2, 3, 4])
def test_an_upload_of_two_objects_that_is_replaced_at_any_moment_comes_again(uploads: Uploads, replaced_at: int):
    uploads.with_graph = True
    assert uploads.fetch(uploads.write("first"), replaced_at=replaced_at)[0] is None


def test_the_hint_of_a_listing_is_not_believed(uploads: Uploads):
    """Another object may have come, or that one may have gone, between the listing and now."""
    ref = uploads.write("first")
    uploads.store.put(f"{ref.manifest_key.rpartition('/')[0]}/other", b"not named by the manifest")
    fetched, asked = uploads.fetch(replace(ref, beside="other"))
    assert fetched is not None
    assert fetched.records is not None
    assert fetched.records.read_bytes() == sound("first")
    assert asked[-1] == "stat manifest.json"


def test_an_object_that_is_named_twice_is_fetched_twice_and_the_manifest_looked_at_again(uploads: Uploads):
    def twice(document: dict[str, Any]) -> None:
        document["files"].append({**document["files"][0], "name": GRAPH})

    put_upload(uploads.store, "laptop", NOW, sound("first"), change=twice)
    (ref,) = list_manifests(uploads.store, Scope("laptop/")).refs
    fetched, asked = uploads.fetch(ref)
    assert fetched is not None
    assert fetched.records is not None
    assert fetched.graph is not None
    assert fetched.records.read_bytes() == fetched.graph.read_bytes() == sound("first")
    assert asked[-3:] == ["download reflection.duckdb", "download reflection.duckdb", "stat manifest.json"]


def test_an_object_that_is_the_second_one_named_is_fetched_in_its_turn(uploads: Uploads):
    """The other one lies deeper, where the listing does not look for what is beside the manifest."""

    def deeper(document: dict[str, Any]) -> None:
        (first,) = document["files"]
        document["files"].append({**first, "name": GRAPH})
        first["path"] = first["path"].replace("reflection", "deeper/reflection")
        uploads.store.put(first["path"], gzip.compress(sound("deeper")))

    put_upload(uploads.store, "laptop", NOW, sound("beside"), change=deeper)
    (ref,) = list_manifests(uploads.store, Scope("laptop/")).refs
    assert ref.beside == "reflection.duckdb"
    fetched, asked = uploads.fetch(ref)
    assert fetched is not None
    assert fetched.records is not None
    assert fetched.graph is not None
    assert (fetched.records.read_bytes(), fetched.graph.read_bytes()) == (sound("deeper"), sound("beside"))
    assert asked[-1] == "stat manifest.json"


@pytest.mark.parametrize("fault", [DiskFullError("no room"), StoreUnavailableError("no answer")])
def test_a_broken_manifest_is_set_aside_whatever_became_of_the_object_beside_it(
    uploads: Uploads, fault: AkoshaError, monkeypatch: pytest.MonkeyPatch
):
    def fails(_store: object, _key: str, path: Path, **_: object) -> ObjectInfo:
        path.write_bytes(b"half")
        raise fault

    put_upload(uploads.store, "laptop", NOW, sound("first"), change=dict.clear)
    (ref,) = list_manifests(uploads.store, Scope("laptop/")).refs
    monkeypatch.setattr(LocalStore, "download", fails)
    with pytest.raises(InvalidUploadError) as refused:
        uploads.fetch(ref)
    assert refused.value.reason == "invalid-manifest"
    assert list(uploads.folder.iterdir()) == []


@pytest.mark.parametrize("listed", [0, AHEAD_BYTES + 1])
def test_a_large_object_waits_for_its_manifest(uploads: Uploads, listed: int):
    """Also where the listing said that it is small."""
    ref = uploads.write("first")
    (uploads.store.root / ref.manifest_key).with_name(ref.beside).write_bytes(bytes(AHEAD_BYTES + 1))
    with pytest.raises(InvalidUploadError):
        uploads.fetch(replace(ref, packed_bytes=listed))
    _, asked = uploads.fetch(replace(uploads.write("first"), packed_bytes=AHEAD_BYTES + 1))
    assert asked == ["read manifest.json", "download reflection.duckdb", "stat manifest.json"]


@pytest.mark.parametrize("listed", [0, 11])
def test_an_object_beyond_the_limit_is_not_fetched_ahead_either(uploads: Uploads, listed: int):
    ref = replace(uploads.write("first"), packed_bytes=listed)
    with pytest.raises(InvalidUploadError, match="it was not fetched") as refused:
        fetch(Source(uploads.store), ref, uploads.folder, max_bytes=10)
    assert refused.value.reason == "too-large"
    assert list(uploads.folder.iterdir()) == []


def test_an_object_that_is_gone_is_missed_by_its_manifest(uploads: Uploads):
    ref = uploads.write("first")
    uploads.store.delete(f"{ref.manifest_key.rpartition('/')[0]}/{ref.beside}")
    with pytest.raises(InvalidUploadError, match="which is not in the store") as refused:
        uploads.fetch(ref)
    assert refused.value.reason == "missing-object"


class TogetherStore(LocalStore):
    """Gives an object only when another one has been asked for as well. With `broken` it gives all at once, but never that."""

    def __init__(self, store: ObjectStore, broken: str = "") -> None:
        assert isinstance(store, LocalStore)
        super().__init__(store.root, setting="AKOSHA_UPLOADS_URL")
        self.broken = broken
        self.meeting = threading.Barrier(2, timeout=20)

    def download(self, key: str, path: Path, *, max_bytes: int = 0) -> ObjectInfo:
        if not self.broken:
            self.meeting.wait()
        elif self.broken in key:
            message = "the store does not answer"
            raise StoreUnavailableError(message, key=key)
        return super().download(key, path, max_bytes=max_bytes)


SYSTEMS = [name for name in map("m-{}".format, range(20_000)) if shard_of(name) == 7][:6]


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    return made


def ingest(installation: Installation, store: ObjectStore) -> IngestOutcome:
    refs = [ref for system in SYSTEMS for ref in list_manifests(installation.uploads, Scope(f"{system}/")).refs]
    with Sandbox() as sandbox:
        ingester = Ingester(installation.lake, Source(store), sandbox, Writer("run-1", 1, NOW))
        return ingester.ingest_shard(7, refs)


def test_uploads_of_a_round_are_fetched_together_and_a_broken_one_disturbs_no_other(installation: Installation):
    for number, system in enumerate(SYSTEMS):
        put_upload(installation.uploads, system, NOW, sound(system) if number != 2 else b"no database")
    outcome = ingest(installation, TogetherStore(installation.uploads))
    assert (outcome.applied, outcome.new, outcome.quarantined, outcome.commits) == (5, 5, 1, 1)
    assert [reason["upload"].split("/")[1] for reason in outcome.reasons] == [SYSTEMS[2]]
    assert set(installation.lake.shard(7).head().keys) == set(SYSTEMS) - {SYSTEMS[2]}


def test_sigterm_waits_for_no_transfer(installation: Installation):
    for system in SYSTEMS:
        put_upload(installation.uploads, system, NOW, sound(system))
    store = TogetherStore(installation.uploads)
    store.meeting = threading.Barrier(99)  # nobody ever comes

    def stop() -> None:
        while store.meeting.n_waiting < len(SYSTEMS):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(StoppedError), stoppable():
        ingest(installation, store)
    assert store.meeting.n_waiting == len(SYSTEMS), "all of them still wait"
    assert list((installation.lake.settings.cache / "scratch").iterdir()) == []
    store.meeting.abort()
    assert ingest(installation, installation.uploads).new == len(SYSTEMS)


def test_a_store_that_fails_in_the_middle_of_a_round_leaves_nothing_behind(installation: Installation):
    for system in SYSTEMS:
        put_upload(installation.uploads, system, NOW, sound(system))
    with pytest.raises(StoreUnavailableError):
        ingest(installation, TogetherStore(installation.uploads, broken=SYSTEMS[1]))
    assert installation.lake.shard(7).head().version == 0
    assert list((installation.lake.settings.cache / "scratch").iterdir()) == []
    assert ingest(installation, installation.uploads).new == len(SYSTEMS)
