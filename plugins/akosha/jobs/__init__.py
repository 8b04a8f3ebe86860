"""One function per Airflow task: plain values in, JSON out. The same functions serve the command line.

A job is `plan_*` -> `run_batch` for each batch -> `finish`. The plan lies in the lake under ``runs/``; only its key and
the batch labels travel between tasks.
"""

from akosha.jobs.backfill import plan_backfill
from akosha.jobs.doctor import doctor
from akosha.jobs.embed import plan_embed
from akosha.jobs.explain import explain
from akosha.jobs.ingest import plan_ingest, plan_replay
from akosha.jobs.maintain import plan_maintain
from akosha.jobs.moves import plan_move
from akosha.jobs.policy import policy_set, policy_show
from akosha.jobs.promote import plan_promote
from akosha.jobs.run import finish, progress_shown, run_all, run_batch
from akosha.jobs.status import status
from akosha.jobs.undo import plan_release, plan_undo
from akosha.jobs.validation import plan_validate

__all__ = [
    "doctor",
    "explain",
    "finish",
    "plan_backfill",
    "plan_embed",
    "plan_ingest",
    "plan_maintain",
    "plan_move",
    "plan_promote",
    "plan_release",
    "plan_replay",
    "plan_undo",
    "plan_validate",
    "policy_set",
    "policy_show",
    "progress_shown",
    "run_all",
    "run_batch",
    "status",
]
