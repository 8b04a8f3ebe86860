"""What is asked of a search and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from akosha.errors import UsageError

SEARCHED: Final = ("hot", "warm")
MAX_K: Final = 1_000


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """How many hits, and from where. An empty tuple or None does not restrict.

    Attributes:
        k: hits wanted, 1 to 1,000.
        systems: ids of systems; nothing of any other system is compared, returned or named.
        since: created at this instant or later, with a timezone.
        until: created before this instant, with a timezone.
        projects: names of projects, exactly.
        tiers: hot, warm or both; empty = both.
    """

    k: int = 10
    systems: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    projects: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot be answered.

        Raises:
            UsageError: says what was expected and found.
        """
        if not 1 <= self.k <= MAX_K:
            message = f"k must be 1 to {MAX_K}, found {self.k}"
            raise UsageError(message)
        for tier in self.tiers:
            if tier not in SEARCHED:
                what = "cold keeps no vector to scan yet" if tier == "cold" else "there is no such tier"
                message = f"cannot search tier {tier!r}: {what}; hot and warm are searchable now"
                raise UsageError(message)
        for name, instant in (("since", self.since), ("until", self.until)):
            if instant is not None and instant.tzinfo is None:
                message = f"{name} needs a timezone, found {instant.isoformat()}; write for example {instant}+00:00"
                raise UsageError(message)

    def may_hold(self, first: str, last: str) -> bool:
        """Whether something created between `first` and `last` (ISO text, inclusive) can be wanted."""
        too_old = self.since is not None and datetime.fromisoformat(last) < self.since
        too_new = self.until is not None and datetime.fromisoformat(first) >= self.until
        return not (too_old or too_new)


@dataclass(frozen=True, slots=True)
class Place:
    """One key a text is stored under, and where."""

    system_id: str
    source_table: str
    record_id: str
    tier: str
    shard: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One found text.

    Attributes:
        score: cosine similarity, -1 to 1, six decimals; from FLOAT in hot, from INT8 in warm.
        place: the best-scoring key it is stored under (equal scores: the first key).
        created_at: of that key, UTC.
        content_sha256: hex digest of the text as received.
        summary: three sentences.
        project: as the client gave it, or None.
        embedding_model: whose vector was compared.
        upload: key of the manifest of the upload it came with; empty if its provenance names none.
        file: the lake file it was read from.
        also: the other keys with the same text that the query's filters admit, by key.
    """

    score: float
    place: Place
    created_at: datetime
    content_sha256: str
    summary: str
    project: str | None
    embedding_model: str
    upload: str
    file: str
    also: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer and what it was made from.

    Attributes:
        hits: best first; equal scores in order of their keys.
        scanned: vectors compared.
        without_vector: live records in the files searched (not only those the filters admit) that have no vector.
        other_model: admitted records left out because their vector belongs to another embedding model.
        versions: the version of each shard that was read.
    """

    hits: tuple[Hit, ...]
    scanned: int
    without_vector: int
    other_model: int
    versions: Mapping[int, int]

    def document(self) -> dict[str, Any]:
        """The answer as JSON-able values; times as ISO text."""
        hits = [{**asdict(hit), "created_at": hit.created_at.isoformat()} for hit in self.hits]
        return {**asdict(self), "hits": hits, "versions": {str(shard): n for shard, n in self.versions.items()}}
