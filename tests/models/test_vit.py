"""The vision transformer: torchvision's names, attention by hand, and the way to the graph."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import qfx
from qfx import models, ptq
from qfx.models.vit import VisionTransformer


def small() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(32, 16, 2, 2, 16, 32, 5).eval()


def test_names_and_shapes_are_torchvisions() -> None:
    """Those of ``vit_b_32-d86f8d99.pth``, without its numbers."""
    with torch.device("meta"):
        found = {name: tuple(v.shape) for name, v in models.vit_b_32().state_dict().items()}
    block = {
        "ln_1.weight": (768,), "ln_1.bias": (768,),
        "self_attention.in_proj_weight": (2304, 768), "self_attention.in_proj_bias": (2304,),
        "self_attention.out_proj.weight": (768, 768), "self_attention.out_proj.bias": (768,),
        "ln_2.weight": (768,), "ln_2.bias": (768,),
        "mlp.0.weight": (3072, 768), "mlp.0.bias": (3072,), "mlp.3.weight": (768, 3072), "mlp.3.bias": (768,),
    }  # fmt: skip
    expected = {
        "class_token": (1, 1, 768), "conv_proj.weight": (768, 3, 32, 32), "conv_proj.bias": (768,),
        "encoder.pos_embedding": (1, 50, 768), "encoder.ln.weight": (768,), "encoder.ln.bias": (768,),
        "heads.head.weight": (1000, 768), "heads.head.bias": (1000,),
        **{f"encoder.layers.encoder_layer_{i}.{n}": s for i in range(12) for n, s in block.items()},
    }  # fmt: skip
    assert found == expected


def by_hand(w: dict[str, torch.Tensor], x: torch.Tensor, heads: int) -> torch.Tensor:
    """The formulas of the paper, in float64, from a state dict."""
    patch = w["conv_proj.weight"].shape[-1]
    n, _, size, _ = x.shape
    side = size // patch
    patches = x.reshape(n, 3, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5).reshape(n, side * side, -1)
    tokens = patches @ w["conv_proj.weight"].flatten(1).T + w["conv_proj.bias"]
    y = torch.cat([w["class_token"].expand(n, -1, -1), tokens], 1) + w["encoder.pos_embedding"]

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return y * w[f"{name}.weight"] + w[f"{name}.bias"]

    for i in range(sum("ln_1.weight" in name for name in w)):
        at = f"encoder.layers.encoder_layer_{i}"
        z = norm(y, f"{at}.ln_1")
        z = z @ w[f"{at}.self_attention.in_proj_weight"].T + w[f"{at}.self_attention.in_proj_bias"]
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in z.chunk(3, 2))
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        z = (scores @ v).transpose(1, 2).flatten(2)
        y = y + z @ w[f"{at}.self_attention.out_proj.weight"].T + w[f"{at}.self_attention.out_proj.bias"]
        z = F.gelu(norm(y, f"{at}.ln_2") @ w[f"{at}.mlp.0.weight"].T + w[f"{at}.mlp.0.bias"])
        y = y + z @ w[f"{at}.mlp.3.weight"].T + w[f"{at}.mlp.3.bias"]
    return norm(y, "encoder.ln")[:, 0] @ w["heads.head.weight"].T + w["heads.head.bias"]


def test_against_the_formulas() -> None:
    model = small().double()
    for values in model.parameters():
        values.data.add_(0.1 * torch.randn_like(values))
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), by_hand(dict(model.state_dict()), x, 2))


def test_weights_from_a_file(tmp_path: Path) -> None:
    source, target = small(), VisionTransformer(32, 16, 2, 2, 16, 32, 5).eval()
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    models.load_weights(target, tmp_path / "vit.pth")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(source(x), target(x))


@pytest.mark.parametrize("methods", [(), ("activation_equalization", "gptq")])
def test_to_the_graph(methods: tuple[str, ...]) -> None:
    model, x = small(), torch.randn(6, 3, 32, 32)
    q = ptq.quantize(model, [x], qfx.Config(per_channel=True), methods, progress=False)
    graph = qfx.freeze(q)
    with torch.no_grad():
        y, wanted = q(x), model(x)
    assert (y.double().numpy() == graph.run(x.numpy())).all()
    assert float((y - wanted).square().sum() / wanted.square().sum()) < 0.05


def test_image_and_patch_must_fit() -> None:
    with pytest.raises(qfx.QfxError, match="no whole number of patches of 16"):
        VisionTransformer(40, 16, 1, 1, 8, 8)
