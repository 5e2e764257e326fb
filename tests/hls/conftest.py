"""Makes the helper modules of this directory importable (the suite runs in pytest's importlib mode)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
