"""Bringing back what a damaged shard still has somewhere, in one commit on top of its head.

`akosha.quality.recovery.assign` says from where. Records of an older version or of the archive return to hot, where the
full text belongs; the next move ages them again. What only uploads have is forgotten, so that they bring it as new.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from akosha.errors import IntegrityError
from akosha.lake.columns import vectors_column
from akosha.lake.commits import KeyFile
from akosha.lake.edit import ShardEdit, edit_shard
from akosha.lake.files import ROW
from akosha.lake.graph_schema import GRAPH
from akosha.lake.holds import holds
from akosha.lake.lake import Lake
from akosha.lake.layout import parse_commit_key
from akosha.lake.provenance import about
from akosha.lake.schemas import COLD, DIMENSION, FINGERPRINT_BYTES, HOLDS, HOT, KEY, KEYS, WARM
from akosha.lake.shard_log import Writer
from akosha.quality.recovery import SourceName, assign, has_peer
from akosha.quality.survey import Key, Spot, Survey, read_rows
from akosha.transforms.cleaning import clean
from akosha.transforms.fingerprints import fingerprints
from akosha.transforms.quantization import dequantize
from akosha.transforms.summaries import summarise

OPERATION: Final = "repair"
EXAMPLES: Final = 5
DETAILS: Final = ("project", "metadata", "attributes")
UNKNOWN_HASH: Final = bytes(16)  # of a text that is not at hand: its digest is made again when it comes
_MICROSECOND: Final = timedelta(microseconds=1)
_TOLD_BY_TIERS: Final = (*KEY, "content_sha256", "created_at", "time_evidence", *DETAILS, "provenance")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Salvage:
    """What a repair of one shard did: records by source, the version it made (0 = none was needed).

    `reread` are the systems of which all uploads should be read again, for bookkeeping and details that no tier keeps.
    """

    records: Mapping[str, int]
    version: int = 0
    reread: frozenset[str] = frozenset()


def salvage(lake: Lake, found: Survey, writer: Writer, *, accept_loss: bool = False) -> Salvage:
    """Repair the head of a shard.

    Args:
        lake: which.
        found: what is left of it.
        writer: who commits.
        accept_loss: go on without the records that nothing has any more.

    Raises:
        IntegrityError: some records are nowhere else and that is not accepted; nothing was changed.
        CommitConflictError, CommitUnknownError: as for every commit.
    """
    sources = assign(found)
    _require_found(found, sources, accept_loss=accept_loss)
    for path, data in found.removals.items():
        lake.store.put(path, data)
    damaged, keys, graphs = found.entries(), found.key_files(), found.graphs()
    if not (damaged or keys or graphs or sources or found.holds_lost):
        return Salvage({"removal lists": len(found.removals)})
    with edit_shard(lake, found.head, about()) as edit:
        for entry in damaged:
            edit.drop(entry, np.arange(entry.rows, dtype=np.uint32))
        revived = _revive(lake, edit, found, sources)
        _set_keys(lake, edit, found, sources, revived)
        for graph in graphs:
            before = found.old_graphs.get(graph.system_id)
            table = lake.graph(before) if before is not None else GRAPH.empty_table()
            edit.set_graph(graph.system_id, table, newest=datetime.fromisoformat(graph.newest_manifest))
        if found.holds_lost:
            older = found.old_holds
            edit.set_holds(HOLDS.empty_table() if older is None else holds(lake, older))
        counts = Counter[str](sources.values())
        commit = edit.publish(OPERATION, writer, counts={f"from {name}": count for name, count in counts.items()})
    reread = {key[0] for key, source in sources.items() if source in {"archive", "upload"}}
    reread |= {entry.system_id for entry in keys} | {entry.system_id for entry in graphs}
    return Salvage(dict(counts), commit.version, frozenset(reread))


def planned(found: Survey) -> Salvage:
    """What `salvage` would bring back, by source; what nothing has any more among it."""
    return Salvage(dict(Counter[str](assign(found).values())))


def _require_found(found: Survey, sources: Mapping[Key, SourceName], *, accept_loss: bool) -> None:
    lost = [key for key, source in sources.items() if source == "nothing"]
    if lost and not accept_loss:
        examples = "; ".join(" / ".join(key) for key in lost[:EXAMPLES])
        message = (
            f"{len(lost)} records are in no file, no archive and no upload any more, for example {examples}; nothing was "
            "changed. Put back a copy of the damaged files, or add --accept-loss to go on without these records"
        )
        raise IntegrityError(message, shard=found.head.shard)


def awaited_uploads(found: Survey, *, accept_loss: bool = False) -> dict[str, frozenset[datetime]]:
    """By system, the manifest times of the uploads that hold what `salvage` will forget.

    Raises:
        IntegrityError: as `salvage`.
    """
    sources = assign(found)
    _require_found(found, sources, accept_loss=accept_loss)
    times: dict[str, set[datetime]] = defaultdict(set)
    for key, source in sources.items():
        if source == "upload":
            times[key[0]].add(found.listed[key].held_at)
    return {system: frozenset(held) for system, held in times.items()}


def _revive(lake: Lake, edit: ShardEdit, found: Survey, sources: Mapping[Key, SourceName]) -> dict[Key, Row]:
    """Put what is found into its tier; take away what is left of those records elsewhere. What the tiers then say of each."""
    older = [key for key, source in sources.items() if source == "older version"]
    same = [key for key in older if key not in found.placed and _is_whole_peer(found, key)]
    hot = [key for key in older if key not in set(same)]
    archived = [key for key, source in sources.items() if source == "archive"]
    gone = [key for key, source in sources.items() if source in {"upload", "nothing"}]
    said = _said_by_tiers(lake, found, [*hot, *archived])
    told: dict[Key, Row] = {}
    for entry, rows in read_rows(lake, [found.peers[key] for key in same]):
        schema = WARM if entry.tier == "warm" else COLD
        edit.put(entry.tier, rows.select(schema.names))
        told |= _told(rows)
    for _, rows in read_rows(lake, [found.older[key] for key in hot]):
        told |= _put_hot(edit, rows.drop_columns([ROW]), said)
    for _, rows in read_rows(lake, [found.archived[key] for key in archived]):
        told |= _put_hot(edit, _from_archive(rows), said)
    for place in (found.placed, found.archived):
        _drop(edit, [place[key] for key in (*hot, *archived, *gone) if key in place])
    return told


def _is_whole_peer(found: Survey, key: Key) -> bool:
    """Whether a lost row of warm or cold is there as it was, with its text in the archive: then it need not go to hot."""
    digest, text = found.listed[key].digest, found.archived.get(key)
    return text is not None and text.digest == digest and has_peer(found, key, digest)


def _drop(edit: ShardEdit, spots: Sequence[Spot]) -> None:
    by_file: dict[str, list[Spot]] = defaultdict(list)
    for spot in spots:
        by_file[spot.entry.path].append(spot)
    for mine in by_file.values():
        edit.drop(mine[0].entry, np.array([spot.row for spot in mine], np.uint32))


def _said_by_tiers(lake: Lake, found: Survey, keys: Sequence[Key]) -> dict[Key, Row]:
    """Time, details and provenance of records of which only the text is lost; the time alone of the others."""
    listed = {key: found.listed[key] for key in keys if key in found.listed}
    said: dict[Key, Row] = {
        key: {"created_at": known.created_at, "time_evidence": known.time_evidence} for key, known in listed.items()
    }
    for _, rows in read_rows(lake, [found.placed[key] for key in keys if key in found.placed]):
        for key, row in _told(rows).items():
            said[key] = {name: row[name] for name in ("created_at", "time_evidence", *DETAILS, "provenance")}
    return said


def _put_hot(edit: ShardEdit, rows: pa.Table, said: Mapping[Key, Row]) -> dict[Key, Row]:
    """Put rows of the schema ``HOT`` with what `said` knows better."""
    keys = [(row["system_id"], row["source_table"], row["record_id"]) for row in rows.select(list(KEY)).to_pylist()]
    for name in ("created_at", "time_evidence", *DETAILS, "provenance"):
        values = rows.column(name).to_pylist()
        better = [said.get(key, {}).get(name, value) for key, value in zip(keys, values, strict=True)]
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, HOT.field(name), pa.array(better, HOT.field(name).type))
    edit.put("hot", rows)
    return _told(rows)


def _from_archive(rows: pa.Table) -> pa.Table:
    """Hot rows made of archived ones: text and vector as kept, summary and fingerprint from the text, no details."""
    count = rows.num_rows
    cleaned = [clean(text) for text in rows.column("content").to_pylist()]
    summaries = summarise(cleaned)
    prints = np.ascontiguousarray(fingerprints(cleaned).astype("<u4", copy=False))
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(FINGERPRINT_BYTES), count, [None, pa.py_buffer(prints)])
    columns = {name: rows.column(name) for name in HOT.names if name in rows.column_names}
    columns |= {
        "time_evidence": pa.array(["none"] * count),
        "summary": pa.array([summary.text for summary in summaries], pa.string()),
        "sentence": pa.array([summary.sentence for summary in summaries], pa.string()),
        "fingerprint": fixed.cast(pa.binary()),
        "embedding": _vectors(rows),
        "project": pa.nulls(count, pa.string()),
        "metadata": pa.nulls(count, pa.string()),
        "attributes": pa.array(["{}"] * count),
        "provenance": pa.array([json.dumps({"repaired_from": "archive", **about()}, sort_keys=True)] * count),
    }
    return pa.table([columns[name] for name in HOT.names], schema=HOT)


def _vectors(rows: pa.Table) -> pa.Array:
    """Vectors as kept: FLOAT of the audit sample, the codes' value of the others."""
    kept = rows.column("embedding").to_pylist()
    packed, scales = rows.column("codes").to_pylist(), rows.column("scale").to_pylist()
    vectors: list[NDArray[np.float32]] = []
    for own, code, scale in zip(kept, packed, scales, strict=True):
        if own is not None:
            vectors.append(np.array(own, np.float32))
        elif code is not None:
            codes = np.frombuffer(code, np.int8).reshape(1, DIMENSION)
            vectors.append(dequantize(codes, np.array([scale], np.float32))[0])
    present = np.array([own is not None or code is not None for own, code in zip(kept, packed, strict=True)])
    return vectors_column(np.stack(vectors) if vectors else np.empty((0, DIMENSION), np.float32), present)


