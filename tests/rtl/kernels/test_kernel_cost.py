"""The benchmark of kernels knows every kernel that the generator places, by parameters that it has."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qfx.rtl.library import MODULES

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "kernel_cost.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernel_cost", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_kernel_is_measured(benchmark: ModuleType) -> None:
    points = [point for make in benchmark.SECTIONS.values() for point in make()]
    assert {point.module for point in points} == set(MODULES)
    for point in points:
        known = set(MODULES[point.module].parameters)
        assert {*point.parameters, *point.memories} <= known, (point.module, point.size)


def test_memories_hold_as_many_words_as_they_are_deep(benchmark: ModuleType) -> None:
    for point in benchmark.products() + benchmark.streams():
        for name, (depth, bits) in point.memories.items():
            words = benchmark.memory(point, name).split()
            assert len(words) == depth and all(int(word, 16) < 1 << bits for word in words)
