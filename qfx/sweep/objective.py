"""What a sweep runs for each point: a function of the user's, or the built-in study."""

from __future__ import annotations

import importlib
import math
import numbers
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qfx.errors import QfxError
from qfx.sweep.space import Value

#: Called with the parameters of a trial and a folder of its own; returns metrics by name, and under
#: ``"layers"`` and ``"notes"`` what reports show of it.
Objective = Callable[[Mapping[str, Value], Path], Mapping[str, Any]]

#: Trains, quantizes and costs a small network (:mod:`qfx.sweep.study`).
BUILT_IN = "qfx.sweep.study:objective"


def load(name: str) -> Objective:
    """The function ``package.module:function``; the working directory is searched too.

    Raises:
        QfxError: there is none of that name.
    """
    module, separator, function = name.partition(":")
    if not separator or not module or not function:
        raise QfxError(f"objective {name!r}: expected package.module:function")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise QfxError(f"objective {name!r}: {error}") from error
    if not callable(found):
        raise QfxError(f"objective {name!r}: is {type(found).__name__}, not a function")
    return found


def name_of(function: Objective | str) -> str:
    """How another process finds a function.

    Raises:
        QfxError: it cannot, as with lambdas and functions inside functions.
    """
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not module or module == "__main__" or not name or "<" in name:
        raise QfxError(
            f"objective {function!r}: other processes cannot import it; define it at the top of a module, "
            "or use jobs=1"
        )
    return f"{module}:{name}"


def checked(result: Any, objectives: Mapping[str, str]) -> tuple[dict[str, Any], list[float]]:
    """The result of an objective as plain data, and the values of the objectives in their order.

    Raises:
        QfxError: a metric that is missing, or not a finite number.
    """
    if not isinstance(result, Mapping):
        raise QfxError(f"the objective returned {type(result).__name__}; expected metrics by name")
    plain: dict[str, Any] = {}
    for name, value in result.items():
        if name in ("layers", "notes"):
            plain[name] = value
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise QfxError(f"the objective returned {name} = {value!r}; metrics are finite numbers")
        plain[str(name)] = int(value) if isinstance(value, numbers.Integral) else float(value)
    missing = [name for name in objectives if name not in plain]
    if missing:
        found = ", ".join(plain) or "nothing"
        raise QfxError(f"the objective returned {found}; the sweep also needs {', '.join(missing)}")
    return plain, [float(plain[name]) for name in objectives]