def _told(rows: pa.Table) -> dict[Key, Row]:
    """What rows of a tier say that a key file lists."""
    return {
        (row["system_id"], row["source_table"], row["record_id"]): row
        for row in rows.select(list(_TOLD_BY_TIERS)).to_pylist()
    }


def _set_keys(
    lake: Lake, edit: ShardEdit, found: Survey, sources: Mapping[Key, SourceName], revived: Mapping[Key, Row]
) -> None:
    """Key files afterwards: forgotten records left out, those with stale details marked, damaged files made from the tiers."""
    forgotten = {key for key, source in sources.items() if source in {"upload", "nothing"}}
    damaged = {entry.system_id for entry in found.key_files()}
    for system, entry in sorted(found.head.keys.items()):
        if system in damaged:
            edit.restore_keys(system, _from_tiers(lake, found, entry, revived, forgotten))
        elif any(key[0] == system for key in sources):
            edit.restore_keys(system, _revised(lake, entry, forgotten, revived))


def _revised(lake: Lake, entry: KeyFile, forgotten: set[Key], revived: Mapping[Key, Row]) -> pa.Table:
    """A key file without the forgotten records. Details other than listed are marked, for an upload to bring them."""
    rows = []
    newest = datetime.fromisoformat(entry.newest_manifest)
    for row in lake.keys(entry).to_pylist():
        key = (entry.system_id, row["source_table"], row["record_id"])
        if key in forgotten:
            continue
        if key in revived and details_digest(revived[key]) != row["details_sha256"]:
            row |= _unsure(newest if row["in_newest"] else row["applied_manifest"])
            row["details_sha256"] = details_digest(revived[key])
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=KEYS)


