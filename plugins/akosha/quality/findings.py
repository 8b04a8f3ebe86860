"""What a check of a lake reports. A finding is data: only a store that does not answer is an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

Severity = Literal["damage", "warning"]

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
        severity: damage fails the check, a warning does not.
        key: the object it is about, below the lake (or below the cold root for files of cold); empty = a whole shard.
        shard: its shard, or None.
        message: what was expected, what was found, what to do next.
        recoverable_from: where the same facts are still kept.
    """

    code: str
    severity: Severity
    key: str
    shard: int | None
    message: str
    recoverable_from: str


@dataclass(slots=True)
class FsckReport:
    """Findings in the order of discovery, and counts of what was checked."""

    findings: list[Finding] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not any(finding.severity == "damage" for finding in self.findings)

    def damage(self, code: str, message: str, *, key: str = "", shard: int | None = None, kind: str = "") -> None:
        """Add a finding of damage; `kind` names what its recovery depends on."""
        self.findings.append(Finding(code, "damage", key, shard, message, RECOVERY.get(kind, UNKNOWN)))

    def warn(self, code: str, message: str, *, key: str = "", shard: int | None = None) -> None:
        """Add a warning."""
        self.findings.append(Finding(code, "warning", key, shard, message, ""))

    def document(self) -> dict[str, Any]:
        """JSON form."""
        return {"ok": self.ok, "checked": dict(self.checked), "findings": [asdict(found) for found in self.findings]}
