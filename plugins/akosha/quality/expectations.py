"""Great Expectations over the figures of a lake: two suites, their verdict, and Data Docs as a static site.

Great Expectations costs 5 to 10 CPU-seconds to import, so it is imported where it runs, once for each validation.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from akosha.quality.conservation import PROBLEMS, ShardFigures
from akosha.transforms.recall import RecallMeasure

RECALL: Final = "recall"
CONSERVATION: Final = "conservation"
SITE: Final = "akosha"


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation after it was checked: which suite and column, what was expected, what was found."""

    suite: str
    expectation: str
    column: str
    success: bool
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether every expectation holds, and each of them."""

    success: bool
    expectations: tuple[Expectation, ...]


def judge(recall: RecallMeasure, figures: Sequence[ShardFigures], *, floor: float, run_id: str, docs: Path) -> Verdict:
    """Validate the figures of one run and write Data Docs.

    Args:
        recall: of warm; judged against `floor` only when it says that there is enough to judge.
        figures: one for each shard, at least one.
        floor: lowest recall@10 that passes, 0-1.
        run_id: names the run in Data Docs.
        docs: an empty folder; its ``index.html`` is the entry. Nothing is written elsewhere and no network is used.
    """
    with quiet():
        import great_expectations as gx
        import pandas as pd  # type: ignore[import-untyped]

        context = ephemeral_context(gx, docs)
        source = context.data_sources.add_pandas("lake")
        frames = {
            RECALL: pd.DataFrame([{**asdict(recall), "floor": floor}]),
            CONSERVATION: pd.DataFrame([asdict(shard) for shard in figures]),
        }
        suites = {RECALL: _recall_suite(gx, recall, floor), CONSERVATION: _conservation_suite(gx)}
        checked: list[Expectation] = []
        for name, frame in frames.items():
            batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(run_id)
            suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=suites[name]))
            checked += _checked(gx, context, name, (batch, suite, frame), run_id)
        context.build_data_docs(site_names=[SITE])
    return Verdict(all(found.success for found in checked), tuple(checked))


@contextmanager
def quiet() -> Iterator[None]:
    """No analytics, and no warnings of libraries about themselves."""
    os.environ["GX_ANALYTICS_ENABLED"] = "False"  # read when great_expectations is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ephemeral_context(gx: Any, docs: Path | None = None) -> Any:  # noqa: ANN401 - great_expectations is imported by the caller
    """A context in memory that asks nobody anything; with `docs` its Data Docs go to that folder."""
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={SITE: site} if docs else {},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(project_config=config, mode="ephemeral")


def _recall_suite(gx: Any, recall: RecallMeasure, floor: float) -> list[Any]:  # noqa: ANN401 - see ephemeral_context
    least = floor if recall.judged else 0.0
    why = (
        f"At least {floor:.0%} of the true ten nearest texts are found in warm."
        if recall.judged
        else f"Not judged: {recall.queries} audited records are too few."
    )
    return [
        gx.expectations.ExpectColumnValuesToBeBetween(
            column="recall", min_value=least, max_value=1.0, meta={"notes": why}
        ),
    ]


def _conservation_suite(gx: Any) -> list[Any]:  # noqa: ANN401 - see ephemeral_context
    return [
        gx.expectations.ExpectColumnValuesToBeBetween(
            column=problem, min_value=0, max_value=0, meta={"notes": f"No record is {what}."}
        )
        for problem, what in PROBLEMS.items()
    ]


def _checked(
    gx: Any,  # noqa: ANN401 - see ephemeral_context
    context: Any,  # noqa: ANN401 - see ephemeral_context
    name: str,
    checking: tuple[Any, Any, Any],
    run_id: str,
) -> Iterator[Expectation]:
    from great_expectations.core.run_identifier import RunIdentifier

    batch, suite, frame = checking
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = gx.Checkpoint(name=name, validation_definitions=[definition], result_format="SUMMARY")
    outcome = context.checkpoints.add(checkpoint).run(
        batch_parameters={"dataframe": frame}, run_id=RunIdentifier(run_name=run_id)
    )
    for result in next(iter(outcome.run_results.values())).results:
        config = result.expectation_config
        bounds = [f"{word} {config.kwargs[word]}" for word in ("min_value", "max_value") if word in config.kwargs]
        column = config.kwargs.get("column", "")
        yield Expectation(
            suite=name,
            expectation=config.type,
            column=column,
            success=bool(result.success),
            expected=", ".join(bounds),
            found=str(frame[column].tolist() if name == RECALL else int(frame[column].sum())),
        )
