"""Repairing a damaged lake from what is still there: exact copies first, then documents, then the records of a shard.

Everything is proved by a digest before it is put back: a file by its SHA-256, a document by its seal. Records come back
through one commit (`akosha.quality.salvage`). What remains after it is what only a copy of the lake can bring.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from akosha.errors import AkoshaError, ConfigurationError, FormatVersionError, IntegrityError, ObjectMissingError
from akosha.lake import layout
from akosha.lake.commits import Change, Commit
from akosha.lake.documents import Document, seal, unseal
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectStore
from akosha.lake.policy_documents import write_first_policy
from akosha.lake.schemas import DIMENSION
from akosha.lake.shard_log import Writer
from akosha.lake.undone import mark_undone, named
from akosha.quality.bit_rot import corrected
from akosha.quality.findings import DamagedShard, Finding, FsckReport
from akosha.quality.fsck import fsck
from akosha.quality.recovery import FILE_CODES, backfill_commands, commits_named, uploads_there
from akosha.quality.salvage import OPERATION, Salvage, awaited_uploads, planned, salvage, shorten
from akosha.quality.stored_files import COLD_IN_LAKE, NamedFile, files_of
from akosha.quality.survey import Survey, survey

# What can be taken away: it is read or written again by itself, or nothing depends on it.
DELETABLE: Final = frozenset({"memo", "plan", "summary"})
SEALED: Final = frozenset({"commit", "policy", "lake", "memo", "refused-rows", "plan", "summary"})


@dataclass(slots=True)
class Repair:
    """A repair at work. `done` says what was done, or would be, object by object.

    Attributes:
        lake: which.
        uploads: where uploads come from, None = not known.
        copies: another copy of the lake to take objects from, None = none.
        writer: makes who commits; called when the policy can be read.
        now: the instant written into documents.
        shard: only this one, None = everything.
        dry_run: only say what would be done.
        accept_loss: go on without what nothing has any more.
    """

    lake: Lake
    uploads: ObjectStore | None
    copies: ObjectStore | None
    writer: Callable[[], Writer]
    now: datetime
    shard: int | None = None
    dry_run: bool = True
    accept_loss: bool = False
    done: list[dict[str, Any]] = field(default_factory=list)
    reread: set[str] = field(default_factory=set)

    def run(self) -> dict[str, Any]:
        """Repair what can be repaired.

        Returns:
            JSON-able: ``ok`` (nothing is damaged any more; in a dry run: nothing was), ``repaired``, ``commands`` that are
            still to be run, and the ``findings`` that are left.

        Raises:
            IntegrityError: records would be lost and that is not accepted; their shard was left as it was.
        """
        before = report = self.check()
        steps = (
            self._put_documents,
            self._put_files,
            self._mend_documents,
            self._mend_chains,
            self._mend_records,
            self._forget_versions,
        )
        for step in steps:
            if report.ok:
                break
            count = len(self.done)
            step(report)
            if len(self.done) > count and not self.dry_run:
                report = self.check()
        return {
            "ok": report.ok,
            "dry_run": self.dry_run,
            "message": self._message(before, report),
            "repaired": self.done,
            "commands": [*backfill_commands(sorted(self.reread)), *self._ingest()],
            "findings": [asdict(finding) for finding in report.findings if finding.severity == "damage"],
        }

    def check(self) -> FsckReport:
        """A check of every byte, by a lake that has verified nothing yet."""
        lake = Lake(self.lake.settings, self.lake.store, self.lake.cold, self.lake.identity)
        self.lake = lake
        return fsck(lake, read_data=True, uploads=self.uploads)

    def _message(self, before: FsckReport, after: FsckReport) -> str:
        damage = sum(finding.severity == "damage" for finding in before.findings)
        if not damage:
            return "nothing is damaged"
        if self.dry_run:
            return (
                f"dry run: {len(self.done)} repairs would be made for {damage} findings; add --no-dry-run to make them"
            )
        left = sum(finding.severity == "damage" for finding in after.findings)
        return f"{len(self.done)} repairs for {damage} findings; {left} findings are left"

    def _ingest(self) -> list[str]:
        again = any(item["what"] in {"memo taken away", "version replaced"} for item in self.done)
        return ["akosha ingest"] if again else []

    def _concerned(self, report: FsckReport) -> list[Finding]:
        return [
            finding
            for finding in report.findings
            if finding.severity == "damage" and (self.shard is None or finding.shard == self.shard)
        ]

    def _shards(self, report: FsckReport) -> dict[int, DamagedShard]:
        return {shard: state for shard, state in report.shards.items() if self.shard in {None, shard}}

    def _note(self, what: str, key: str, shard: int | None, **facts: object) -> None:
        self.done.append({"what": what, "key": key, "shard": shard, **facts})

    def _put_documents(self, report: FsckReport) -> None:
        """Sound documents in the place of damaged ones, before anything else: they say what the files must be."""
        for finding in self._concerned(report):
            if finding.kind in SEALED and finding.code not in FILE_CODES:
                self._put_document(finding)

    def _put_files(self, report: FsckReport) -> None:
        """Exact copies of files, from the cache or the other copy."""
        states = self._shards(report).values()
        named = {file.place: file for state in states for commit in state.commits for file in files_of(commit)}
        for place in sorted({place for state in states for place in state.bad}):
            self._put_file(named[place])

    def _put_file(self, file: NamedFile) -> None:
        store = file.store(self.lake)
        kept = None if store.local_path(file.path) else self.lake.cache.copy_of(file.path, file.digests.sha256)
        data = kept.read_bytes() if kept is not None else self._copied(file)
        if data is None or hashlib.sha256(data).hexdigest() != file.digests.sha256:
            return
        if not self.dry_run:
            store.put(file.path, data)
        self._note("copy put back", file.path, file.shard, source="cache" if kept is not None else "copy")

    def _copied(self, file: NamedFile) -> bytes | None:
        below = COLD_IN_LAKE if file.root == "cold" and not self.lake.identity.cold_url else ""
        return self._copy(f"{below}{file.path}")

    def _copy(self, key: str) -> bytes | None:
        try:
            return None if self.copies is None else self.copies.get(key)
        except ObjectMissingError:
            return None

    def _put_document(self, finding: Finding) -> None:
        kind = finding.kind
        copied, stored = self._copy(finding.key), _bytes_of(self.lake.store, finding.key)
        sound, source = None, ""
        if copied is not None and _is_sound(copied, kind, finding.key):
            sound, source = copied, "copy"
        elif stored is not None and finding.code == "document_damaged":
            sound, source = corrected(stored, kind=kind, key=finding.key), "one flipped bit, found by its digest"
        if sound is None or sound == stored:
            return
        if not self.dry_run:
            self.lake.store.put(finding.key, sound)
        self._note("document put back", finding.key, finding.shard, source=source)

    def _mend_documents(self, report: FsckReport) -> None:
        """Documents that no commit depends on: those that come again are taken away, the others are made anew."""
        handled = {item["key"] for item in self.done}
        for finding in self._concerned(report):
            if finding.key in handled or finding.code == "document_newer":
                continue
            if finding.kind in DELETABLE and finding.code.startswith("document"):
                self._delete(finding)
            elif finding.kind == "policy":
                self._restore_policy(finding)
            elif finding.kind == "lake":
                self._restore_identity(finding)
            elif finding.kind == "refused-rows":
                self._reread(finding)

    def _delete(self, finding: Finding) -> None:
        if not self.dry_run:
            self.lake.store.delete(finding.key)
        self._note(f"{finding.kind} taken away", finding.key, finding.shard)

    def _restore_policy(self, finding: Finding) -> None:
        """The first policy is the declared default; a later one gets the values of the one before, and says so."""
        number = int(finding.key.removeprefix(layout.POLICY_PREFIX).split(".")[0])
        before = _readable(self.lake.store, layout.policy_key(number - 1), "policy") if number > 1 else None
        if number > 1 and before is None:
            return  # the one before it is a finding of its own and comes first
        if not self.dry_run:
            if before is None:
                self.lake.store.delete(finding.key)
                write_first_policy(self.lake.store, now=self.now)
            else:
                document = {**before, "number": number, "made_at": self.now.isoformat()}
                self.lake.store.put(finding.key, seal(document))
        values = "the declared default" if before is None else f"policy {number - 1}"
        self._note("policy made anew", finding.key, None, source=values)

    def _restore_identity(self, finding: Finding) -> None:
        """lake.json by the settings; refused while the cold root that they name lacks a file of a head."""
        for head in self.lake.heads():
            for entry in head.of_tier("cold"):
                if self.lake.cold.stat(entry.path) is None:
                    message = (
                        f"lake.json is lost and the cold root of the settings, {self.lake.cold.url}, does not hold the files "
                        "of cold: set AKOSHA_COLD_URL to the root that does, and repair again"
                    )
                    raise ConfigurationError(message, setting="AKOSHA_COLD_URL", path=entry.path)
        if not self.dry_run:
            document: Document = {
                "format": "akosha-lake/1",
                "lake_id": hashlib.sha256(self.lake.settings.lake_url.encode()).hexdigest()[:32],
                "dimension": DIMENSION,
                "shards": layout.SHARDS,
                "cold_url": self.lake.settings.cold_url,
                "created_at": self.now.isoformat(),
            }
            self.lake.store.put(layout.LAKE, seal(document))
        self._note("lake.json made anew", finding.key, None, source="the settings")

    def _reread(self, finding: Finding) -> None:
        """The document of refused rows is written when its upload is read again, which its memo's absence brings about."""
        memo = finding.key.removesuffix(layout.REFUSED_ROWS_MARK) + ".json"
        system = str((_readable(self.lake.store, memo, "memo") or {}).get("system_id", ""))
        if system:
            self.reread.add(system)
        if not self.dry_run:
            self.lake.store.delete(finding.key)
        self._note("refused rows awaited from their upload", finding.key, finding.shard, system_id=system)

    def _mend_chains(self, report: FsckReport) -> None:
        """A head that is lost is replaced by what the version before it held; its uploads are due again."""
        for shard, state in self._shards(report).items():
            head = state.commits[0].version if state.commits else 0
            if state.newest <= head:
                continue
            base = state.commits[0] if state.commits else Commit(shard, 0)
            if not state.commits and not self.accept_loss:
                message = (
                    "no version of this shard can be read; put back a copy of its commit documents, or add --accept-loss to "
                    "begin it anew from the uploads that still exist"
                )
                raise IntegrityError(message, shard=shard)
            if not self.dry_run:
                self._replace_head(base, state)
            self._note("version replaced", layout.commit_key(shard, state.newest), shard, by=f"version {head}")

    def _replace_head(self, base: Commit, state: DamagedShard) -> None:
        writer = self.writer()
        self._expect_again(base)  # before the commit: were this process killed in between, nothing would know of them
        lost = replace(base, version=state.newest, sha256="", held_by="", undo=None)
        change = Change(OPERATION, counts={"replaces_version": state.newest, "holds_version": base.version})
        self.lake.shard(base.shard).publish(lost, change, writer)
        shorten(self.lake, state.newest, state.keys)

    def _expect_again(self, base: Commit) -> None:
        """Take away the memos of what was taken in after a version, or taken back by its undo: those uploads are due again."""
        since = datetime.fromisoformat(base.committed_at) if base.committed_at else None
        undone = {one.version for one in base.undo.undone} if base.undo else set()
        for key, memo in self._memos(base.shard):
            version, at = memo.get("version"), memo.get("at")
            later = since is None or (at and datetime.fromisoformat(str(at)) >= since)
            if later or (version and (int(version) > base.version or int(version) in undone)):
                self.lake.store.delete(key)

    def _memos(self, shard: int) -> list[tuple[str, Document]]:
        """Memos of a shard's uploads that were taken in, those in quarantine left out; damaged ones are findings."""
        listed = self.lake.store.list(f"{layout.MEMO_PREFIX}{shard:03d}/")
        read = ((found.key, _readable(self.lake.store, found.key, "memo")) for found in list(listed)
                if layout.is_memo_key(found.key))  # fmt: skip
        return [(key, memo) for key, memo in read if memo is not None]

    def _mend_records(self, report: FsckReport) -> None:
        """The records of damaged heads, each shard by one commit; older versions that name what is damaged then go."""
        for shard, state in self._shards(report).items():
            live = {file.place for file in files_of(state.commits[0])} if state.commits else set()
            if not state.bad & live:
                continue
            found = survey(self.lake, state.commits, state.bad, uploads_there(self.lake.store, shard, self.uploads))
            made = planned(found) if self.dry_run else self._salvage(found)
            self.reread |= made.reread
            self._note("records brought back", "", shard, records=dict(made.records), version=made.version)

    def _salvage(self, found: Survey) -> Salvage:
        """Bring back the records of one shard. Uploads that hold what is forgotten come again, wherever this is cut off.

        They are marked before the commit, after which nothing would tell which they were; and once more after it, because
        an ingest in between finds their records still listed.
        """
        writer, times = self.writer(), awaited_uploads(found, accept_loss=self.accept_loss)
        awaited = {
            key: named(memo)
            for key, memo in (self._memos(found.head.shard) if times else ())
            if (told := memo.get("manifest_time"))
            and datetime.fromisoformat(str(told)) in times.get(str(memo["system_id"]), ())
        }
        mark_undone(self.lake, found.head, awaited)
        made = salvage(self.lake, found, writer, accept_loss=self.accept_loss)
        mark_undone(self.lake, found.head, awaited)
        return made

    def _forget_versions(self, report: FsckReport) -> None:
        """Versions that name damaged files, or lie behind a gap, cannot be read or undone to: they leave the history."""
        for shard, state in self._shards(report).items():
            if not state.commits:
                continue
            upto = max(commits_named(state.commits, state.bad), _broken_below(state))
            if not 0 < upto < state.commits[0].version:
                continue
            if not self.dry_run:
                shorten(self.lake, upto, state.keys)
            self._note("versions forgotten", "", shard, upto=upto)


def _broken_below(state: DamagedShard) -> int:
    """The newest version below the head that is missing or cannot be read while an older name is there; 0 = none."""
    there = {commit.version for commit in state.commits}
    named = [parsed[1] for parsed in map(layout.parse_commit_key, state.keys) if parsed is not None]
    return max((v for v in range(min(named), state.commits[0].version) if v not in there), default=0)


def _bytes_of(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except ObjectMissingError:
        return None


def _readable(store: ObjectStore, key: str, kind: str) -> Document | None:
    try:
        return unseal(store.get(key), kind=kind, key=key)
    except (IntegrityError, FormatVersionError, ObjectMissingError):
        return None


def _is_sound(data: bytes, kind: str, key: str) -> bool:
    """Whether a copy is a document of this kind that says it belongs under this name."""
    try:
        document = unseal(data, kind=kind, key=key)
    except AkoshaError:
        return False
    named = layout.parse_commit_key(key)
    return named is None or named == (document.get("shard"), document.get("version"))
