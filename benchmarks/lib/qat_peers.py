"""Networks of benchmarks/qat_step.py as layers of other libraries, with the quantizers closest to ours."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

#: Steps after which brevitas has the scales of activations; its default of 300 would be timed otherwise.
COLLECT_STEPS = 3


@dataclass(frozen=True)
class Network:
    """A network by its layers: ``("conv", in, out, kernel, padding)``, ``("linear", in, out)``, ``"relu"``,
    ``"pool"``, ``"flatten"``."""

    name: str
    batch: int
    shape: tuple[int, ...]
    classes: int
    layers: tuple[Any, ...]
    #: The format of the input, which is frozen.
    frac: int


def in_brevitas(network: Network) -> nn.Module:
    """The network of brevitas layers: 8 bits, scales that are powers of two, activations cast after ReLU."""
    import brevitas.nn as bnn
    from brevitas.quant import fixed_point

    class Signed(fixed_point.Int8ActPerTensorFixedPoint):
        collect_stats_steps = COLLECT_STEPS

    class Unsigned(fixed_point.Uint8ActPerTensorFixedPoint):
        collect_stats_steps = COLLECT_STEPS

    weight = {"weight_quant": fixed_point.Int8WeightPerTensorFixedPoint, "bias_quant": None}
    layers: list[nn.Module] = [bnn.QuantIdentity(act_quant=Signed)]
    for layer in network.layers:
        if layer == "relu":
            layers.append(bnn.QuantReLU(act_quant=Unsigned))
        elif layer == "pool":
            layers.append(nn.MaxPool2d(2))
        elif layer == "flatten":
            layers.append(nn.Flatten())
        elif layer[0] == "conv":
            layers.append(bnn.QuantConv2d(layer[1], layer[2], layer[3], padding=layer[4], **weight))
        else:
            layers.append(bnn.QuantLinear(layer[1], layer[2], bias=True, **weight))
    return nn.Sequential(*layers, bnn.QuantIdentity(act_quant=Signed))


def in_pquantml(network: Network, learned: bool) -> nn.Module:
    """The network of PQuantML layers on its torch backend, without pruning: 8 bits, biases too.

    Args:
        learned: HGQ quantizers, one per tensor, which learn integer and fraction bits; otherwise binary
            points stay where they are put and nothing of a quantizer is learned.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import pquant
    from pquant.core.torch.activations import PQActivation
    from pquant.core.torch.layers import PQConv2d, PQDense

    config = pquant.pdp_config()
    config.pruning_parameters.enable_pruning = False
    config.quantization_parameters.use_high_granularity_quantization = learned
    config.quantization_parameters.round_mode = "RND_CONV"
    # Keep negatives, integer bits, fraction bits. Each result is cast once: at the input of the network,
    # behind every ReLU, and at the output.
    signed, unsigned = (1, 7 - network.frac, network.frac), (0, 8 - network.frac, network.frac)
    weighted = [layer for layer in network.layers if isinstance(layer, tuple)]
    layers: list[nn.Module] = []
    for layer in network.layers:
        if layer == "relu":
            layers.append(
                PQActivation(
                    config, "relu", quantize_input=False, quantize_output=True, out_quant_bits=unsigned
                )
            )
        elif layer == "pool":
            layers.append(nn.MaxPool2d(2))
        elif layer == "flatten":
            layers.append(nn.Flatten())
        else:
            casts = {
                "quantize_input": layer is weighted[0], "in_quant_bits": signed,
                "quantize_output": layer is weighted[-1], "out_quant_bits": signed,
            }  # fmt: skip
            if layer[0] == "conv":
                layers.append(PQConv2d(config, layer[1], layer[2], layer[3], padding=layer[4], **casts))
            else:
                layers.append(PQDense(config, layer[1], layer[2], **casts))
    model = nn.Sequential(*layers)
    model(torch.zeros(2, *network.shape))  # makes the quantizers
    for module in model:
        if hasattr(module, "post_pre_train_function"):
            module.post_pre_train_function()  # from here on, casts are on
    return model


#: What a network is compared with, by the name of its row in the results.
PEERS: dict[str, Callable[[Network], nn.Module]] = {
    "brevitas": in_brevitas,
    "pquantml": lambda network: in_pquantml(network, False),
    "pquantml_hgq": lambda network: in_pquantml(network, True),
}


def peers(network: Network) -> dict[str, nn.Module]:
    """The network in every library that is installed."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in PEERS.items():
            try:
                found[name] = make(network)
            except ImportError:
                continue
    return found


def peer_versions() -> dict[str, Any]:
    """Versions of the libraries that are installed."""
    found = {}
    for name in ("brevitas", "pquant-ml", "hgq2", "keras"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