def _unsure(held_at: datetime) -> Row:
    """What a key file says of a record that the upload of `held_at` shall be heard on again."""
    return {"applied_manifest": held_at - _MICROSECOND, "in_newest": False}


def _from_tiers(lake: Lake, found: Survey, entry: KeyFile, revived: Mapping[Key, Row], forgotten: set[Key]) -> pa.Table:
    """A key file made anew from what the tiers hold of its system, with the bookkeeping of an older key file.

    What no tier keeps (which uploads held a record, first and last) begins at its lowest value: reading the uploads again
    raises it to what it was, since every such column is a maximum or minimum over them.
    """
    older = _older_rows(lake, found, entry.system_id)
    spots = [spot for key, spot in found.placed.items() if key[0] == entry.system_id and key not in forgotten]
    told = {key: row for _, rows in read_rows(lake, spots) for key, row in _told(rows).items()}
    told |= {key: row for key, row in revived.items() if key[0] == entry.system_id}
    rows = [_listed_again(row, older.get(key)) for key, row in sorted(told.items())]
    return pa.Table.from_pylist(rows, schema=KEYS).sort_by([("source_table", "ascending"), ("record_id", "ascending")])


def _older_rows(lake: Lake, found: Survey, system: str) -> dict[Key, Row]:
    older = found.old_keys.get(system)
    rows = [] if older is None else lake.keys(older).to_pylist()
    return {(system, row["source_table"], row["record_id"]): row for row in rows}


