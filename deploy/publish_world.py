"""Copy a folder of uploads into the bucket behind AKOSHA_UPLOADS_URL, manifests last: a manifest says that its upload is whole.

python deploy/publish_world.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from akosha.lake.local_store import LocalStore
from akosha.lake.stores import open_store
from akosha.settings import Settings


def main() -> None:
    """Copy every file of the folder named on the command line."""
    settings = Settings.from_environment()
    source = LocalStore(Path(sys.argv[1]), setting="FOLDER")
    target = open_store(settings.require_uploads_url(), settings, setting="AKOSHA_UPLOADS_URL")
    keys = sorted((found.key for found in source.list("")), key=lambda key: (key.endswith("/manifest.json"), key))
    for key in keys:
        target.put(key, source.get(key))


if __name__ == "__main__":
    main()
