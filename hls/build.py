"""hls4ml's model of a list of layers: our kernels registered, every type explicit, every pass chosen.

The only module that imports hls4ml. The flows that hls4ml runs by default infer and rewrite types; here
only the passes run that a design with every type given needs, so nothing can change what
:mod:`qfx.hls.lowering` decided. That is checked at the end.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from qfx.errors import QfxError
from qfx.hls.carriers import CType
from qfx.hls.kernels import INDEX, REUSE, headers
from qfx.hls.layers import LayerSpec

with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    warnings.simplefilter("ignore")
    from hls4ml.backends import get_backend
    from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
    from hls4ml.model.flow import register_flow
    from hls4ml.model.graph import ModelGraph
    from hls4ml.model.layers import Layer, register_layer
    from hls4ml.model.types import IntegerPrecisionType

BACKENDS = ("Vitis", "Vivado")
#: Name of the top-level function and of hls4ml's project.
TOP = "qfx_top"


class QfxKernel(Layer):
    """A layer whose C++ comes from ``kernels/*.h``, with a configuration struct from the lowering."""

    def initialize(self) -> None:
        self.add_output_variable(self.attributes["target_shape"])
        for name in ("weight", "bias"):
            data = self.get_attr(f"{name}_data")
            if data is not None:
                precision = IntegerPrecisionType(self.attributes[f"{name}_width"], signed=True)
                self.add_weights_variable(
                    name, var_name=f"{name[0]}{{index}}", type_name=f"{name}{{index}}_t", precision=precision
                )


class _KernelConfig(LayerConfigTemplate):
    def __init__(self) -> None:
        super().__init__(QfxKernel)

    def format(self, node: Any) -> str:
        reuse = str(node.get_attr("reuse_factor", 1))
        return str(node.get_attr("struct")).replace(INDEX, str(node.index)).replace(REUSE, reuse)


class _KernelCall(FunctionCallTemplate):
    def __init__(self) -> None:
        super().__init__(QfxKernel)

    def transform(self, model: Any, node: Any) -> bool:
        super().transform(model, node)
        node.set_attr("include_header", [f"nnet_utils/{node.get_attr('header')}"])
        return False

    def format(self, node: Any) -> str:
        function, *operator = str(node.get_attr("function")).split(", ")
        operands = [node.get_input_variable(name) for name in node.inputs]
        result = node.get_output_variable()
        types = [*(v.type.name for v in (*operands, result)), f"config{node.index}", *operator]
        return f"{function}<{', '.join(types)}>({', '.join(v.name for v in (*operands, result))});"


@cache
def _register() -> None:
    register_layer("QfxKernel", QfxKernel)
    for name in BACKENDS:
        backend = get_backend(name)
        backend.register_template(_KernelConfig)
        backend.register_template(_KernelCall)


@cache
def _flows(name: str) -> tuple[str, str]:
    """The flows that prepare and write a model for a backend."""
    _register()
    vivado, backend = get_backend("Vivado"), get_backend(name)
    passes = [
        *vivado._get_layer_initializers(),
        "vivado:inplace_stream_flatten",
        "vivado:optimize_pointwise_conv",
        "vivado:inplace_parallel_reshape",
        "vivado:transform_types",
        "vivado:apply_resource_strategy",
        "vivado:generate_conv_im2col",
        "vivado:set_pipeline_style",
    ]
    templates = [t for t in vivado._get_layer_templates() if "qfxkernel" not in t]
    templates += backend._get_layer_templates()
    prepare = register_flow(f"qfx_{name.lower()}_prepare", passes + list(dict.fromkeys(templates)))
    write = register_flow(f"qfx_{name.lower()}_write", ["make_stamp", f"{name.lower()}:write_hls"])
    return prepare, write


def build(
    layers: list[LayerSpec],
    folder: Path,
    *,
    backend: str,
    io_type: str,
    part: str,
    period_ns: float,
    reuse_factor: dict[str, int],
    strategy: dict[str, str],
) -> tuple[Any, list[str]]:
    """hls4ml's model of the layers, ready to be written to ``folder``, and what hls4ml remarked."""
    prepare, _ = _flows(backend)
    config = get_backend(backend).create_initial_config(part=part, clock_period=period_ns, io_type=io_type)
    config["Backend"] = backend
    config["ProjectName"] = TOP
    config["OutputDir"] = str(folder)
    config["TraceOutput"] = True
    names = {}
    for layer in layers:
        # Every role gets a type; a role that a layer does not have is ignored.
        precision = {role: str(t) for role, t in layer.types.items()}
        names[layer.name] = {
            "Precision": {**precision, "default": precision["result"]},
            "ReuseFactor": reuse_factor.get(layer.name, 1),
            "Strategy": strategy.get(layer.name, "Latency"),
            "Trace": layer.traced,
        }
    style = "dataflow" if io_type == "io_stream" or _needs_dataflow(layers, strategy) else "pipeline"
    config["HLSConfig"] = {
        "Model": {
            "Precision": "ap_fixed<16,6>",
            "ReuseFactor": 1,
            "Strategy": "Latency",
            "BitExact": False,
            "PipelineStyle": style,
        },
        "LayerName": names,
        "Flows": [prepare],
    }  # fmt: skip
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore")
        model = ModelGraph.from_layer_list(
            config,
            [_layer_dict(layer) for layer in layers],
            inputs=[layers[0].name],
            outputs=[layers[-1].name],
        )
    _check_types(model, layers)
    return model, [line.removeprefix("WARNING: ") for line in printed.getvalue().splitlines() if line.strip()]


def write(model: Any, backend: str) -> None:
    """Write hls4ml's project; our kernel headers travel with it."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model.apply_flow(_flows(backend)[1])
    folder = Path(model.config.get_output_dir())
    for header in headers():
        shutil.copyfile(header, folder / "firmware" / "nnet_utils" / header.name)


def _needs_dataflow(layers: list[LayerSpec], strategy: dict[str, str]) -> bool:
    """Loops over pixels must not be unrolled into one pipeline, nor time-shared multipliers."""
    windows = ("Conv", "MaxPooling")
    return any(
        layer.class_name.startswith(windows) or "sliding" in layer.attributes.get("function", "")
        for layer in layers
    ) or any(s.lower() != "latency" for s in strategy.values())


def _layer_dict(layer: LayerSpec) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": layer.name,
        "class_name": layer.class_name,
        "inputs": list(layer.inputs),
        "outputs": list(layer.outputs),
    }
    result |= {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in layer.attributes.items()}
    if layer.class_name in ("QfxKernel", "Repack"):
        result["target_shape"] = list(layer.shape)
        for name in ("weight", "bias"):
            if name in layer.types:
                result[f"{name}_width"] = layer.types[name].width
    return result


def _check_types(model: Any, layers: list[LayerSpec]) -> None:
    """Every type and shape in hls4ml's model is the one that was asked for."""
    for layer in layers:
        node = model.graph.get(layer.name)
        if node is None:
            raise QfxError(
                f"hls: hls4ml has removed layer {layer.name}: a defect of QFX, or another version of hls4ml"
            )
        for output in layer.outputs:
            variable = node.get_output_variable(output)
            found, wanted = _described(variable.type.precision), _wanted(layer.types["result"])
            # Reshapes and padding have the type of their operand, with modes that never act.
            copied = layer.class_name in ("Reshape", "ZeroPadding1D", "ZeroPadding2D")
            same = found[:3] == wanted[:3] if copied else found == wanted
            shape = tuple(variable.shape)
            if not same or shape != tuple(layer.shape):
                raise QfxError(
                    f"hls: hls4ml made {found}, shape {shape} of layer {layer.name}, "
                    f"wanted {wanted}, shape {layer.shape}"
                )
        for role in ("weight", "bias", "scale"):
            if role in layer.types:
                found, wanted = _described(node.weights[role].type.precision), _wanted(layer.types[role])
                if found[:3] != wanted[:3]:
                    raise QfxError(
                        f"hls: hls4ml made {found} the {role} type of layer {layer.name}, wanted {wanted}"
                    )
        accum = layer.types.get("accum")
        if accum is not None and _described(node.get_attr("accum_t").precision) != _wanted(accum):
            raise QfxError(f"hls: hls4ml changed the accumulator type of layer {layer.name}")


def _described(precision: Any) -> tuple[int, int, bool, str, str]:
    return (
        precision.width,
        precision.fractional,
        bool(precision.signed),
        str(precision.rounding_mode),
        str(precision.saturation_mode),
    )


def _wanted(ctype: CType) -> tuple[int, int, bool, str, str]:
    return (ctype.width, ctype.frac, ctype.signed, ctype.rounding, ctype.overflow)
