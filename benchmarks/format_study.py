"""Which number format, how many bits, what accuracy, what hardware: a study of two networks on Fashion-MNIST.

    python benchmarks/format_study.py [--json | --markdown] [--jobs 1] [--networks mlp,cnn] [--stage all]

Every configuration starts from one float network (5 epochs; the multilayer perceptron on all training images,
the convolutional network on the first 20,000), is calibrated, trained for 2 epochs with learned binary points
and frozen. Configurations: integers of 3 to 8 bits for weights and for activations, in all 36
combinations; minifloats of 3 to 8 bits in every split with 2 to 5 exponent bits, for both; K-hot weights of
3 to 8 bits with integer activations of the same width; the MX formats for both.

Stages: ``train`` runs the sweep, ``measure`` generates, simulates and synthesises the hardware of every point
of the front, ``all`` does both. What is finished is kept in build/format_study, so that a run can be
interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qfx import sweep
from qfx.sweep import networks, study

SETTINGS = {"data": "fashion-mnist", "float_epochs": 5, "epochs": 2, "batch": 64, "seed": 1}
#: Training images, the first ones of the 60,000.
SAMPLES = {"mlp": 60000, "cnn": 20000}


def space(network: str) -> sweep.Space:
    """All configurations of a network."""
    every = sweep.pairs(("integer",), range(3, 9))
    every += sweep.pairs(("minifloat", "khot", "mx"), range(3, 9), mixed=False)
    points = [{"weight": weight, "activation": activation} for weight, activation in every]
    constants = {"network": network, "samples": SAMPLES[network], **SETTINGS}
    return sweep.Space(points=points).with_constants(constants)


def train(network: str, out: Path, jobs: int) -> sweep.Results:
    """The sweep of a network, as far as it is not finished yet."""
    return sweep.run(space(network), study.objective, out=out / network, name=network, jobs=jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--networks", default=",".join(networks.NETWORKS))
    parser.add_argument("--work", type=Path, default=Path("build/format_study"))
    arguments = parser.parse_args()
    for network in arguments.networks.split(","):
        train(network, arguments.work, arguments.jobs)


if __name__ == "__main__":
    main()
