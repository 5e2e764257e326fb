"""Vision transformer ViT-B/32 (A. Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from qfx.errors import QfxError

_EPS = 1e-6


class EncoderBlock(nn.Module):
    """Attention and a multilayer perceptron, each behind a LayerNorm and beside a shortcut."""

    def __init__(self, heads: int, width: int, inner: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=_EPS)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=_EPS)
        # The places between the linear layers are those of torchvision: dropout stands at 2 and 4.
        self.mlp = nn.Sequential(
            nn.Linear(width, inner), nn.GELU(), nn.Dropout(0.0), nn.Linear(inner, width), nn.Dropout(0.0)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.ln_1(x)
        y, _ = self.self_attention(y, y, y, need_weights=False)
        x = x + y
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    """Position embedding, blocks, and a LayerNorm."""

    def __init__(self, tokens: int, layers: int, heads: int, width: int, inner: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, tokens, width).normal_(std=0.02))
        blocks: OrderedDict[str, nn.Module] = OrderedDict(
            (f"encoder_layer_{i}", EncoderBlock(heads, width, inner)) for i in range(layers)
        )
        self.layers = nn.Sequential(blocks)
        self.ln = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ln(self.layers(x + self.pos_embedding))


class VisionTransformer(nn.Module):
    """Input ``(batch, 3, size, size)``, output ``(batch, classes)``; names as in torchvision.

    Args:
        size: height and width of the image, a multiple of ``patch``.
        patch: height and width of a patch.
        layers, heads, width, inner: blocks, attention heads, features, features inside of a perceptron.
        classes: outputs.

    Raises:
        QfxError: the image is no whole number of patches.
    """

    def __init__(
        self, size: int, patch: int, layers: int, heads: int, width: int, inner: int, classes: int = 1000
    ) -> None:
        super().__init__()
        if size % patch:
            raise QfxError(f"VisionTransformer: an image of {size} has no whole number of patches of {patch}")
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder = Encoder((size // patch) ** 2 + 1, layers, heads, width, inner)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, classes)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv_proj(x).flatten(2).permute(0, 2, 1)
        first = self.class_token.expand(x.shape[0], -1, -1)
        return self.heads(self.encoder(torch.cat([first, tokens], dim=1))[:, 0])


def vit_b_32(classes: int = 1000) -> VisionTransformer:
    """ViT-B/32 for 224x224 images: 88.2 million parameters."""
    return VisionTransformer(224, 32, 12, 12, 768, 3072, classes)