def _listed_again(row: Row, older: Row | None) -> Row:
    held_at = _manifest_time(row)
    listed = {
        "source_table": row["source_table"],
        "record_id": row["record_id"],
        "content_xxh128": UNKNOWN_HASH,
        "content_sha256": row["content_sha256"],
        "details_sha256": details_digest(row),
        "has_vector": False,
        "created_at": row["created_at"],
        "time_evidence": row["time_evidence"],
        "time_manifest": held_at,
        "first_manifest": held_at,
        "bookkeeping": "{}",
        **_unsure(held_at),
    }
    if older is not None and older["content_sha256"] == row["content_sha256"]:
        listed |= {name: older[name] for name in ("content_xxh128", "has_vector", "first_manifest", "bookkeeping")}
        if older["created_at"] == row["created_at"]:
            listed["time_manifest"] = older["time_manifest"]
    return listed


def _manifest_time(row: Row) -> datetime:
    """The manifest time of the upload that a row came with; the row's own time where it does not say."""
    told = json.loads(row["provenance"]).get("manifest_time")
    return datetime.fromisoformat(told).astimezone(UTC) if told else row["created_at"]


def details_digest(row: Row) -> bytes:
    """The digest of a record's details, as the reader of uploads makes it (docs/format.md, Key files)."""
    details = json.dumps([row[name] for name in DETAILS], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(details.encode()).digest()


def shorten(lake: Lake, upto: int, keys: Sequence[str]) -> int:
    """Take versions up to `upto` out of the history, oldest first: the chain never has a gap. How many went.

    Args:
        lake: which.
        upto: the last version that goes; never the head.
        keys: names of the shard's commit documents.
    """
    numbered = sorted((parsed[1], key) for key in keys if (parsed := parse_commit_key(key)) is not None)
    gone = [key for version, key in numbered if version <= upto]
    for key in gone:
        lake.store.delete(key)
    return len(gone)
