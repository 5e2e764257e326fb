"""The network that the training tests share; as a script, one process of a distributed training."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx import Config, FixedPoint
from qfx.learn import QuantizedModel


class Net(nn.Module):
    """Convolution, BatchNorm, a residual sum, pooling, a linear layer."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.conv1 = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.fc = nn.Linear(channels * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(self.conv2(self.conv1(x)) + x)
        return self.fc(torch.flatten(F.max_pool2d(x, 2), 1))


FOUR_BITS = Config(weight=FixedPoint(4), activation=FixedPoint(4), input=FixedPoint(5, 4, signed=False))


#: Sums of these need most of float32's mantissa, and much more than bfloat16's.
WIDE = Config(weight=FixedPoint(8), activation=FixedPoint(9), input=FixedPoint(9), output=FixedPoint(20))


def net(config: Config = FOUR_BITS, seed: int = 0) -> QuantizedModel:
    torch.manual_seed(seed)
    model = Net()
    x = images(64)
    model.train()(x)
    return qfx.calibrate(qfx.prepare(model, x[:2], config), [x])


def images(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(samples, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def step(q: nn.Module, optimizer: torch.optim.Optimizer, seed: int, samples: int = 32) -> float:
    x = images(samples, seed)
    labels = x.flatten(1)[:, :10].argmax(1)
    optimizer.zero_grad()
    loss = F.cross_entropy(q(x), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def joined_steps(model: nn.Module, optimizer: torch.optim.Optimizer, part: slice) -> None:
    """Four steps on a part of four batches."""
    for seed in range(4):
        x, labels = images(32, seed)[part], (torch.arange(32) % 10)[part]
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()


def rank(number: int, world: int, folder: str) -> None:
    """One process: its share of every batch, and the result written by the first."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=world
    )
    q = net().train()
    ddp = nn.parallel.DistributedDataParallel(q)
    joined_steps(ddp, torch.optim.SGD(ddp.parameters(), lr=0.05, momentum=0.9), slice(number, None, world))
    if number == 0:
        torch.save(q.state_dict(), f"{folder}/state.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
