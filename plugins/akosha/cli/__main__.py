"""``python -m akosha.cli``."""

import sys

from akosha.cli.main import main

sys.exit(main())
