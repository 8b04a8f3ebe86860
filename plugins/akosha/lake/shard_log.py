"""A shard's chain of commits in the store: finding the head, publishing on top of it.

The protocol (docs/format.md, Commits): version N+1 is one put-if-absent of one document. A lost race rebases; a lost
answer is asked again with the same bytes until it is definite; after success the chain is read once more.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from akosha.errors import (
    CommitConflictError,
    CommitUnknownError,
    CommitVoidError,
    IntegrityError,
    ObjectMissingError,
)
from akosha.lake import layout
from akosha.lake.commits import Change, Commit, apply, commit_document, parse_commit
from akosha.lake.documents import digest_of, seal, unseal
from akosha.lake.failpoints import around
from akosha.lake.objects import ObjectStore

log = logging.getLogger(__name__)

PUT_ATTEMPTS = 8
FIRST_WAIT_SECONDS = 0.2
REBASE_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class Writer:
    """Who commits: the run, the policy it decided under, and the clock of this commit."""

    run_id: str
    policy: int
    now: datetime


class ShardLog:
    """The commits of one shard."""

    def __init__(self, store: ObjectStore, shard: int) -> None:
        self._store = store
        self.shard = shard

    def head(self) -> Commit:
        """The newest version: one LIST of one key and one GET. Version 0 where there is no document."""
        for found in self._store.list(layout.commits_prefix(self.shard), limit=1):
            return self._read(found.key)
        return Commit(shard=self.shard, version=0)

    def read(self, version: int) -> Commit:
        """One version.

        Raises:
            ObjectMissingError: it is not retained.
        """
        return self._read(layout.commit_key(self.shard, version)) if version else Commit(self.shard, 0)

    def versions(self) -> Iterator[int]:
        """Retained versions, newest first."""
        for found in self._store.list(layout.commits_prefix(self.shard)):
            parsed = layout.parse_commit_key(found.key)
            if parsed is not None:
                yield parsed[1]

    def publish(self, planned_on: Commit, change: Change, writer: Writer) -> Commit:
        """Put `change` on top of the head, rebasing while its requirements hold.

        Raises:
            CommitConflictError: they do not hold any more, or the shard is held; nothing is visible.
            CommitVoidError: a frozen writer's number had been swept; nothing is visible, and nothing may be deleted.
            CommitUnknownError: no definite answer; delete nothing and plan nothing before reading the head again.
        """
        commit_id = uuid.uuid4().hex
        head = planned_on
        for _ in range(REBASE_ATTEMPTS):
            self._check_sweeps(planned_on, head)
            commit = replace(
                apply(head, change),
                commit_id=commit_id,
                run_id=writer.run_id,
                policy=writer.policy,
                committed_at=writer.now.isoformat(),
            )
            data = seal(commit_document(commit))
            if self._put(commit, data):
                published = replace(commit, sha256=digest_of(data))
                self._check_descent(published)
                log.info(
                    "committed shard=%d version=%d operation=%s files=%d",
                    self.shard, commit.version, commit.operation, len(commit.files),
                )  # fmt: skip
                return published
            head = self.head()
        message = "other writers won every version; plan again"
        raise CommitConflictError(message, shard=self.shard, attempts=REBASE_ATTEMPTS)

    def _check_sweeps(self, planned_on: Commit, head: Commit) -> None:
        """A head names what its last sweep condemned, so staged files are known to be there through one sweep, not two."""
        if head.sweeps > planned_on.sweeps + 1:
            message = "the shard has been swept twice since the change was planned; plan again"
            raise CommitConflictError(message, shard=self.shard, planned=planned_on.version, found=head.version)

    def _read(self, key: str) -> Commit:
        commit = parse_commit(unseal(self._store.get(key), kind="commit", key=key), key=key)
        if layout.parse_commit_key(key) != (commit.shard, commit.version) or commit.shard != self.shard:
            message = "the commit document is that of another shard or version; run `akosha fsck`"
            raise IntegrityError(message, key=key, shard=commit.shard, version=commit.version)
        return commit

    def _put(self, commit: Commit, data: bytes) -> bool:
        """True = this document is version N, False = another one is. The same bytes are put until that is known."""
        key = layout.commit_key(self.shard, commit.version)
        attempt = 1
        while True:
            try:
                with around("commit"):
                    return self._store.put_if_absent(key, data) or self._is_ours(key, commit)
            except CommitUnknownError:
                if attempt == PUT_ATTEMPTS:
                    raise
            time.sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
            attempt += 1

    def _is_ours(self, key: str, commit: Commit) -> bool:
        """A retried put that had succeeded finds its own document: the commit id tells."""
        try:
            return self._read(key).commit_id == commit.commit_id
        except ObjectMissingError as error:
            message = "a commit is refused as existing but cannot be read yet"
            raise CommitUnknownError(message, shard=self.shard, version=commit.version) from error

    @around("descent")
    def _check_descent(self, published: Commit) -> None:
        """The head must descend from what was published: else a swept number was used again, and the commit is void."""
        head = self.head()
        if head.version < published.version:  # only a stale listing says so, and it must cost time, never files
            message = "the commit was created, but the store does not list it yet; read the head again"
            raise CommitUnknownError(message, shard=self.shard, version=published.version, found=head.version)
        try:
            while head.version > published.version + 1:
                head = self.read(head.version - 1)
        except ObjectMissingError:
            head = Commit(self.shard, 0)
        follows = head.version == published.version + 1 and head.parent_sha256 == published.sha256
        if not (follows or head.sha256 == published.sha256):
            # Ours is no part of the chain: a number below the oldest retained one. Left there it would look like a gap.
            self._store.delete(layout.commit_key(self.shard, published.version))
            message = "the head does not descend from the published commit, which is void; plan again"
            raise CommitVoidError(message, shard=self.shard, version=published.version, found=head.version)
