"""Checking the sealed documents of a lake: each by itself, and the commits of a shard as a chain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from akosha.errors import AkoshaError, FormatVersionError, IntegrityError, ObjectMissingError
from akosha.lake import layout
from akosha.lake.commits import Commit, parse_commit
from akosha.lake.documents import Document, unseal
from akosha.lake.objects import ObjectStore
from akosha.lake.policy_documents import turns_archive_off
from akosha.quality.findings import FsckReport

MEMOS: Final = (layout.MEMO_PREFIX, layout.QUARANTINE_PREFIX)
OLD_QUARANTINE: Final = ".quarantined.json"  # how 0.1.0 marked the memo of an upload that has been tried again since
RUNS: Final = "runs/"


def read_document(store: ObjectStore, key: str, kind: str, report: FsckReport) -> Document | None:
    """A sealed document; None, with a finding, when it is damaged; None when it has been deleted meanwhile."""
    try:
        data = store.get(key)
    except ObjectMissingError:
        return None
    report.checked["documents"] += 1
    report.checked["bytes_read"] += len(data)
    kind = kind or _kind_of(data)
    try:
        return unseal(data, kind=kind, key=key)
    except (IntegrityError, FormatVersionError) as error:
        code = "document_damaged" if isinstance(error, IntegrityError) else "document_newer"
        report.damage(code, _advice(error, kind), key=key, shard=_shard_in(key), kind=kind)
        return None


@dataclass(slots=True)
class Published:
    """What documents outside the chain say of it: for each shard, versions with their digests (empty = unknown)."""

    versions: dict[int, dict[int, tuple[str, str]]] = field(default_factory=dict)

    def note(self, shard: int, version: int, digest: str, key: str) -> None:
        """Take in that the document `key` names a version; one that knows the digest is kept over one that does not."""
        known = self.versions.setdefault(shard, {})
        if version and (version not in known or digest):
            known[version] = (digest, key)

    def check(self, store: ObjectStore, shard: int, commits: Sequence[Commit], report: FsckReport) -> None:
        """The chain reaches every published version, and those that are retained have the published digest."""
        there = {commit.version: commit.sha256 for commit in commits}
        newest = max((commit.version for commit in commits), default=0)
        if any(version > newest for version in self.versions.get(shard, ())):
            newest = _newest_version(store, shard)  # a job may have committed since the lake was listed
        for version, (digest, key) in sorted(self.versions.get(shard, {}).items()):
            if version > newest:
                message = (
                    f"{key} speaks of version {version} of this shard, the newest one there is {newest}: commits are lost. "
                    "Restore them from a copy, or delete the memos that name lost versions and run `akosha ingest`, which "
                    "takes those uploads in again"
                )
            elif digest and there.get(version, digest) != digest:
                message = f"version {version} is not the one that {key} published; restore that one from a copy"
            else:
                continue
            report.damage("head_lost", message, key=layout.commit_key(shard, version), shard=shard, kind="commit")


def check_lake_document(store: ObjectStore, keys: Sequence[str], report: FsckReport) -> None:
    """lake.json is there and intact."""
    if layout.LAKE not in keys:
        report.damage("document_missing", "lake.json is missing: put back a copy", key=layout.LAKE, kind="lake")
    else:
        read_document(store, layout.LAKE, "lake", report)


def check_policies(store: ObjectStore, keys: Sequence[str], report: FsckReport) -> None:
    """Every policy is intact, lies under its number, and there is at least one."""
    found = [key for key in keys if key.startswith(layout.POLICY_PREFIX)]
    for key in found:
        document = read_document(store, key, "policy", report)
        if document is not None and key != layout.policy_key(int(document.get("number", 0))):
            _misplaced(report, key, f"policy {document.get('number')}", "policy")
        report.archive_was_off |= document is None or turns_archive_off(document)
    if not found:
        message = "there is no policy document: put back a copy of policy/00000001.json"
        report.damage("document_missing", message, key=layout.policy_key(1), kind="policy")


def check_policy_numbers(keys: Sequence[str], named: Mapping[int, str], report: FsckReport) -> None:
    """Every policy that a retained version was made under is there; `named` gives each number's last such version."""
    for number, commit in sorted(named.items()):
        key = layout.policy_key(number)
        if key not in keys and number > 1:
            message = f"{commit} was made under policy {number}, which is not there; put back a copy"
            report.damage("document_missing", message, key=key, kind="policy")


def check_memos(store: ObjectStore, keys: Sequence[str], report: FsckReport, published: Published) -> None:
    """Every memo and every list of refused rows is intact and lies where its upload belongs.

    The versions that memos name go to `published`.
    """
    for key in (key for key in keys if key.startswith(MEMOS)):
        refused = key.endswith(layout.REFUSED_ROWS_MARK)
        kind = "refused-rows" if refused else "memo"
        memo = read_document(store, key, kind, report)
        if memo is None:
            continue
        if key != _own_key(memo, key, refused=refused):
            what = "the refused rows" if refused else "the memo"
            _misplaced(report, key, f"{what} of {memo.get('manifest_key')}", kind)
        elif memo.get("version"):
            published.note(int(memo["shard"]), int(memo["version"]), "", key)


