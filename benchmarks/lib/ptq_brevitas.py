"""brevitas' side of benchmarks/ptq.py: the methods of its flow for ImageNet, with powers of two as scales."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from torch import nn

from .ptq_data import EXPONENTS

PEER: dict[str, dict[str, Any]] = {
    "calibration": {},
    "best": {"equalize": 20, "gptq": True, "bias": True},
    "best_mse": {"equalize": 20, "gptq": True, "bias": True, "rule": "mse"},
    "best_relu": {"equalize": 20, "relu": True, "gptq": True, "bias": True},
    "learned_rounding": {"learned": 200},
    "gptq": {"gptq": True},
    "bias_correction": {"bias": True},
    "best_unequalized": {"gptq": True, "bias": True},
    "equalization": {"equalize": 20},
    "activation_equalization": {"smooth": True},
    "calibration_mse": {"rule": "mse"},
}


def quantized_by_brevitas(
    model: nn.Module, family: str, w: int, a: int, method: str, x: list[torch.Tensor]
) -> Any:
    """A brevitas model of a cell: its flow for ImageNet (``brevitas_examples.imagenet_classification``), with
    powers of two as scales, weights per channel; biases in float."""
    import copy

    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
    from brevitas.graph.equalize import activation_equalization_mode
    from brevitas.graph.gptq import gptq_mode
    from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize, quantize

    how = PEER[method]
    float_model = preprocess_for_quantize(
        copy.deepcopy(model), equalize_iters=how.get("equalize", 0), relu6_to_relu=how.get("relu", False)
    )
    with torch.no_grad():
        if how.get("smooth"):
            with activation_equalization_mode(float_model, alpha=0.5, layerwise=False, add_mul_node=False):
                for batch in x:
                    float_model(batch)
        layers = brevitas_layers(family, w, a, how.get("rule", "stats"))
        if family == "integer":
            peer = quantize(float_model, **layers)
        else:
            peer = layerwise_quantize(float_model, compute_layer_map=layers)
        peer.eval()
        # Like ours, the result is not cast.
        for name in [n for n, _ in peer.named_children() if n.endswith("classifier_1_output_quant")]:
            setattr(peer, name, nn.Identity())
        peer(x[0][:1])
        with calibration_mode(peer):
            for batch in x:
                peer(batch)
        if how.get("gptq"):
            with gptq_mode(peer, use_quant_activations=False, act_order=True) as mode:
                for _ in range(mode.num_layers):
                    for batch in x:
                        mode.model(batch)
                    mode.update()
    if how.get("learned"):
        brevitas_learned_rounding(peer, x, how["learned"])
    with torch.no_grad():
        if how.get("bias"):
            with bias_correction_mode(peer):
                for batch in x:
                    peer(batch)
    return peer


def brevitas_learned_rounding(peer: nn.Module, x: list[torch.Tensor], steps: int) -> None:
    """The learned rounding of brevitas' flow for ImageNet with its settings, but for the number of steps (its
    1000 take too long here; the rate is higher by as much as they are fewer) and without mixed precision,
    which is for other machines."""
    import contextlib

    from brevitas_examples.common.learned_round import learned_round_trainer as trainer
    from brevitas_examples.imagenet_classification.ptq import learned_round_utils as flow

    settings = argparse.Namespace(
        learned_round="hard_sigmoid", learned_round_mode="layerwise", learned_round_iters=steps,
        learned_round_lr=1.0 / steps, learned_round_lr_scheduler=None, learned_round_batch_size=1,
        learned_round_loss="regularised_mse",
    )  # fmt: skip
    config = flow.parse_args_to_dataclass(settings)
    config.training_args.use_amp = False
    for loss in config.training_args.losses_args:
        loss.kwargs = loss.kwargs or {}
    # There is one device: nothing to spread over several.
    trainer.offload_model, trainer.remove_hooks = (lambda model: model), (lambda model: None)
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        trainer.LearnedRoundTrainer(config=config).train(
            model=peer,
            model_forward=flow.vision_forward,
            block_forward=flow.vision_block_forward,
            data_loader=[(batch, None) for batch in x],
            cache=flow.CacheVision(),
            get_blocks_fn=lambda model: trainer.get_blocks(model, flow.is_layer),
        )
    peer.eval()


def brevitas_layers(family: str, w: int, a: int, rule: str) -> dict[str, Any]:
    """What replaces what in ``brevitas.graph.quantize.quantize``."""
    import brevitas.nn as qnn
    from brevitas.core.function_wrapper.ops_ste import CeilSte
    from brevitas.quant import fixed_point as fp
    from brevitas.quant.float import (
        Fp8e4m3ActPerTensorFloat,
        Fp8e4m3ActPerTensorFloatMSE,
        Fp8e4m3WeightPerChannelFloat,
        Fp8e4m3WeightPerChannelFloatMSE,
    )

    mse = rule == "mse"
    if family == "integer":
        weight = fp.Int8WeightPerChannelFixedPointMSE if mse else fp.Int8WeightPerChannelFixedPoint
        signed = fp.Int8ActPerTensorFixedPointMSE if mse else fp.Int8ActPerTensorFixedPoint
        unsigned = fp.Uint8ActPerTensorFixedPointMSE if mse else fp.Uint8ActPerTensorFixedPoint
        weight = weight.let(bit_width=w)
        signed, unsigned = signed.let(bit_width=a), unsigned.let(bit_width=a)
    else:
        # The next power of two above, as for its integers; to the nearest, as it does by default, clips much.
        power = {"restrict_scaling_type": "power_of_two", "restrict_value_float_to_int_impl": CeilSte}
        weight = Fp8e4m3WeightPerChannelFloatMSE if mse else Fp8e4m3WeightPerChannelFloat
        signed = Fp8e4m3ActPerTensorFloatMSE if mse else Fp8e4m3ActPerTensorFloat
        weight = weight.let(**_minifloat(w), **power)
        signed = signed.let(**_minifloat(a), **power)
        # brevitas' minifloats only go with casts of each layer's operand: sums of two tensors stay in float
        # there.
        float_layer = {"weight_quant": weight, "input_quant": signed, "bias_quant": None}
        return {nn.Conv2d: (qnn.QuantConv2d, float_layer), nn.Linear: (qnn.QuantLinear, float_layer)}
    layer = {"weight_quant": weight, "bias_quant": None, "return_quant_tensor": False}
    cast, positive = ({"act_quant": q, "return_quant_tensor": True} for q in (signed, unsigned))
    return {
        "compute_layer_map": {nn.Conv2d: (qnn.QuantConv2d, layer), nn.Linear: (qnn.QuantLinear, layer)},
        "quant_act_map": {nn.ReLU: (qnn.QuantReLU, positive), nn.ReLU6: (relu6_class(), positive)},
        "quant_identity_map": {
            "signed": (qnn.QuantIdentity, cast), "unsigned": (qnn.QuantIdentity, positive),
        },
    }  # fmt: skip


def _minifloat(width: int) -> dict[str, int]:
    exponent = EXPONENTS[width]
    return {
        "bit_width": width, "exponent_bit_width": exponent, "mantissa_bit_width": width - 1 - exponent,
        "exponent_bias": 2 ** (exponent - 1) - 1,
    }  # fmt: skip


def relu6_class() -> type[nn.Module]:
    """ReLU6 and a cast as one brevitas layer: brevitas has none, and its own flow takes ReLU in its place,
    which is another float network."""
    from brevitas.nn.quant_layer import QuantNonLinearActLayer

    class Clamp(nn.Module):  # brevitas leaves a Hardtanh out in front of a cast, and ReLU6 is one to torch
        def __init__(self) -> None:  # brevitas' injection refuses the inherited one
            super().__init__()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clamp(0.0, 6.0)

    class QuantReLU6(QuantNonLinearActLayer):  # type: ignore[misc]
        def __init__(self, act_quant: Any, return_quant_tensor: bool = False, **options: Any) -> None:
            super().__init__(
                act_impl=Clamp,
                passthrough_act=True,
                input_quant=None,
                act_quant=act_quant,
                return_quant_tensor=return_quant_tensor,
                **options,
            )

    return QuantReLU6
