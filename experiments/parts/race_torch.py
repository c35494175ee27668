"""diffusers' UNet in the race, trained in torch. Imported where torch and diffusers are installed."""

import copy
import time
from collections.abc import Iterator

import diffusers
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import torch
from torch import nn

from asyncpatch.losses import SiD2
from asyncpatch.process import corrupt
from asyncpatch.runs import Experiment, open_batches
from asyncpatch.train.state import validation_key

WARM_UP = 3
"""Steps that are not timed: allocations and the choice of kernels."""


class Peer(nn.Module):
    """`UNet2DModel` of base 32 on full resolution, with attention on the lowest of three levels, and class labels."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.null = num_classes
        self.net = diffusers.UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            attention_head_dim=32,
            norm_num_groups=16,
            num_class_embeds=num_classes + 1,
        )

    def forward(self, z, t, label):
        return self.net(z, 1000 * t, class_labels=torch.where(label < 0, self.null, label)).sample


def weight(t: torch.Tensor, bias: float) -> torch.Tensor:
    """SiD2's weight of the squared velocity error under rectified flow."""
    odds = float(np.exp(bias))
    return 2 * odds * t * (1 - t) / ((1 - t) ** 2 + odds * t**2)


def judged_batches(experiment: Experiment, count: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Noisy image, time, velocity and label of held-out images, as our own validation draws them."""
    _, held_out = open_batches(experiment, 0)

    def draw(key, index, image):
        time_key, noise_key = jr.split(jr.fold_in(key, index))
        t = experiment.timesteps(time_key, *image.shape[:2])
        noise = jr.normal(noise_key, image.shape)
        return corrupt(experiment.schedule, image, t, noise), t[0, 0], noise - image

    drawn = jax.jit(jax.vmap(draw, in_axes=(None, 0, 0)))
    size = experiment.data.batch_size
    for number in range(count // size):
        batch = held_out.batch(number)
        key = validation_key(experiment.training, jnp.int32(number))
        parts = drawn(key, jnp.arange(size), jnp.asarray(batch["image"]))
        yield (*map(np.asarray, parts), batch["label"])


def run_peer(
    experiment: Experiment, average_decay: float, seconds: float, cooldown: float, judged: int, looks: int
) -> list[dict]:
    """Train for so many seconds, and judge the averaged weights `looks` times.

    The rate falls to 0 over the share `cooldown` of them, at the end, and the average then is no longer than what is
    left, as in our own trainer.
    """
    config = experiment.training.optimizer
    rate = config.learning_rate
    torch.manual_seed(experiment.training.seed)
    net = Peer(experiment.data.shape[2], experiment.network.num_classes)
    averaged = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.99), eps=1e-12)
    bias = SiD2().bias
    validation = [tuple(map(torch.tensor, parts)) for parts in judged_batches(experiment, judged)]
    batches = open_batches(experiment, 0)[0].iterate(0)
    seen, spent, step = [], 0.0, 0

    def update(batch) -> None:
        images = torch.tensor(batch["image"]).permute(0, 3, 1, 2).contiguous()
        label = torch.tensor(batch["label"]).long()
        label = torch.where(torch.rand(len(label)) < experiment.training.label_dropout, -1, label)
        t, noise = torch.rand(len(label)), torch.randn_like(images)
        at = t[:, None, None, None]
        error = (net((1 - at) * images + at * noise, t, label) - (noise - images)).square()
        loss = (weight(at, bias) * error).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        left = max(0.0, 1 - spent / seconds)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / config.warmup_steps, left / cooldown)
        optimizer.step()
        decay = min(average_decay, (1 + step) / (10 + step))
        if left < cooldown:
            decay = min(decay, 1 - 1 / max(1.0, left / (1 - left) * step))
        with torch.no_grad():
            for average, value in zip(averaged.parameters(), net.parameters(), strict=True):
                average.lerp_(value, 1 - decay)

    while len(seen) < looks:
        batch = next(batches)
        begun = time.perf_counter()
        update(batch)
        spent += (time.perf_counter() - begun) * (step >= WARM_UP)
        step += 1
        if spent >= seconds * (len(seen) + 1) / looks:
            loss = judge(averaged, validation, bias)
            seen.append({"seconds": round(spent, 1), "images": step * experiment.data.batch_size, "loss": loss})
    batches.close()
    return seen


@torch.no_grad()
def judge(net: Peer, validation: list[tuple[torch.Tensor, ...]], bias: float) -> float:
    """The weighted velocity error of held-out images."""
    losses = []
    for z, t, velocity, label in validation:
        made = net(z.permute(0, 3, 1, 2), t, label.long()).permute(0, 2, 3, 1)
        losses.append(float((weight(t, bias)[:, None, None, None] * (made - velocity).square()).mean()))
    return float(np.mean(losses))
