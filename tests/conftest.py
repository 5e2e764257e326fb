"""What all tests share: threads that fit parallel workers, and one place for what tools leave behind."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

# Each xdist worker is a process of its own; BLAS and OpenMP threads on top would only fight over the cores.
# Set before anything imports numpy or torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

from hypothesis import configuration, settings  # noqa: E402  (after the environment is set)

configuration.set_hypothesis_home_dir(REPOSITORY / "build" / ".hypothesis")
# No deadline: the first call of a property often builds C++ or imports torch.
# `ci` draws the same examples every time.
settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