def _own_key(memo: Document, key: str, *, refused: bool) -> str:
    """Where a memo or a document of refused rows belongs, on the day that `key` says."""
    day = key.split("/")[-2]
    own = layout.memo_key(int(memo.get("shard", -1)), day, str(memo.get("manifest_key")), str(memo.get("etag")))
    if refused:
        return layout.refused_rows_key(own)
    if memo.get("outcome") == "undone":
        return layout.undone_key(own, int(memo.get("undo_version", 0)))
    if memo.get("outcome") != "quarantined":
        return own
    if key.endswith(OLD_QUARANTINE):
        return own.removesuffix(".json") + OLD_QUARANTINE
    return layout.quarantine_key(own, str(memo.get("system_id")))


def check_refused_rows(store: ObjectStore, commits: Sequence[Commit], report: FsckReport) -> None:
    """Documents of refused rows that retained versions name are there, with the bytes they promise.

    An upload read again under newer rules writes its document anew: the newest version that names it decides.
    """
    seen: set[str] = set()
    for commit in commits:
        for upload in commit.uploads:
            named = upload.get("refused_rows") or {}
            path = str(named.get("path", ""))
            if not path or path in seen:
                continue
            seen.add(path)
            report.checked["refused_rows"] += 1
            found = _sha256(store, path)
            if found != named.get("sha256"):
                message = (
                    f"version {commit.version} names this document as the refused rows of {upload.get('manifest')}: expected "
                    f"SHA-256 {named.get('sha256')}, found {found or 'nothing'}; put back a copy"
                )
                report.damage("refused_rows", message, key=path, shard=commit.shard, kind="refused-rows")


def _sha256(store: ObjectStore, key: str) -> str:
    try:
        return hashlib.sha256(store.get(key)).hexdigest()
    except ObjectMissingError:
        return ""


def check_runs(store: ObjectStore, keys: Sequence[str], report: FsckReport, published: Published) -> None:
    """Every document of a run is intact. Its kind is what its format says: the digest covers that as well.

    The heads that summaries published go to `published`.
    """
    for key in (key for key in keys if key.startswith(RUNS)):
        if key.endswith(".json"):
            document = read_document(store, key, "", report) or {}
            for shard, (version, digest) in document.get("heads", {}).items():
                published.note(int(shard), int(version), str(digest), key)
        else:
            report.warn(
                "unverifiable", "nothing says what this object should be; delete it if nobody needs it", key=key
            )


def read_commits(store: ObjectStore, shard: int, keys: Sequence[str], report: FsckReport) -> list[Commit]:
    """The retained versions of a shard that can be read, newest first; findings for the others and for the chain.

    Args:
        store: the lake's store.
        shard: which.
        keys: names of the shard's commits, ascending, so newest first.
        report: where findings go.
    """
    commits: list[Commit] = []
    for key in keys:
        named = layout.parse_commit_key(key)
        document = read_document(store, key, "commit", report)
        if document is None:
            continue
        try:
            commit = parse_commit(document, key=key)
        except IntegrityError as error:
            report.damage("document_damaged", error.message, key=key, shard=shard, kind="commit")
            continue
        if named != (commit.shard, commit.version):
            _misplaced(report, key, f"version {commit.version} of shard {commit.shard}", "commit")
            continue
        commits.append(commit)
    _check_versions(shard, keys, report)
    _check_chain(commits, report)
    report.checked["commits"] += len(commits)
    return commits


def _check_versions(shard: int, keys: Sequence[str], report: FsckReport) -> None:
    """Retained versions have no gap: only the oldest ones are ever deleted."""
    numbers = [parsed[1] for parsed in map(layout.parse_commit_key, keys) if parsed is not None]
    for newer, older in pairwise(numbers):
        if newer != older + 1:
            message = f"versions {older + 1} to {newer - 1} are missing between retained ones; restore them from a copy"
            report.damage("version_gap", message, key=layout.commit_key(shard, newer - 1), shard=shard, kind="commit")


def _check_chain(commits: Sequence[Commit], report: FsckReport) -> None:
    """Every version names the digest of the one before it; version 1 names none."""
    by_version = {commit.version: commit for commit in commits}
    for commit in commits:
        parent = by_version.get(commit.version - 1)
        expected = "" if commit.version == 1 else parent.sha256 if parent else commit.parent_sha256
        if commit.parent_sha256 != expected:
            message = (
                f"version {commit.version} was not made on the version {commit.version - 1} that is there: one of them "
                "was replaced; compare them with the head digests in runs/"
            )
            key = layout.commit_key(commit.shard, commit.version)
            report.damage("chain_broken", message, key=key, shard=commit.shard, kind="commit")


def _newest_version(store: ObjectStore, shard: int) -> int:
    for found in store.list(layout.commits_prefix(shard), limit=1):
        parsed = layout.parse_commit_key(found.key)
        return parsed[1] if parsed else 0
    return 0


def _kind_of(data: bytes) -> str:
    """The kind a document of a run says it is. A plan where that cannot be read: it is damaged, whatever it was."""
    try:
        return str(json.loads(data)["format"]).removeprefix("akosha-").rpartition("/")[0]
    except (ValueError, KeyError, TypeError):
        return "plan"


def _shard_in(key: str) -> int | None:
    parts = key.split("/")
    return int(parts[1]) if parts[0] in {"shards", "uploads", "quarantine"} and parts[1].isdigit() else None


def _advice(error: AkoshaError, kind: str) -> str:
    said = error.message.removesuffix("; run `akosha fsck`")
    if kind == "memo":
        return f"{said}; delete it: the next ingest reads the upload again"
    return f"{said}; put back a copy of the object"


def _misplaced(report: FsckReport, key: str, what: str, kind: str) -> None:
    message = f"the document is {what} and does not belong under this name; put back a copy of the right one"
    report.damage("document_misplaced", message, key=key, shard=_shard_in(key), kind=kind)
