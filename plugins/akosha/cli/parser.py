"""The grammar of the command line: one table of verbs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import akosha
from akosha.cli import policy, verbs


def make_parser() -> argparse.ArgumentParser:
    """The parser; every verb sets ``run`` to its function."""
    parser = argparse.ArgumentParser(
        prog="akosha",
        description="A batch lake for the memories of AI coding sessions. Settings are AKOSHA_* variables: `akosha doctor`.",
        epilog="exit codes: 0 ok, 1 the job failed, 2 usage, 3 verification failed (damage found)",
    )
    parser.add_argument("--version", action="version", version=f"akosha {akosha.__version__}")
    groups = parser.add_subparsers(metavar="verb", required=True)
    _lake_verbs(groups)
    _job_verbs(groups)
    _repair_verbs(groups)
    _reading_verbs(groups)
    _demo_verbs(groups)
    return parser


def _lake_verbs(groups: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _verb(groups, "init", verbs.init, "create an empty lake at AKOSHA_LAKE_URL")
    _verb(groups, "status", verbs.status, "records, bytes and files per tier, backlog, quarantine, last runs")
    _verb(groups, "doctor", verbs.doctor, "check configuration, store, model, cache and pools")
    policy.add_verbs(groups, _verb)


def _job_verbs(groups: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ingest = _verb(groups, "ingest", verbs.ingest, "take in every upload that is due")
    _narrowing(ingest)
    ingest.add_argument(
        "--listing",
        choices=["auto", "recent", "full"],
        default="full",
        help="recent: systems at their turn, from 48 hours before their newest upload; full: everything (default)",
    )
    ingest.add_argument("--dry-run", action="store_true", help="say what would be taken in, commit nothing")
    backfill = _verb(groups, "backfill", verbs.backfill, "take in uploads of chosen systems and dates once more")
    backfill.add_argument("--system", action="append", default=[], help="only this system; may be repeated")
    backfill.add_argument("--shard", type=int, help="only this shard, 0-255")
    backfill.add_argument("--since", help="uploaded at this date or time or later, ISO 8601")
    backfill.add_argument("--until", help="uploaded before this time, or on this date at the latest")
    backfill.add_argument("--force", action="store_true", help="also what was taken in before, or is in quarantine")
    backfill.add_argument(
        "--dry-run",
        action=argparse.BooleanOptionalAction,
        help="only say what would be taken in (default with --force)",
    )
    embed = _verb(groups, "embed", verbs.embed, "fill missing vectors in hot")
    _narrowing(embed)
    embed.add_argument(
        "--budget-seconds", type=float, default=0, help="stop each batch after this long; 0 = no limit (default)"
    )
    embed.add_argument("--dry-run", action="store_true", help="say what would be filled, commit nothing")
    moves = groups.add_parser("migrate", help="move aged records").add_subparsers(metavar="move", required=True)
    for kind in ("hot-to-warm", "warm-to-cold"):
        move = _verb(moves, kind, verbs.migrate, f"move what is past its line, {kind.replace('-', ' ')}")
        _narrowing(move)
        move.set_defaults(kind=kind)
        move.add_argument("--as-of", help="the instant that decides, ISO 8601 (default: now)")
        move.add_argument("--dry-run", action="store_true", help="say what would move, commit nothing")
        move.add_argument("--force", action="store_true", help="accept an --as-of more than a day ahead")
    validate = _verb(groups, "validate", verbs.validate, "prove recall and conservation; writes Data Docs")
    validate.add_argument("--as-of", help="recorded with the report (default: now)")


def _repair_verbs(groups: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    promote = _verb(groups, "promote", verbs.promote, "bring records back to hot, with their full text")
    promote.add_argument("key", nargs="*", metavar="SYSTEM TABLE ID", help="one record")
    promote.add_argument("--keys", type=Path, help="a file of keys: system, table and id on a line, separated by tabs")
    promote.add_argument("--system", default="", help="instead, all aged records of this system")
    promote.add_argument("--since", help="of these, created at this time or later, ISO 8601")
    promote.add_argument("--until", help="of these, created before this time")
    promote.add_argument("--hold-days", type=int, default=30, help="days for which they stay in hot (default 30)")
    promote.add_argument("--dry-run", action="store_true", help="say what would come back, commit nothing")
    undo = _verb(groups, "undo", verbs.undo, "return shards to a retained version and hold them")
    _narrowing(undo)
    undo.add_argument("--to-version", type=int, help="the version of that shard to go back to")
    undo.add_argument("--to-time", help="each shard to its newest version of this time or earlier, ISO 8601")
    undo.add_argument("--run", dest="undo_run", default="", metavar="RUN", help="take back the commits of this run")
    undo.add_argument("--reason", default="", help="a sentence for whoever finds the shards held")
    undo.add_argument(
        "--dry-run",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="only say what would be undone (default); --no-dry-run or --yes does it",
    )
    undo.add_argument("--yes", dest="dry_run", action="store_false", help="do it")
    release = _verb(groups, "release", verbs.release, "let held shards go; without options all of them")
    _narrowing(release)
    release.add_argument("--skip", action="store_true", help="set the undone uploads aside in quarantine")
    release.add_argument("--dry-run", action="store_true", help="say what would be let go, commit nothing")
    maintain = _verb(groups, "maintain", verbs.maintain, "sweep: delete versions past retention and files nobody names")
    _narrowing(maintain)
    maintain.add_argument("--dry-run", action="store_true", help="say what would be deleted, delete nothing")


def _reading_verbs(groups: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    search = _verb(groups, "search", verbs.search, "find the nearest texts in hot and warm")
    search.add_argument("text", help="what to look for")
    search.add_argument("--k", type=int, default=10, help="hits wanted (default 10)")
    search.add_argument("--system", action="append", default=[], help="only this system; may be repeated")
    search.add_argument("--project", action="append", default=[], help="only this project; may be repeated")
    search.add_argument("--tier", action="append", default=[], help="hot or warm; may be repeated")
    search.add_argument(
        "--since", type=_instant, help="created at this time or later, ISO 8601, UTC if no zone is given"
    )
    search.add_argument("--until", type=_instant, help="created before this time")
    told = _verb(groups, "explain", verbs.explain, "tell the life of one record: where it is, why, and when it moves")
    for name, text in (("system", "system id"), ("table", "source table"), ("record", "record id")):
        told.add_argument(name, help=text)
    told.add_argument("--as-of", help="whether it is due at this instant, ISO 8601 (default: now)")
    export = _verb(groups, "export", verbs.export, "write every live record to Parquet files")
    export.add_argument("--out", type=Path, required=True, help="a new folder")
    fsck = _verb(groups, "fsck", verbs.fsck, "verify every commit, file, digest and invariant")
    fsck.add_argument("--read-data", action="store_true", help="also read and hash every byte")
    scrub = _verb(groups, "scrub", verbs.scrub, "read this day's share of all stored bytes again")
    scrub.add_argument("--cycle-days", type=int, help="days within which all are read (default: AKOSHA_SCRUB_DAYS)")
    repair = _verb(groups, "repair", verbs.repair, "bring back what is damaged from what is still there")
    repair.add_argument("--shard", type=int, help="only this shard, 0-255")
    repair.add_argument(
        "--from", dest="copy_url", default="", metavar="URL", help="a copy of the lake to take objects from"
    )
    repair.add_argument(
        "--dry-run", action=argparse.BooleanOptionalAction, default=True, help="only say what would be done (default)"
    )
    repair.add_argument("--accept-loss", action="store_true", help="go on without records that nothing has any more")
    proof = _verb(groups, "rebuild-proof", verbs.rebuild_proof, "replay all uploads into an empty lake and compare")
    proof.add_argument("--out", type=Path, help="a new folder for the rebuilt lake, which is kept (default: none is)")
    proof.add_argument("--shard", type=int, help="only this shard, 0-255")
    proof.add_argument("--system", default="", help="only this system's shard")
    quarantine = groups.add_parser("quarantine", help="uploads set aside").add_subparsers(metavar="what", required=True)
    listing = _verb(quarantine, "list", verbs.quarantine_list, "what was set aside, by system and reason")
    listing.add_argument("--rows", action="store_true", help="uploads of which single rows were refused")
    show = _verb(quarantine, "show", verbs.quarantine_show, "all evidence of one")
    show.add_argument("memo", help="its memo key or the key of refused rows, as listed")
    replay = _verb(quarantine, "replay", verbs.quarantine_replay, "take them in again, after a fix")
    replay.add_argument("memo", nargs="*", help="memo keys, as listed; none = all that the options leave")
    for narrowed in (listing, replay):
        narrowed.add_argument("--system", default="", help="only of this system")
        narrowed.add_argument("--reason", default="", help="only with this reason code")


def _demo_verbs(groups: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    uploads = _verb(groups, "demo-uploads", verbs.demo_uploads, "write a world of uploads into AKOSHA_UPLOADS_URL")
    uploads.add_argument("--anchor", type=_instant, required=True, help="the instant the world ends at, ISO 8601")
    _verb(groups, "demo-vectors", verbs.demo_vectors, "make the vectors of that world, once (minutes)")


def _verb(
    groups: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_text: str,
) -> argparse.ArgumentParser:
    parser = groups.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--verbose", "-v", action="store_true", help="log what happens to standard error")
    parser.set_defaults(run=run)
    return parser


def _narrowing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", default="", help="only this system (moves and embedding: its whole shard)")
    parser.add_argument("--shard", type=int, help="only this shard, 0-255")


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        message = f"expected a time such as 2026-11-20T02:30:00+00:00, found {text!r}"
        raise argparse.ArgumentTypeError(message) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
