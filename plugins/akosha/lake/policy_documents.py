"""Policy documents: reading them strictly, changing them, putting the next one. docs/format.md, Policy documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from akosha.declared import model
from akosha.errors import CommitConflictError, IntegrityError, ObjectMissingError, UsageError
from akosha.lake import layout
from akosha.lake.documents import Document, seal, unseal
from akosha.lake.objects import ObjectStore

DEFAULT_ID: Final = "policy-default-v2"
FORMAT: Final = "akosha-policy/2"
OVERRIDABLE: Final = (
    "hot_days",
    "warm_days",
    "archive",
    "audit_share",
    "min_residence_days",
    "importance_at_least",
    "importance_days",
    "access_days",
)
SWITCHES: Final = frozenset({"archive", "delete_absent"})
WHOLE: Final = frozenset({"hot_days", "warm_days", "min_residence_days", "importance_days", "access_days"})
DEFAULT: Final = "default"
_KEY_PARTS: Final = 3
_ABOUT: Final = ("format", "number", "made_at", "sha256")

Values = Mapping[str, Any]
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What the next policy says otherwise than the one before.

    Attributes:
        fields: values for the whole lake; `DEFAULT` = as declared.
        systems: values for single systems, ``delete_absent`` among them; `DEFAULT` = as the whole lake.
        pin, unpin: records.
    """

    fields: Values = field(default_factory=dict)
    systems: Mapping[str, Values] = field(default_factory=dict)
    pin: frozenset[Key] = frozenset()
    unpin: frozenset[Key] = frozenset()


def first_document(now: datetime) -> Document:
    """Policy 1: what is declared."""
    return {"format": FORMAT, "number": 1, "made_at": now.isoformat(), "systems": {}, "pinned": [], **_defaults()}


def write_first_policy(store: ObjectStore, *, now: datetime) -> None:
    """Put policy 1, the declared default, unless it is there."""
    store.put_if_absent(layout.policy_key(1), seal(first_document(now)))


def newest_document(store: ObjectStore) -> Document:
    """The policy in force, complete: what an older document lacks is as declared. Errors as `numbered_document`."""
    newest = max((found.key for found in store.list(layout.POLICY_PREFIX)), default="")
    if not newest:
        return {"number": 0, "made_at": "", "systems": {}, "pinned": [], **_defaults()}
    return _read(store, newest)


def numbered_document(store: ObjectStore, number: int) -> Document:
    """One policy, complete.

    Raises:
        UsageError: there is none of that number.
        IntegrityError: it is damaged, or says what no policy may say.
        FormatVersionError: a newer Akosha wrote it.
    """
    try:
        return _read(store, layout.policy_key(number))
    except ObjectMissingError:
        there = sorted(int(found.key[len(layout.POLICY_PREFIX) :][:8]) for found in store.list(layout.POLICY_PREFIX))
        message = f"there is no policy {number}: this lake has {there[0]} to {there[-1]}" if there else "no policy yet"
        raise UsageError(message) from None


def all_documents(store: ObjectStore) -> list[Document]:
    """Every policy there was, oldest first."""
    return [_read(store, key) for key in sorted(found.key for found in store.list(layout.POLICY_PREFIX))]


def turns_archive_off(document: Values) -> bool:
    """Whether a policy keeps records of some system out of the archive: then the archive holds fewer than it else must."""
    return not all(values.get("archive", True) for values in (document, *document.get("systems", {}).values()))


def changed_document(before: Document, change: PolicyChange, *, now: datetime) -> Document:
    """The next policy: `before` with a change. Equal to `before` but for its number and time when it changes nothing.

    Raises:
        UsageError: a field or value that no policy may have, or a record that is not pinned is to be unpinned.
    """
    defaults = _defaults()
    lake_wide = {name: before[name] for name in OVERRIDABLE}
    for name, value in change.fields.items():
        lake_wide[name] = defaults.get(name) if value == DEFAULT else value
    systems = {name: dict(own) for name, own in before["systems"].items()}
    for system, values in change.systems.items():
        own = systems.setdefault(system, {})
        own.update({name: value for name, value in values.items() if value != DEFAULT})
        for name in [name for name, value in values.items() if value == DEFAULT]:
            own.pop(name, None)
    document: Document = {
        "format": FORMAT,
        "number": int(before["number"]) + 1,
        "made_at": now.isoformat(),
        **lake_wide,
        "systems": {name: own for name, own in sorted(systems.items()) if own},
        "pinned": _pinned_after({tuple(key) for key in before["pinned"]}, change),
    }
    problem = problem_of(document)
    if problem:
        raise UsageError(problem)
    return document


