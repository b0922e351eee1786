"""Where the shared fixtures and small data sets lie, on machines that have them."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("RSVL_SHARED", Path(__file__).parents[2] / "shared"))
