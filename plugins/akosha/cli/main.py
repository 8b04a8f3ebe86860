"""Parsing, dispatch, exit codes: 0 ok, 1 the job failed, 2 usage, 3 verification failed (damage found)."""

from __future__ import annotations

import errno
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, Final

from akosha.cli.parser import make_parser
from akosha.errors import AkoshaError, DiskFullError, IntegrityError, UsageError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
DAMAGED: Final = 3
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Errors are one line on standard error; with ``--json`` also an object on standard output."""
    options = make_parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(name)s %(message)s"
    )
    try:
        return int(options.run(options))
    except AkoshaError as error:
        return _fail(error, as_json=options.json)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        message = "no room left on the disk behind AKOSHA_CACHE_DIR; free space or point the setting elsewhere"
        return _fail(DiskFullError(message, setting="AKOSHA_CACHE_DIR"), as_json=options.json)
    except BrokenPipeError:
        return OK
    except KeyboardInterrupt:
        sys.stderr.write("akosha: interrupted; what was committed stays, the next run does the rest\n")
        return INTERRUPTED


def _fail(error: AkoshaError, *, as_json: bool) -> int:
    sys.stderr.write(f"akosha: {error}\n")
    if as_json:
        answer: dict[str, Any] = {
            "ok": False,
            "error": type(error).__name__,
            "message": error.message,
            "context": {name: str(value) for name, value in error.context.items()},
        }
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
    if isinstance(error, UsageError):
        return USAGE
    return DAMAGED if isinstance(error, IntegrityError) else FAILED