def _pinned_after(pinned: set[Key], change: PolicyChange) -> list[list[str]]:
    both = change.pin & change.unpin
    if both:
        message = f"a record is either pinned or unpinned, found both for {_named(min(both))}"
        raise UsageError(message)
    unknown = change.unpin - pinned
    if unknown:
        message = f"{_named(min(unknown))} is not pinned: `akosha policy show` lists what is"
        raise UsageError(message)
    return [list(key) for key in sorted((pinned | change.pin) - change.unpin)]


def says_the_same(one: Document, other: Document) -> bool:
    """Whether two policies differ in their number and time at most."""
    return all(one[name] == other[name] for name in (*OVERRIDABLE, "systems", "pinned"))


def write_policy(store: ObjectStore, document: Document) -> None:
    """Put a policy under its number.

    Raises:
        CommitConflictError: somebody else put one of that number.
    """
    number = int(document["number"])
    if not store.put_if_absent(layout.policy_key(number), seal(document)):
        message = "another policy was written at the same moment; look at `akosha policy show` and try again"
        raise CommitConflictError(message, number=number)


def problem_of(document: Values) -> str:
    """What no policy may say, as one sentence; "" for a sound document."""
    unknown = document.keys() - {*OVERRIDABLE, *_ABOUT, "systems", "pinned"}
    if unknown:
        return f"a policy has no field {min(unknown)!r}; its fields are {', '.join(OVERRIDABLE)}, systems and pinned"
    problems = [_problem_of_values(document, "")]
    for system, own in document["systems"].items():
        problems.append(_problem_of_system(system, own, document))
    problems.append(_problem_of_pins(document["pinned"]))
    return next((problem for problem in problems if problem), "")


def _problem_of_system(system: object, own: Values, document: Values) -> str:
    if not isinstance(system, str) or not system:
        return f"a rule of its own needs a system id, found {system!r}"
    unknown = own.keys() - {*OVERRIDABLE, "delete_absent"}
    if unknown:
        fields = ", ".join((*OVERRIDABLE, "delete_absent"))
        return f"a system has no field {min(unknown)!r} of its own, found for {system!r}; its fields are {fields}"
    missing = [name for name in ("hot_days", "warm_days") if name in own and own[name] is None]
    if missing:
        return f"{missing[0]} of system {system!r} must be a number of days; leave it out to follow the lake's"
    inherited = {name: document[name] for name in ("hot_days", "warm_days")}
    return _problem_of_values({**inherited, **own}, f" of system {system!r}")


def _problem_of_values(values: Values, whose: str) -> str:
    bounds = model(DEFAULT_ID)["bounds"]
    nullable = {name for name, value in _defaults().items() if value is None}
    for name in (*OVERRIDABLE, "delete_absent"):
        value = values.get(name, None)
        if name not in values or (value is None and name in nullable):
            continue
        if name in SWITCHES:
            if not isinstance(value, bool):
                return f"{name}{whose} is on or off, found {value!r}"
            continue
        low, high = bounds[name]
        kinds = (int,) if name in WHOLE else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            what = "a whole number" if name in WHOLE else "a number"
            return f"{name}{whose} must be {what} in {low}-{high}, found {value!r}"
    hot, warm = values.get("hot_days"), values.get("warm_days")
    if hot is not None and warm is not None and warm < hot:
        return f"warm_days{whose} must be at least hot_days, found {warm} below {hot}: a record leaves hot before it leaves warm"
    return ""


def _problem_of_pins(pinned: Iterable[object]) -> str:
    for key in pinned:
        parts = list(key) if isinstance(key, (list, tuple)) else []
        if len(parts) != _KEY_PARTS or not all(isinstance(part, str) and part for part in parts):
            return f"a pinned record is a system, a table and an id, found {key!r}"
    return ""


def _named(key: Key) -> str:
    return " / ".join(key)


def _defaults() -> dict[str, Any]:
    return dict(model(DEFAULT_ID)["defaults"])


def _read(store: ObjectStore, key: str) -> Document:
    stored = unseal(store.get(key), kind="policy", key=key)
    document = {**_defaults(), "systems": {}, "pinned": [], **stored}
    problem = problem_of(document)
    if problem:
        message = f"the policy cannot be followed: {problem}. Put a copy of the right one back, or upgrade Akosha"
        raise IntegrityError(message, key=key)
    return document
