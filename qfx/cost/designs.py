"""Random networks as hardware designs: the cost table is measured on some, and tested on others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qfx.errors import QfxError

if TYPE_CHECKING:
    from torch import nn

    from qfx.graph import Graph

#: Families of number formats that take turns.
TURNS = ("integer", "minifloat", "khot")
#: Families with numbers of their own: MX formats, 8-bit weights and activations (what :class:`qfx.Config` is
#: when nothing is said, with DSP blocks in all layers), and networks of integers with activation tables,
#: softmax, LayerNorm or attention.
APART = ("mx", "int8", "functions")
FAMILIES = (*TURNS, *APART)
#: Networks of families that take turns to one of each family apart.
SHARE = 4


class Drawn(NamedTuple):
    """A random network.

    Attributes:
        number: by which it is drawn again.
        family: of its number formats, one of :data:`FAMILIES`.
        graph: frozen.
        arguments: for :func:`qfx.rtl.generate`.
    """

    number: int
    family: str
    graph: Graph
    arguments: dict[str, Any]


def draw(seed: int, index: int, families: Sequence[str] = FAMILIES) -> Drawn:
    """Network ``index`` of a seed, with random weights.

    A multilayer perceptron or a small convolutional network: 1 or 2 layers before the last, shortcuts,
    depthwise convolutions, pooling, BatchNorm folded or kept; formats of one family, 2 to 8 bits; folded for
    an interval of 2 to 20 times the default. Those of family ``functions`` have nonlinear functions that are
    tables, a softmax or LayerNorm, or are an attention block; those and ``int8`` are folded for 1 to 20 times
    the default.

    Raises:
        QfxError: what was drawn has no hardware, or is dead, so that synthesis leaves next to nothing of it;
            :func:`designs` draws again.
    """
    import torch

    import qfx
    from qfx.sweep import names

    rng = np.random.default_rng([seed, index])
    # Every other network has integers, where they are wanted; the others take turns.
    others = [name for name in families if name != "integer"]
    whole = "integer" in families and (index % 2 == 0 or not others)
    family = "integer" if whole else others[(index // 2 if "integer" in families else index) % len(others)]
    width, other = (int(rng.integers(2 if family == "integer" else 3, 9)) for _ in range(2))
    if family == "integer":
        weight, activation = names.parse(f"int{width}"), names.parse(f"int{other}")
    elif family == "int8":
        weight = activation = names.parse("int8")
    elif family == "functions":
        weight, activation = (names.parse(f"int{rng.integers(4, 9)}") for _ in range(2))
    elif family == "khot":
        weight = names.parse(str(rng.choice(names.khots([width]))))
        activation = names.parse(f"int{other}")
    else:
        weight = activation = names.parse(str(rng.choice(names.formats([family], range(4, 9)))))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(1 << 31)))
        if family == "functions":
            model, shape = _functions(rng)
        else:
            model, shape = _mlp(rng) if rng.random() < 0.4 else _cnn(rng)
        x = torch.rand(16, *shape)
        _settle(model, x)
        config = qfx.Config(
            weight=weight,
            activation=activation,
            input=qfx.FixedPoint(
                8 if family in ("int8", "functions") else int(rng.integers(2, 9)), None, signed=False
            ),
            per_channel=bool(family != "mx" and rng.random() < 0.5),
            batch_norm=str(rng.choice(["fold", "keep"])),
        )
        q = qfx.prepare(model, x[:1], config)
        qfx.calibrate(q, [x], progress=False)
        graph = qfx.freeze(q)
    y = graph.run(x.numpy())
    if (y == y[:1]).all():
        raise QfxError(f"cost: network {index} of seed {seed} is dead: its result is the same for all inputs")
    least = qfx.rtl.plan(graph).interval
    fastest = 1 if family in ("int8", "functions") else 2
    interval = int(least * np.exp(rng.uniform(np.log(fastest), np.log(20))))
    return Drawn(index, family, graph, {"interval": interval})


def designs(seed: int, count: int, families: Sequence[str] = FAMILIES) -> Iterator[Drawn]:
    """``count`` networks; what has no hardware is skipped."""
    index = found = 0
    while found < count:
        try:
            drawn = draw(seed, index, families)
        except QfxError:
            index += 1
            continue
        yield drawn
        index, found = index + 1, found + 1


def mixture(seed: int, count: int, families: Sequence[str] = FAMILIES) -> Iterator[Drawn]:
    """``count`` networks of the families that take turns, and for every :data:`SHARE` of them one more of
    each family apart; numbers of these are counted anew. Of families apart alone, ``count`` of each."""
    turns = [family for family in families if family in TURNS]
    if turns:
        yield from designs(seed, count, turns)
    for family in APART:
        if family in families:
            yield from designs(seed, count // SHARE if turns else count, (family,))


def _mlp(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    from torch import nn

    sizes = [int(8 * rng.integers(1, 5)) for _ in range(int(rng.integers(2, 4)))] + [int(rng.integers(2, 11))]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), *([nn.BatchNorm1d(outputs)] if rng.random() < 0.3 else [])]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers[:-1]), (sizes[0],)


def _cnn(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    from torch import nn

    channels, size = int(rng.integers(1, 4)), int(rng.integers(6, 11))
    shape = (channels, size, size)
    layers: list[nn.Module] = []
    for _ in range(int(rng.integers(1, 3))):
        out = int(4 * rng.integers(1, 4))
        stride = int(rng.choice([1, 1, 2])) if size > 4 else 1
        kernel = int(rng.choice([1, 3, 3]))
        layers.append(nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=bool(rng.random() < 0.5)))
        if rng.random() < 0.5:
            layers.append(nn.BatchNorm2d(out))
        layers.append(nn.ReLU())
        channels, size = out, (size + 2 * (kernel // 2) - kernel) // stride + 1
        if rng.random() < 0.25:
            layers.append(_Shortcut(channels))
        elif rng.random() < 0.25:
            layers += [nn.Conv2d(channels, channels, 3, 1, 1, groups=channels), nn.ReLU()]
        if size >= 4 and rng.random() < 0.5:
            layers.append(nn.MaxPool2d(2) if rng.random() < 0.7 else nn.AvgPool2d(2))
            size //= 2
    layers += [nn.Flatten(), nn.Linear(channels * size * size, int(rng.integers(2, 17)))]
    return nn.Sequential(*layers), shape


def _functions(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    from torch import nn

    if rng.random() < 0.3:
        width = int(8 * rng.integers(1, 4))
        return _Attention(width, int(rng.choice([1, 2]))), (int(rng.integers(4, 9)), width)
    functions = (nn.GELU, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.Hardswish, nn.ELU)
    sizes = [int(8 * rng.integers(1, 5)) for _ in range(int(rng.integers(2, 4)))] + [int(rng.integers(2, 11))]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), *([nn.LayerNorm(outputs)] if rng.random() < 0.3 else [])]
        layers.append(functions[int(rng.integers(len(functions)))]())
    if rng.random() < 0.3:
        layers[-1] = nn.Softmax(-1)
    return nn.Sequential(*layers), (sizes[0],)


def _Attention(width: int, heads: int) -> nn.Module:  # noqa: N802
    from torch import nn

    class Attention(nn.Module):
        """The first half of a transformer's block."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

        def forward(self, x: Any) -> Any:
            y = self.norm(x)
            return x + self.attention(y, y, y, need_weights=False)[0]

    return Attention()


def _Shortcut(channels: int) -> nn.Module:  # noqa: N802
    from torch import nn

    class Shortcut(nn.Module):
        """``relu(x + conv(x))``."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(x + self.conv(x))

    return Shortcut()


def _settle(model: nn.Module, x: Any) -> None:
    """Statistics of BatchNorm, with the spread that training gives its scales."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    model.train()
    model(x)
    model.eval()
