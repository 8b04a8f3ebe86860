"""Parsing, dispatch, exit codes: 0 ok, 1 the job failed, 2 usage, 3 verification failed (damage found)."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from akosha.cli.parser import make_parser
from akosha.errors import AkoshaError, ConfigurationError, DiskFullError, IntegrityError, UsageError

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
        code = int(options.run(options))
        sys.stdout.flush()  # a reader that is gone is noticed here, not at exit
    except AkoshaError as error:
        return _fail(error, as_json=options.json)
    except BrokenPipeError:  # the reader of our output went away: nothing more to say, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        return _fail(_translated(error), as_json=options.json)
    except KeyboardInterrupt:
        sys.stderr.write("akosha: interrupted; what was committed stays, the next run does the rest\n")
        return INTERRUPTED
    return code


def _translated(error: OSError) -> AkoshaError:
    """What the operating system refused, with the settings that decide where files go."""
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        message = f"no room left on the disk{where}: free space, or change AKOSHA_CACHE_DIR or AKOSHA_LAKE_URL"
        return DiskFullError(message, setting="AKOSHA_CACHE_DIR")
    message = f"the system refused a file{where} ({error.strerror}): check AKOSHA_CACHE_DIR, AKOSHA_LAKE_URL and --out"
    return ConfigurationError(message, setting="AKOSHA_CACHE_DIR")


def _fail(error: AkoshaError, *, as_json: bool) -> int:
    sys.stderr.write(f"akosha: {error.advice}\n")
    if as_json:
        answer: dict[str, Any] = {
            "ok": False,
            "error": type(error).__name__,
            "message": error.message,
            "runbook": error.runbook,
            "context": {name: str(value) for name, value in error.context.items()},
        }
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
    if isinstance(error, UsageError):
        return USAGE
    return DAMAGED if isinstance(error, IntegrityError) else FAILED
