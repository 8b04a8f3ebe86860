"""``akosha policy``: its grammar, its verbs, and its answers as lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from akosha.cli import verbs

DEFAULT: Final = "default"
OFF: Final = "off"
_SWITCH: Final = {"on": True, OFF: False, DEFAULT: DEFAULT}
_DAYS: Final = {
    "hot_days": "age in days at which a record leaves hot",
    "warm_days": "age in days at which a record leaves warm",
    "min_residence_days": "days a record stays in hot after it arrived, and in warm after twice as long; 0 = off",
    "importance_days": "days that an important record stays longer in hot; 0 = off",
    "access_days": "days that a record stays in its tier after it was last accessed; 0 = off",
}
_CAN_BE_OFF: Final = frozenset({"importance_at_least"})
_SHARES: Final = {
    "audit_share": "share of archived records that keep their FLOAT vector, 0-1",
    "importance_at_least": "importance, 0-1, from which a record counts as important; off = none does",
}


def add_verbs(
    groups: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Add ``policy show`` and ``policy set``."""
    policy = groups.add_parser("policy", help="the policy: what ages when").add_subparsers(
        metavar="what", required=True
    )
    show = add(policy, "show", policy_show, "print the policy in force, or an earlier one")
    show.add_argument("--number", type=int, help="that policy instead of the one in force")
    change = add(policy, "set", policy_set, "change the policy; says what would change until it is given --yes")
    for name, text in _DAYS.items():
        change.add_argument(_option(name), type=_whole, metavar="DAYS", help=text)
    for name, text in _SHARES.items():
        change.add_argument(_option(name), type=_share if name in _CAN_BE_OFF else _number, metavar="SHARE", help=text)
    change.add_argument("--archive", choices=[*_SWITCH], help="whether hot to warm keeps full text and codes")
    change.add_argument(
        "--system", default="", help="let all of this count for one system only; `default` = as the lake again"
    )
    for word, text in (("pin", "this record never leaves its tier"), ("unpin", "take that back")):
        change.add_argument(
            f"--{word}", nargs=3, action="append", default=[], metavar=("SYSTEM", "TABLE", "ID"), help=text
        )
    change.add_argument(
        "--delete-absent", action="append", default=[], metavar="SYSTEM", help="what its newest upload lacks goes away"
    )
    change.add_argument(
        "--keep-absent", action="append", default=[], metavar="SYSTEM", help="nothing goes away (the default)"
    )
    change.add_argument("--as-of", help="count the effects for this instant, ISO 8601 (default: now)")
    change.add_argument(
        "--dry-run", action=argparse.BooleanOptionalAction, default=True, help="only say what would change (default)"
    )
    change.add_argument("--yes", action="store_true", help="write it: the same as --no-dry-run")


def policy_show(options: argparse.Namespace) -> int:
    """Print a policy."""
    from akosha.jobs import policy, policy_said

    answer = policy.policy_show(options.number)
    return verbs.show(options, answer, policy_said.shown(answer))


def policy_set(options: argparse.Namespace) -> int:
    """Change the policy, or say what that would do."""
    from akosha.jobs import policy, policy_said
    from akosha.lake.policy_documents import PolicyChange

    fields, systems = _asked(options)
    change = PolicyChange(
        fields=fields,
        systems=systems,
        pin=frozenset((key[0], key[1], key[2]) for key in options.pin),
        unpin=frozenset((key[0], key[1], key[2]) for key in options.unpin),
    )
    answer = policy.policy_set(change, dry_run=options.dry_run and not options.yes, as_of=options.as_of)
    if not answer["changes"]:
        closing = []
    elif answer["dry_run"]:
        closing = ["nothing was written; to write it, give the same command --yes"]
    else:
        closing = [f"policy {answer['number']} is in force: the next run uses it, runs at work keep theirs"]
    return verbs.show(options, answer, [*policy_said.lines(answer), *closing])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _whole(text: str) -> float | str:
    """A number of days, or `default`."""
    return _parsed(text, int, "a whole number of days, or default")


def _share(text: str) -> float | str:
    """A number, `off`, or `default`."""
    return text if text == OFF else _parsed(text, float, "a number in 0-1, off or default")


def _number(text: str) -> float | str:
    """A number, or `default`."""
    return _parsed(text, float, "a number in 0-1 or default")


def _parsed(text: str, kind: Callable[[str], float], expected: str) -> float | str:
    try:
        return text if text == DEFAULT else kind(text)
    except ValueError:
        message = f"expected {expected}, found {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def _asked(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Values for the whole lake, and for single systems.

    Raises:
        UsageError: nothing is asked for, or one thing and its opposite.
    """
    from akosha.errors import UsageError

    values = {name: getattr(options, name) for name in (*_DAYS, *_SHARES) if getattr(options, name) is not None}
    values = {name: None if value == OFF else value for name, value in values.items()}
    if options.archive is not None:
        values["archive"] = _SWITCH[options.archive]
    both = sorted(set(options.delete_absent) & set(options.keep_absent))
    if both:
        message = f"name each system once, after --delete-absent or --keep-absent; found twice: {both}"
        raise UsageError(message)
    systems: dict[str, dict[str, Any]] = {options.system: values} if options.system and values else {}
    for system in options.delete_absent:
        systems.setdefault(system, {})["delete_absent"] = True
    for system in options.keep_absent:
        systems.setdefault(system, {})["delete_absent"] = False
    if options.system and not values:
        message = "--system says for whom a value counts: give it with one, for example --system laptop-7 --hot-days 14"
        raise UsageError(message)
    if not (values or systems or options.pin or options.unpin):
        message = "say what is to change, for example --hot-days 14; `akosha policy set --help` lists every field"
        raise UsageError(message)
    return {} if options.system else values, systems
