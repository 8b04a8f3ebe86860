"""What a check of a lake reports. A finding is data: only a store that does not answer is an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from akosha.lake.commits import Commit

Severity = Literal["damage", "warning", "info"]

RECOVERY: Final[Mapping[str, str]] = {
    "hot": "the uploads of its systems, or an older version of the shard",
    "warm": "the archive of the shard, which holds text and codes of the same records",
    "cold": "the archive of the shard, which holds text and codes of the same records",
    "archive": "the uploads of its systems; codes and summaries are still in warm",
    "keys": "the tier files of the shard, which hold every key it lists",
    "graph": "the uploads of its system, each of which holds the whole graph of its day",
    "holds": "nothing; once the moves are run without it, promoted records age as all others",
    "removals": "an older version of the shard",
    "commit": "an older version of the shard",
    "lake": "a copy of lake.json",
    "policy": "a new policy with the same values",
    "memo": "the upload itself: once the memo is deleted the next ingest reads it again, which changes no record",
    "refused-rows": "the upload itself; the commit and the memo still say how many rows were refused, and why",
    "plan": "nothing, and nothing depends on it once its run has ended",
    "summary": "nothing, and no record depends on it",
}
UNKNOWN: Final = "a copy of the object"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be.

    Attributes:
        code: stable name of the kind of finding.
        severity: damage fails the check, a warning does not, an info asks for nothing.
        key: the object it is about, below the lake (or below the cold root for files of cold); empty = a whole shard.
        shard: its shard, or None.
        message: what was expected, what was found, what to do next.
        recoverable_from: where the same facts are still kept, in general.
        kind: what the object is, a key of `RECOVERY`.
        records: how many live records it concerns.
        sources: how many of them each source still has, found by looking; empty where nothing was looked for.
        commands: what recovers it, in this order.
        alternatives: what recovers it as well, at another price.
    """

    code: str
    severity: Severity
    key: str
    shard: int | None
    message: str
    recoverable_from: str
    kind: str = ""
    records: int = 0
    sources: Mapping[str, int] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DamagedShard:
    """What a check learned of a shard in which something is wrong.

    `commits` are the versions that can be read, newest first; `bad` the files, as (root, path), that are not what they name;
    `keys` the names of all its commit documents, readable or not; `newest` the newest version that anything speaks of.
    """

    commits: tuple[Commit, ...]
    bad: frozenset[tuple[str, str]]
    keys: tuple[str, ...]
    newest: int = 0


@dataclass(slots=True)
class FsckReport:
    """Findings in the order of discovery, counts of what was checked, and the shards in which something is wrong."""

    findings: list[Finding] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    shards: dict[int, DamagedShard] = field(default_factory=dict)
    archive_was_off: bool = False  # by some policy: then only the rows tell what the archive must hold (I11)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not any(finding.severity == "damage" for finding in self.findings)

    def damage(self, code: str, message: str, *, key: str = "", shard: int | None = None, kind: str = "") -> None:
        """Add a finding of damage; `kind` names what its recovery depends on."""
        self.findings.append(Finding(code, "damage", key, shard, message, RECOVERY.get(kind, UNKNOWN), kind))

    def warn(self, code: str, message: str, *, key: str = "", shard: int | None = None) -> None:
        """Add a warning."""
        self.findings.append(Finding(code, "warning", key, shard, message, ""))

    def note(self, code: str, message: str, *, key: str = "", shard: int | None = None) -> None:
        """Add a fact that an operator wants to know and that is not wrong."""
        self.findings.append(Finding(code, "info", key, shard, message, ""))

    def document(self) -> dict[str, Any]:
        """JSON form."""
        return {"ok": self.ok, "checked": dict(self.checked), "findings": [asdict(found) for found in self.findings]}
