"""Ingesting the due uploads of one shard: rounds of one upload per system, one commit per round.

A round that finds its shard moved on is planned again from the new head; what was read of the uploads is kept.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from akosha.errors import CommitConflictError, InvalidUploadError, ObjectMissingError, ShardHeldError
from akosha.lake.commits import Commit, KeyFile, held_sentence
from akosha.lake.edit import ShardEdit, edit_shard
from akosha.lake.lake import Lake
from akosha.lake.locate import locate
from akosha.lake.policy import Policy
from akosha.lake.provenance import about
from akosha.lake.shard_log import Writer
from akosha.lake.undo import undone_since
from akosha.uploads.amend import amend, amendments
from akosha.uploads.derive import hot_rows, provenance_of
from akosha.uploads.graph import GraphNumbers, GraphPlan, plan_graph
from akosha.uploads.graph_rows import Anchors
from akosha.uploads.memos import APPLIED, QUARANTINED, UNCHANGED, UploadRef, write_memo
from akosha.uploads.prepare import (
    FetchedUpload,
    PreparedGraph,
    PreparedUpload,
    Source,
    fetch,
    read_keys,
    read_knowledge_graph,
)
from akosha.uploads.quarantine import clear_superseded
from akosha.uploads.reader import RULES_ID
from akosha.uploads.refused_rows import refused_document, write_refused_rows
from akosha.uploads.sandbox import Sandbox
from akosha.uploads.sources import RowFaults
from akosha.uploads.texts import WantedRows, wanted_rows
from akosha.uploads.together import together
from akosha.uploads.upsert import COUNTED, Arrival, Rules, Snapshot, UpsertPlan, plan_upserts

log = logging.getLogger(__name__)

OPERATION: Final = "ingest"
MAX_REPLANS: Final = 5
FETCHED_AT_ONCE: Final = 8  # a fetch waits for its store longer than it computes
ROUND_UPLOADS: Final = 64  # that share a commit
ROUND_BYTES: Final = 256 << 20  # packed, as listed: what a round keeps on the local disk


@dataclass(slots=True)
class IngestOutcome:
    """What a job did with the uploads of one shard: numbers of uploads and of records, and why some were set aside.

    `repeated` uploads hold the same database file as the one before and were not opened. `held` ones wait for the release of
    their shard, which `waits_for` says.
    """

    shard: int
    uploads: int = 0
    applied: int = 0
    unchanged: int = 0
    repeated: int = 0
    quarantined: int = 0
    deferred: int = 0
    held: int = 0
    superseded: int = 0
    rows_read: int = 0
    accepted_rows: int = 0
    refused_rows: int = 0
    dropped_vectors: int = 0
    new: int = 0
    changed: int = 0
    unchanged_rows: int = 0
    written_rows: int = 0
    gone: int = 0
    retimed: int = 0
    amended: int = 0
    older: int = 0
    graph_rows: int = 0
    commits: int = 0
    reasons: list[dict[str, str]] = field(default_factory=list)
    waits_for: str = ""


@dataclass(slots=True)
class _Upload:
    """An upload on its way: fetched, read when that turns out to be needed, refused when it breaks its contract."""

    fetched: FetchedUpload
    prepared: PreparedUpload | None = None
    graph: PreparedGraph | None = None
    plan: UpsertPlan | None = None
    graph_plan: GraphPlan = field(default_factory=lambda: GraphPlan(None, GraphNumbers()))
    refused_rows: dict[str, Any] | None = None
    written: int = 0
    vectors: RowFaults = field(default_factory=RowFaults)

    @property
    def ref(self) -> UploadRef:
        return self.fetched.ref

    @property
    def says_something(self) -> bool:
        """Whether it holds a row, or the same file as one that was applied; an empty one may be a stale copy."""
        return self.prepared is None or bool(self.prepared.arrived.num_rows)

    @property
    def changes(self) -> bool:
        """Whether the key file or the knowledge graph changes, and so a commit names it."""
        return (self.plan is not None and self.plan.keys is not None) or self.graph_plan.table is not None

    @property
    def facts(self) -> dict[str, Any]:
        """What the memo and the commit say of it."""
        facts = dict(self.fetched.facts)
        if self.prepared is not None:
            examples = self.prepared.faults.examples | self.vectors.examples
            facts |= self.prepared.facts | {"dropped_vectors": self.vectors.dropped_vectors, "examples": examples}
        if self.graph is not None:
            facts["knowledge_graph"] = self.graph.facts
        if self.refused_rows is not None:
            facts["refused_rows"] = self.refused_rows
        return facts


@dataclass(frozen=True, slots=True)
class Ingester:
    """A job at work: the lake, where uploads come from, a running sandbox, who commits, and whether nothing is skipped."""

    lake: Lake
    source: Source
    sandbox: Sandbox
    writer: Writer
    force: bool = False

    def ingest_shard(self, shard: int, refs: Sequence[UploadRef]) -> IngestOutcome:
        """Take in uploads of one shard, oldest first; broken ones are quarantined and do not disturb the others.

        Raises:
            RetryableError: the store or the disk failed; what was committed stays, the rest comes again.
        """
        outcome = IngestOutcome(shard, uploads=len(refs))
        head = self.lake.shard(shard).head()
        if head.held_by:
            outcome.held, outcome.waits_for = len(refs), held_sentence(head)
            return outcome
        policy = self.lake.policy(self.writer.policy or None)
        good: list[tuple[UploadRef, datetime]] = []
        for round_refs in rounds(refs):
            with ExitStack() as stack:
                uploads = self._fetch(round_refs, outcome, stack)
                try:
                    self._apply(shard, uploads, policy, outcome)
                except ShardHeldError as held:
                    outcome.held, outcome.waits_for = outcome.held + len(uploads), held.message
                    continue
                good += [(upload.ref, upload.fetched.manifest.timestamp) for upload in uploads if upload.says_something]
        ambiguous = self.lake.settings.ambiguous
        outcome.superseded = len(clear_superseded(self.lake.store, shard, good, self._who(), ambiguous=ambiguous))
        return outcome

    def _fetch(self, refs: Sequence[UploadRef], outcome: IngestOutcome, stack: ExitStack) -> list[_Upload]:
        """Fetch a round, several uploads at a time. What is broken or has changed leaves it."""
        folders = [stack.enter_context(self.lake.cache.scratch()) for _ in refs]
        most = self.lake.settings.sandbox_max_bytes

        def one(upload: tuple[UploadRef, Path]) -> FetchedUpload:
            return fetch(self.source, *upload, max_bytes=most)

        with closing(together(one, list(zip(refs, folders, strict=True)), FETCHED_AT_ONCE)) as fetching:
            found = [self._fetched(outcome, ref, future) for ref, future in zip(refs, fetching, strict=True)]
        return [_Upload(upload) for upload in found if upload is not None]

    def _fetched(self, outcome: IngestOutcome, ref: UploadRef, future: Future[FetchedUpload]) -> FetchedUpload | None:
        try:
            return future.result()
        except InvalidUploadError as error:
            self._quarantine(ref, error, outcome)
        except ObjectMissingError:
            outcome.deferred += 1  # replaced or removed while it was read: the next listing tells which
        return None

    def _quarantine(self, ref: UploadRef, error: InvalidUploadError, outcome: IngestOutcome) -> None:
        facts = {
            "reason": error.reason,
            "message": error.message,
            "evidence": {key: str(value) for key, value in error.context.items() if key != "reason"},
            **self._who(),
        }
        write_memo(self.lake.store, ref, QUARANTINED, facts)
        outcome.quarantined += 1
        outcome.reasons.append({"upload": ref.manifest_key, "reason": error.reason, "message": error.message})
        log.info("quarantined upload=%r reason=%s message=%r", ref.manifest_key, error.reason, error.message)

    def _apply(self, shard: int, uploads: list[_Upload], policy: Policy, outcome: IngestOutcome) -> None:
        """Commit one round. An upload that turns out to be broken leaves it; a lost race plans it again."""
        attempts = 0
        while uploads:
            head = self.lake.shard(shard).head()
            self._read(head, uploads, policy, outcome)
            if not uploads:
                return
            try:
                commit = self._commit(head, uploads, policy)
            except CommitConflictError as conflict:
                attempts += 1
                if attempts == MAX_REPLANS or isinstance(conflict, ShardHeldError):
                    raise
            except _BrokenUpload as broken:
                uploads.remove(broken.upload)
                self._quarantine(broken.upload.ref, broken.error, outcome)
            else:
                outcome.commits += commit.version > head.version
                for upload in uploads:
                    self._record(commit, upload, outcome)
                self._forget_what_was_undone(commit, uploads)
                return

    def _read(self, head: Commit, uploads: list[_Upload], policy: Policy, outcome: IngestOutcome) -> None:
        """Read the keys of a round. What does not read leaves it here: found later, it would have all others planned again."""
        for upload in list(uploads):
            try:
                if upload.prepared is None and not self._is_known(head, upload, policy):
                    keys = self._key_file(head.keys.get(upload.ref.system_id))
                    upload.prepared = read_keys(upload.fetched, self.sandbox, keys=keys)
                if upload.graph is None:
                    anchors = upload.prepared.anchors if upload.prepared else Anchors.none()
                    upload.graph = read_knowledge_graph(upload.fetched, self.sandbox, anchors)
            except InvalidUploadError as error:
                uploads.remove(upload)
                self._quarantine(upload.ref, error, outcome)

    def _is_known(self, head: Commit, upload: _Upload, policy: Policy) -> bool:
        """Whether nothing can come of reading it: not where absence deletes, since the policy may be younger than the file."""
        if self.force or upload.ref.system_id in policy.delete_absent:
            return False
        return _repeats(upload.fetched, head.keys.get(upload.ref.system_id))

    def _commit(self, head: Commit, uploads: Sequence[_Upload], policy: Policy) -> Commit:
        with edit_shard(self.lake, head, about()) as edit, self.lake.cache.scratch() as folder:
            self._plan(head, uploads, policy, folder)
            for upload in uploads:
                try:
                    self._stage_graph(edit, upload)
                    self._stage(edit, upload)
                except InvalidUploadError as error:
                    raise _BrokenUpload(upload, error) from error
            plans = [upload.plan for upload in uploads if upload.plan is not None]
            counts = {name: sum(plan.counts[name] for plan in plans) for name in COUNTED}
            counts["graph_rows"] = sum(upload.graph_plan.numbers.rows for upload in uploads)
            documents = tuple(_upload_document(upload) for upload in uploads if upload.changes)
            return edit.publish(OPERATION, self.writer, counts=counts, uploads=documents)

    def _plan(self, head: Commit, uploads: Sequence[_Upload], policy: Policy, folder: Path) -> None:
        """Compare the uploads that were read with the live keys; an empty or stale copy says nothing, least of all of absence."""
        arrivals: dict[str, Arrival] = {}
        for upload in uploads:
            system_id, prepared = upload.ref.system_id, upload.prepared
            if prepared is None or not prepared.arrived.num_rows:
                continue
            entry = head.keys.get(system_id)
            rules = Rules(
                ambiguous=system_id in self.lake.settings.ambiguous, delete_absent=system_id in policy.delete_absent
            )
            arrivals[system_id] = Arrival(prepared.arrived, upload.fetched.manifest.timestamp, self._live(entry), rules)
        plans = dict(zip(arrivals, plan_upserts(list(arrivals.values()), folder), strict=True))
        for upload in uploads:
            upload.plan = plans.get(upload.ref.system_id)

    def _stage(self, edit: ShardEdit, upload: _Upload) -> None:
        system_id, fetched, plan = upload.ref.system_id, upload.fetched, upload.plan
        newest = fetched.manifest.timestamp
        if upload.prepared is None:  # see `_read`
            edit.confirm_keys(system_id, newest=newest, file_xxh128=fetched.file_xxh128)
            return
        upload.refused_rows = self._list_refused(upload.prepared)
        if plan is None:
            return
        if plan.keys is None:
            if plan.is_newest:
                edit.confirm_keys(system_id, newest=newest, file_xxh128=fetched.file_xxh128)
            return
        edit.set_keys(system_id, plan.keys, newest=newest, file_xxh128=fetched.file_xxh128)
        details = self._put_new(edit, upload, upload.prepared, plan.rows)
        for file, numbers in locate(
            self.lake, edit.head, _with_system(plan.retired, system_id), "hot", "warm", "cold", "archive"
        ):
            edit.drop(file, numbers)
        amend(self.lake, edit, system_id, amendments(plan.amended, details))

    def _stage_graph(self, edit: ShardEdit, upload: _Upload) -> None:
        if upload.graph is None:
            return
        system_id = upload.ref.system_id
        live = self.lake.graph(edit.head.graphs.get(system_id))
        upload.graph_plan = plan_graph(live, upload.graph.rows, ambiguous=system_id in self.lake.settings.ambiguous)
        if upload.graph_plan.table is not None:
            edit.set_graph(system_id, upload.graph_plan.table, newest=upload.fetched.manifest.timestamp)

    def _live(self, entry: KeyFile | None) -> Snapshot:
        if entry is None:
            return Snapshot()
        return Snapshot(self._key_file(entry), entry.rows, datetime.fromisoformat(entry.newest_manifest))

    def _key_file(self, entry: KeyFile | None) -> Path | None:
        return self.lake.cache.path_of(self.lake.store, entry) if entry else None

    def _list_refused(self, upload: PreparedUpload) -> dict[str, Any] | None:
        """List the refused rows in their document, before a commit names it; None when there are none."""
        faults, fetched = upload.faults, upload.fetched
        if not faults.refused:
            return None
        document = refused_document(
            fetched.ref, file_sha256=fetched.file_sha256, rules=RULES_ID, totals=faults.refused, rows=faults.rows
        )
        return write_refused_rows(self.lake.store, fetched.ref, document)

    def _put_new(
        self, edit: ShardEdit, upload: _Upload, prepared: PreparedUpload, wanted: pa.Table
    ) -> list[WantedRows]:
        """Put new and changed records into hot; returns the rows whose details live records take."""
        upload.vectors, upload.written = RowFaults(), 0
        details = []
        for rows in wanted_rows(prepared, wanted, self.sandbox, upload.vectors):
            # Hashes the file, once: not when nothing is written.
            provenance = provenance_of(upload.fetched, self.writer.now)
            revision = rows.wanted.column("is_revision")
            upload.written += pc.sum(revision).as_py()
            if pc.all(revision).as_py():
                edit.put("hot", hot_rows(upload.fetched.ref.system_id, rows, provenance))
                continue
            details.append(rows.where(pc.invert(revision)))
            edit.put("hot", hot_rows(upload.fetched.ref.system_id, rows.where(revision), provenance))
        return details

    def _record(self, commit: Commit, upload: _Upload, outcome: IngestOutcome) -> None:
        numbers = _numbers(upload)
        outcome.graph_rows += upload.graph_plan.numbers.rows
        facts = {
            **upload.facts,
            **numbers,
            "graph": upload.graph_plan.numbers.document(),
            **self._who(),
            "version": commit.version if upload.changes else None,
        }
        write_memo(self.lake.store, upload.ref, APPLIED if upload.changes else UNCHANGED, facts)
        outcome.applied += upload.changes
        outcome.unchanged += not upload.changes
        outcome.repeated += upload.prepared is None
        for name in COUNTED:
            setattr(outcome, name, getattr(outcome, name) + numbers[name])
        outcome.unchanged_rows += numbers["unchanged"]
        outcome.written_rows += upload.written
        if upload.prepared is not None:
            accepted, refused = upload.prepared.arrived.num_rows, sum(upload.prepared.faults.refused.values())
            outcome.accepted_rows += accepted
            outcome.refused_rows += refused
            outcome.rows_read += accepted + refused
            outcome.dropped_vectors += sum(upload.vectors.dropped_vectors.values())

    def _forget_what_was_undone(self, commit: Commit, uploads: Sequence[_Upload]) -> None:
        """Take back memos of uploads that held nothing new against what an undo has taken back since.

        No commit names such an upload: an undo that was released before its memo was there could not know of it.
        """
        quiet = [upload.ref for upload in uploads if not upload.changes]
        if quiet and undone_since(self.lake.shard(commit.shard), commit.version):
            for ref in quiet:
                self.lake.store.delete(ref.memo_key)

    def _who(self) -> dict[str, str]:
        return {"run_id": self.writer.run_id, "at": self.writer.now.isoformat()}


class _BrokenUpload(Exception):
    """One upload of a round breaks its contract."""

    def __init__(self, upload: _Upload, error: InvalidUploadError) -> None:
        super().__init__(error.message)
        self.upload = upload
        self.error = error


def rounds(refs: Sequence[UploadRef]) -> Iterator[list[UploadRef]]:
    """Groups of uploads that may share a commit: at most one of each system, each system's oldest first.

    A group has `ROUND_UPLOADS` at most, and `ROUND_BYTES` of packed bytes unless a single upload is larger.
    """
    by_system: dict[str, list[UploadRef]] = defaultdict(list)
    for ref in sorted(refs, key=lambda ref: (ref.upload_id, ref.manifest_key)):
        by_system[ref.system_id].append(ref)
    for peers in zip_longest(*by_system.values()):
        group: list[UploadRef] = []
        size = 0
        for ref in peers:
            if ref is None:
                continue
            if group and (len(group) == ROUND_UPLOADS or size + ref.packed_bytes > ROUND_BYTES):
                yield group
                group, size = [], 0
            group.append(ref)
            size += ref.packed_bytes
        yield group


def _repeats(upload: FetchedUpload, entry: KeyFile | None) -> bool:
    """Whether the system's newest upload applied held the same database file, and this one is newer."""
    if entry is None or not upload.file_xxh128 or upload.file_xxh128 != entry.newest_file_xxh128:
        return False
    return upload.manifest.timestamp >= datetime.fromisoformat(entry.newest_manifest)


def _upload_document(upload: _Upload) -> dict[str, Any]:
    document: dict[str, Any] = {
        "memo": upload.ref.memo_key,
        "manifest": upload.ref.manifest_key,
        "etag": upload.ref.etag,
        "refused": upload.prepared.faults.refused if upload.prepared else {},
        **_numbers(upload),
        "graph": upload.graph_plan.numbers.document(),
    }
    if upload.refused_rows is not None:
        document["refused_rows"] = upload.refused_rows
    return document


def _numbers(upload: _Upload) -> dict[str, int]:
    if upload.plan is None:
        return {**dict.fromkeys(COUNTED, 0), "unchanged": 0}
    return dict(upload.plan.counts)


def _with_system(rows: pa.Table, system_id: str) -> pa.Table:
    return rows.append_column("system_id", pa.repeat(pa.scalar(system_id, pa.string()), rows.num_rows))
