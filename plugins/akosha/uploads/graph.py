"""Deciding what an upload changes about the knowledge graph of its system. Pure but for DuckDB in memory.

A graph after some uploads is a function of the set of those uploads, never of their order: the statement that merges
takes maxima, minima and greatest rows only (``include/sql/graph_merge.sql``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from akosha.lake import duck
from akosha.lake.graph_schema import ENTITY, GRAPH, OBSERVATION, RELATION
from akosha.lake.sql import statement
from akosha.transforms.times import EVIDENCE

INCOMING_GRAPH: Final = GRAPH.append(pa.field("list_sha256", pa.binary()))


@dataclass(frozen=True, slots=True)
class GraphNumbers:
    """What one upload did to a graph, in rows. `dangling`: live relations of which an end is no entity of the graph."""

    new_entities: int = 0
    changed_entities: int = 0
    new_relations: int = 0
    changed_relations: int = 0
    new_observations: int = 0
    dangling: int = 0

    @property
    def rows(self) -> int:
        """Rows that are new or say something else than before."""
        return (
            self.new_entities
            + self.changed_entities
            + self.new_relations
            + self.changed_relations
            + self.new_observations
        )

    def document(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """The graph afterwards (schema ``GRAPH``), or None when it stays as it is, and what changed."""

    table: pa.Table | None
    numbers: GraphNumbers


def plan_graph(live: pa.Table, incoming: pa.Table, *, ambiguous: bool) -> GraphPlan:
    """Lay the graph of an upload over that of its system.

    Args:
        live: the system's graph, schema ``GRAPH``, sorted by kind, id, content_sha256.
        incoming: the upload's rows, schema ``INCOMING_GRAPH``, any order; see `akosha.uploads.graph_rows`. Their manifest
            time decides what is newest; absence deletes nothing.
        ambiguous: whether unrelated machines share this system id.
    """
    if not incoming.num_rows:
        return GraphPlan(None, GraphNumbers())
    columns = ", ".join(f'"{name}"' for name in GRAPH.names)
    with duck.connection(Path("graph")) as con:
        ranks = pa.table({"time_evidence": list(EVIDENCE), "rank": pa.array(range(len(EVIDENCE)), pa.int8())})
        for name, table in (("live", live), ("incoming", incoming), ("ranks", ranks)):
            con.register(name, table)
        merge = statement("graph_merge").replace("{columns}", columns)
        after = con.sql(merge, params={"ambiguous": ambiguous}).to_arrow_table().cast(GRAPH)
        con.register("after", after)
        counted = {kind: numbers for kind, *numbers in con.execute(statement("graph_counts")).fetchall()}
    entities, relations, observations = (counted.get(kind, [0] * 4) for kind in (ENTITY, RELATION, OBSERVATION))
    numbers = GraphNumbers(entities[1], entities[2], relations[1], relations[2], observations[1], relations[3])
    return GraphPlan(None if after.equals(live) else after, numbers)
