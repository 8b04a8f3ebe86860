"""Jobs of the demo: make its vectors once, write its world of uploads."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from akosha.demo.vectors import load_vectors, make_vectors
from akosha.demo.world import build_world, publish_world
from akosha.jobs.ingest import uploads_source
from akosha.settings import Settings


def demo_vectors() -> dict[str, Any]:
    """Harvest the demo's texts and make their vectors, unless that was done."""
    made = make_vectors()
    return {name: str(value) if name == "path" else value for name, value in asdict(made).items()}


def demo_uploads(anchor: datetime) -> dict[str, Any]:
    """Write the world of uploads that ends at `anchor` into AKOSHA_UPLOADS_URL. Equal anchors give equal objects."""
    settings = Settings.from_environment()
    world = build_world(anchor, load_vectors())
    return {"anchor": anchor.isoformat(), **asdict(publish_world(world, uploads_source(settings).store))}
