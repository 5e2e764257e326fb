"""Makes the helper modules of this directory, and the networks of the RTL tests, importable.

The suite runs in pytest's importlib mode."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "rtl"))
