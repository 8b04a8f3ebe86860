"""Ingesting the due uploads of one shard: rounds of one upload per system, one commit per round.

A round that finds its shard moved on is planned again from the new head; what was read of the uploads is kept.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import pyarrow as pa

from akosha.errors import CommitConflictError, InvalidUploadError, ObjectMissingError
from akosha.lake.commits import Commit
from akosha.lake.edit import ShardEdit, edit_shard
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.locate import locate
from akosha.lake.provenance import about
from akosha.lake.shard_log import Writer
from akosha.uploads.derive import hot_rows
from akosha.uploads.graph import GraphNumbers, GraphPlan, plan_graph
from akosha.uploads.memos import APPLIED, QUARANTINED, UNCHANGED, UploadRef, write_memo
from akosha.uploads.prepare import PreparedUpload, Source, prepare
from akosha.uploads.sandbox import Sandbox
from akosha.uploads.upsert import UpsertPlan, plan_upsert

log = logging.getLogger(__name__)

OPERATION: Final = "ingest"
MAX_REPLANS: Final = 5


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """What one upload does to the records and to the knowledge graph of its system."""

    records: UpsertPlan
    graph: GraphPlan

    @property
    def applies(self) -> bool:
        """Whether anything of the lake changes."""
        return self.records.keys is not None or self.graph.table is not None


@dataclass(slots=True)
class IngestOutcome:
    """What a job did with the uploads of one shard: numbers of uploads and of records, and why some were set aside."""

    shard: int
    uploads: int = 0
    applied: int = 0
    unchanged: int = 0
    quarantined: int = 0
    deferred: int = 0
    rows_read: int = 0
    refused_rows: int = 0
    new: int = 0
    changed: int = 0
    retimed: int = 0
    older: int = 0
    graph_rows: int = 0
    commits: int = 0
    reasons: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ingester:
    """A job at work: the lake, where uploads come from, a running sandbox, and who commits."""

    lake: Lake
    source: Source
    sandbox: Sandbox
    writer: Writer

    def ingest_shard(self, shard: int, refs: Sequence[UploadRef]) -> IngestOutcome:
        """Take in uploads of one shard, oldest first; broken ones are quarantined and do not disturb the others.

        Raises:
            RetryableError: the store or the disk failed; what was committed stays, the rest comes again.
        """
        outcome = IngestOutcome(shard, uploads=len(refs))
        for round_refs in rounds(refs):
            with ExitStack() as stack:
                prepared = [
                    upload
                    for upload in (self._prepare(ref, outcome, stack) for ref in round_refs)
                    if upload is not None
                ]
                if prepared:
                    self._apply(shard, prepared, outcome)
        return outcome

    def _prepare(self, ref: UploadRef, outcome: IngestOutcome, stack: ExitStack) -> PreparedUpload | None:
        folder = stack.enter_context(self.lake.cache.scratch())
        try:
            upload = prepare(self.source, self.sandbox, ref, folder, max_bytes=self.lake.settings.sandbox_max_bytes)
        except InvalidUploadError as error:
            self._quarantine(ref, error, outcome)
            return None
        except ObjectMissingError:
            outcome.deferred += 1  # replaced or removed while it was read: the next listing tells which
            return None
        outcome.rows_read += upload.incoming.num_rows
        outcome.refused_rows += sum(upload.facts["refused"].values())
        return upload

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

    def _apply(self, shard: int, uploads: Sequence[PreparedUpload], outcome: IngestOutcome) -> None:
        for attempt in range(MAX_REPLANS):
            head = self.lake.shard(shard).head()
            try:
                commit, plans = self._commit(head, uploads)
            except CommitConflictError:
                if attempt == MAX_REPLANS - 1:
                    raise
            else:
                outcome.commits += commit.version > head.version
                self._record(commit, uploads, plans, outcome)
                return

    def _commit(self, head: Commit, uploads: Sequence[PreparedUpload]) -> tuple[Commit, list[UploadPlan]]:
        plans: list[UploadPlan] = []
        with edit_shard(self.lake, head, about()) as edit:
            for upload in uploads:
                plan = self._plan(head, upload)
                plans.append(plan)
                self._stage(edit, upload, plan.records)
                if plan.graph.table is not None:
                    newest = upload.manifest.timestamp
                    edit.set_graph(upload.ref.system_id, plan.graph.table, newest=newest)
            counts = {
                "new": sum(plan.records.new for plan in plans),
                "changed": sum(plan.records.changed for plan in plans),
                "retimed": sum(plan.records.retimed.num_rows for plan in plans),
                "graph_rows": sum(plan.graph.numbers.rows for plan in plans),
            }
            documents = tuple(_upload_document(*pair) for pair in zip(uploads, plans, strict=True) if pair[1].applies)
            commit = edit.publish(OPERATION, self.writer, counts=counts, uploads=documents)
        return commit, plans

    def _plan(self, head: Commit, upload: PreparedUpload) -> UploadPlan:
        system_id = upload.ref.system_id
        ambiguous = system_id in self.lake.settings.ambiguous
        records = plan_upsert(
            self.lake.keys(head.keys.get(system_id)),
            upload.incoming,
            manifest_time=upload.manifest.timestamp,
            ambiguous=ambiguous,
        )
        if upload.graph is None:
            return UploadPlan(records, GraphPlan(None, GraphNumbers()))
        live = self.lake.graph(head.graphs.get(system_id))
        return UploadPlan(records, plan_graph(live, upload.graph, ambiguous=ambiguous))

    def _stage(self, edit: ShardEdit, upload: PreparedUpload, plan: UpsertPlan) -> None:
        if plan.keys is None:
            return
        system_id = upload.ref.system_id
        edit.set_keys(system_id, plan.keys, newest=upload.manifest.timestamp)
        for rows in hot_rows(upload, plan.rows):
            edit.put("hot", rows)
        replaced = _with_system(plan.replaced, system_id)
        for entry, numbers in locate(self.lake, edit.head, replaced, "hot", "warm", "cold", "archive"):
            edit.drop(entry, numbers)
        self._retime(edit, _with_system(plan.retimed, system_id))

    def _retime(self, edit: ShardEdit, retimed: pa.Table) -> None:
        """Give live records their better time: same tier, same row, new created_at and evidence."""
        better = {
            (row["source_table"], row["record_id"]): (row["created_at"], row["time_evidence"])
            for row in retimed.to_pylist()
        }
        for entry, numbers in locate(self.lake, edit.head, retimed, "hot", "warm", "cold", "archive"):
            rows = self.lake.rows(entry)
            rows = rows.filter(pa.array(np.isin(rows.column(ROW).to_numpy(), numbers)))
            keys = zip(rows.column("source_table").to_pylist(), rows.column("record_id").to_pylist(), strict=True)
            values = [better[key] for key in keys]
            for name, column in zip(("created_at", "time_evidence"), zip(*values, strict=True), strict=True):
                if name in rows.column_names:
                    at = rows.schema.get_field_index(name)
                    rows = rows.set_column(at, rows.schema.field(name), pa.array(column, rows.schema.field(name).type))
            edit.put(entry.tier, rows)
            edit.drop(entry, numbers)

    def _record(
        self, commit: Commit, uploads: Sequence[PreparedUpload], plans: Sequence[UploadPlan], outcome: IngestOutcome
    ) -> None:
        for upload, plan in zip(uploads, plans, strict=True):
            applied = plan.applies
            facts = {**upload.facts, **_numbers(plan), **self._who(), "version": commit.version if applied else None}
            write_memo(self.lake.store, upload.ref, APPLIED if applied else UNCHANGED, facts)
            outcome.applied += applied
            outcome.unchanged += not applied
            outcome.new += plan.records.new
            outcome.changed += plan.records.changed
            outcome.retimed += plan.records.retimed.num_rows
            outcome.older += plan.records.older
            outcome.graph_rows += plan.graph.numbers.rows

    def _who(self) -> dict[str, str]:
        return {"run_id": self.writer.run_id, "at": self.writer.now.isoformat()}


def rounds(refs: Sequence[UploadRef]) -> Iterator[list[UploadRef]]:
    """Groups of uploads that may share a commit: at most one of each system, each system's oldest first."""
    by_system: dict[str, list[UploadRef]] = defaultdict(list)
    for ref in sorted(refs, key=lambda ref: (ref.upload_id, ref.manifest_key)):
        by_system[ref.system_id].append(ref)
    for group in zip_longest(*by_system.values()):
        yield [ref for ref in group if ref is not None]


def _upload_document(upload: PreparedUpload, plan: UploadPlan) -> dict[str, Any]:
    return {
        "memo": upload.ref.memo_key,
        "manifest": upload.ref.manifest_key,
        "etag": upload.ref.etag,
        "refused": upload.facts["refused"],
        **_numbers(plan),
    }


def _numbers(plan: UploadPlan) -> dict[str, Any]:
    return {
        "new": plan.records.new,
        "changed": plan.records.changed,
        "retimed": plan.records.retimed.num_rows,
        "unchanged": plan.records.unchanged,
        "older": plan.records.older,
        "graph": plan.graph.numbers.document(),
    }


def _with_system(rows: pa.Table, system_id: str) -> pa.Table:
    return rows.append_column("system_id", pa.repeat(pa.scalar(system_id, pa.string()), rows.num_rows))
