"""Training runs of test_scale.py, as scripts: one that is killed and goes on, and one process of several."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from networks import Net, images

import qfx
from qfx import Config, FixedPoint
from qfx.learn import average_points, load_checkpoint, points, save_checkpoint

STEPS, EVERY, FREEZE = 40, 3, 25
# Stochastic rounding draws from torch's generator in every step.
CONFIG = Config(
    weight=FixedPoint(4),
    activation=FixedPoint(5),
    batch_norm="keep",
    input=FixedPoint(5, 4, signed=False),
    overrides={"conv1.*": {"estimator": "stochastic"}},
)


def train(folder: str) -> None:
    """Steps, and a checkpoint every few of them; goes on from one that is there. Writes the final state."""
    torch.set_num_threads(1)
    path = Path(folder, "checkpoint.pt")
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    q = qfx.prepare(Net(), images(2), CONFIG)
    resumed = path.exists()
    if not resumed:
        qfx.calibrate(q, [images(64)])
    q.train()
    optimizer = torch.optim.AdamW(qfx.parameter_groups(q, lr=1e-2))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    order = torch.Generator().manual_seed(5)
    parts = {"optimizer": optimizer, "schedule": schedule, "order": order}
    first = load_checkpoint(path, q, parts)["step"] if resumed else 0
    print("resumed at" if resumed else "started at", first, flush=True)
    data, labels = images(256), torch.arange(256) % 10
    for n in range(first, STEPS):
        if n == FREEZE:
            qfx.freeze_points(q)
        chosen = torch.randint(256, (16,), generator=order)
        noise = 0.01 * torch.randn(1) + 0.01 * random.random() + 0.01 * float(np.random.rand())
        optimizer.zero_grad()
        F.cross_entropy(q(data[chosen] + noise), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
        if (n + 1) % EVERY == 0:
            save_checkpoint(path, q, parts, {"step": n + 1})
        print("step", n + 1, flush=True)
    torch.save({"model": q.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder, "final.pt"))


def sharded(number: int, world: int, folder: str) -> None:
    """One process of training with FSDP2: its share of every batch, and the result written by the first."""
    from networks import net
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=world
    )
    q = net().train()
    mesh, whole = init_device_mesh("cpu", (world,)), set(points(q))
    for name in ("conv1.0", "fc"):
        fully_shard(q.get_submodule(name), mesh=mesh, ignored_params=whole)
    fully_shard(q, mesh=mesh, ignored_params=whole)
    optimizer = torch.optim.SGD(q.parameters(), lr=0.05, momentum=0.9)
    for seed in range(4):
        part = slice(number, None, world)
        x, labels = images(32, seed)[part], (torch.arange(32) % 10)[part]
        optimizer.zero_grad()
        F.cross_entropy(q(x), labels).backward()
        average_points(q)
        optimizer.step()
    state = get_model_state_dict(q, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if number == 0:
        torch.save(state, Path(folder, "state.pt"))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2])
    else:
        sharded(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
