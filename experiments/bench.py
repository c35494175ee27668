"""Speed, as ratios measured side by side in one run: nothing here asserts anything.

    python -m experiments.bench          # or nox -s bench; a quarter of an hour on two cores

Prints, on a CPU, what every preset makes of the machine, and where the seconds of a step go; the train step with a time
field against the same network with one time for the image; the trainer against its bare step; images/s of sampling; the
train step against torch and diffusers where they are installed (`pip install torch diffusers` into the same
environment; they are no dependencies of this project); every law of training times against a train step of the 60M
network; and the preparation of photographs against the decoding of their files. On an accelerator, the train step
against torch and diffusers in bfloat16, and what the large presets make of the card; compiling a UNet for one takes
minutes.
"""

import dataclasses
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
import tyro
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from asyncpatch.losses import SiD2, denoising_loss
from asyncpatch.nn import (
    AbstractFieldNetwork,
    AbstractNetwork,
    AbstractNetworkConfig,
    NetworkDenoiser,
    UNetConfig,
    preset,
)
from asyncpatch.nn.layers import time_features
from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.process import AbstractDenoiser, Prediction
from asyncpatch.shapes import Image, Label, TimeField
from asyncpatch.timesteps import AbstractTimestepSampler, Synchronous
from asyncpatch.train import commit
from experiments.parts.bench_data import bench_preparation
from experiments.parts.bench_layers import flops, peak, print_layers, print_share, seconds_of
from experiments.parts.bench_sampling import bench_sampling
from experiments.parts.bench_trainer import bench_trainer
from experiments.parts.in_turns import ratio, side_by_side
from experiments.parts.laws import LAWS

PEER = UNetConfig(channels=1, num_classes=0, base=32, multipliers=(1, 2, 2), blocks=2, attention=(False,) * 3)
"""The shape that is compared with torch: no attention, as its implementations differ."""

CARD_PEER = UNetConfig(
    channels=3,
    num_classes=0,
    base=128,
    multipliers=(1, 2, 2, 3),
    blocks=2,
    attention=(False,) * 4,
    compute_dtype="bfloat16",
)
"""The same on an accelerator: the 60M UNet without attention."""

ON_CARD = {"600m-transformer": 64, "60m-transformer": 128, "60m": 128}
"""Presets that an accelerator is tried on, with the images of a step: transformers, which compile soonest, first."""

LAST_ON_CARD = {"600m": 64}
"""What compiles longest."""

CARD_SIDE = 8192
"""Of the matrices whose product says what an accelerator can do: far longer than it takes to start one."""


class OneTimeDenoiser(AbstractDenoiser):
    """The same network told one time for the whole image: what an ordinary diffusion model does."""

    network: AbstractNetwork
    schedule: RectifiedFlow

    @property
    def num_classes(self) -> int:
        return self.network.config.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        assert isinstance(self.network, AbstractFieldNetwork)
        velocity = self.network.from_features(z, time_features(t[:1, :1]), label)
        return Prediction.from_velocity(self.schedule, z, t, velocity)


def gradient_of(
    denoiser: AbstractDenoiser, batch: int, size: int, channels: int
) -> tuple[Callable[[PyTree, Array], tuple[Array, PyTree]], PyTree, Array]:
    """The loss and gradient on images at synchronous times, the weights and random images."""
    weights, rest = eqx.partition(denoiser, eqx.is_inexact_array)

    def loss(weights: PyTree, images: Float[Array, "batch height width channel"]) -> Float[Array, ""]:
        def image_loss(key: PRNGKeyArray, image: Image) -> Float[Array, ""]:
            time_key, noise_key = jr.split(key)
            t = Synchronous()(time_key, size, size)
            noise = jr.normal(noise_key, image.shape)
            return denoising_loss(eqx.combine(weights, rest), SiD2(), image, t, noise, jnp.asarray(-1))

        return jnp.mean(jax.vmap(image_loss)(jr.split(jr.key(1), batch), images))

    return jax.value_and_grad(loss), weights, jr.normal(jr.key(0), (batch, size, size, channels))


def train_step_of(denoiser: AbstractDenoiser, batch: int, size: int, channels: int) -> Callable[[], PyTree]:
    """A compiled Adam step, ready to be called again and again."""
    optimizer = optax.adam(1e-4)
    gradient, weights, images = gradient_of(denoiser, batch, size, channels)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights, moments):
        value, slope = gradient(weights, images)
        updates, moments = optimizer.update(slope, moments)
        return optax.apply_updates(weights, updates), moments, value

    weights = jax.tree.map(jnp.copy, weights)  # the step reuses them
    state = [weights, optimizer.init(weights)]

    def once():
        *state[:], value = step(*state)
        jax.block_until_ready(value)

    return once


def denoiser_of(config: AbstractNetworkConfig) -> NetworkDenoiser:
    """A network of this shape with fresh weights."""
    return NetworkDenoiser(network(config), RectifiedFlow())


def call_of(denoiser: NetworkDenoiser, size: int) -> Callable[[PyTree, Array], Array]:
    """One call of the network on a batch, all at one time, from its weights: as constants they would be compiled in."""
    rest = eqx.filter(denoiser, eqx.is_inexact_array, inverse=True)
    t = jnp.full((size, size), 0.5)

    def call(weights: PyTree, images: Float[Array, "batch height width channel"]) -> Array:
        net = eqx.combine(weights, rest).network
        return jax.vmap(net, in_axes=(0, None, None))(images, t, jnp.asarray(-1))

    return call


def bench_shares(batch: int, rounds: int) -> None:
    """The small presets' loss and gradient, and a call of the network, in FLOP/s."""
    best = peak()
    for name, size in {"digits": 8, "miniature": 32, "fashion": 32, "miniature-transformer": 32}.items():
        denoiser = denoiser_of(preset(name, 1, 10))
        gradient, weights, images = gradient_of(denoiser, batch, size, 1)
        print_share(f"loss and gradient, {name}, batch {batch}", best, gradient, weights, images, rounds=rounds)
        call = call_of(denoiser, size)
        print_share(f"network call, {name}, batch {batch}", best, call, weights, images, rounds=rounds)


def bench_card(batches: Mapping[str, int], side: int, size: int, rounds: int) -> None:
    """What presets make of an accelerator in bfloat16: the train step with Adam, and a call of the network.

    No block is computed again in the backward pass: a card with 80 GB has the memory for these batches.
    Shares are of a matrix product of this side, in the same run: of all that the step multiplies, and of three network
    calls.
    """
    best = peak("bfloat16", side)
    print(f"matrix product of {side}x{side} in bfloat16: {best / 1e12:.3g} TFLOP/s", flush=True)
    for name, batch in batches.items():
        config = dataclasses.replace(preset(name, 3, 10), compute_dtype="bfloat16", rematerialise=False)
        denoiser = denoiser_of(config)
        gradient, weights, images = gradient_of(denoiser, batch, size, 3)
        call = call_of(denoiser, size)
        done, model = flops(gradient, weights, images), flops(call, weights, images)
        calling = seconds_of(call, weights, images, rounds=rounds)
        step = train_step_of(denoiser, batch, size, 3)
        begun = time.perf_counter()
        step()
        compiling = time.perf_counter() - begun
        stepping = statistics.median(side_by_side({name: step}, rounds)[name])
        of_all, of_model, of_call = (
            f"{count / seconds / best:.0%}"
            for count, seconds in ((done, stepping), (3 * model, stepping), (model, calling))
        )
        print(
            f"{name} at {size}x{size}, batch {batch}: train step {1e3 * stepping:.1f} ms, {batch / stepping:.0f} "
            f"images/s, {of_all} of the product's FLOP/s, {of_model} for the model, the first after {compiling:.0f} s; "
            f"network call {1e3 * calling:.1f} ms, {of_call}",
            flush=True,
        )


def network(config: AbstractNetworkConfig) -> AbstractNetwork:
    return eqx.filter_jit(config.build)(jr.key(0))


def bench_time_field(name: str, size: int, channels: int, batch: int, rounds: int) -> None:
    """The price of a time for every pixel."""
    net = network(preset(name, channels, 10))
    seconds = side_by_side(
        {
            "field": train_step_of(NetworkDenoiser(net, RectifiedFlow()), batch, size, channels),
            "scalar": train_step_of(OneTimeDenoiser(net, RectifiedFlow()), batch, size, channels),
        },
        rounds,
    )
    print(f"train step, {name} at {size}x{size}, batch {batch}: field / scalar = {ratio(seconds, 'field', 'scalar')}")


def bench_laws(batch: int, rounds: int) -> None:
    """The price of drawing time fields at 64x64, per image, against the 60M network's train step."""
    step = train_step_of(denoiser_of(preset("60m", 3, 1000)), 2, 64, 3)
    per_image = min(side_by_side({"step": step}, 2)["step"]) / 2
    print(f"train step, 60m at 64x64: {per_image:.2f} s an image")
    keys = jr.split(jr.key(0), batch)
    draws = {name: partial(_draw, jax.jit(jax.vmap(partial(_field, law))), keys) for name, law in LAWS.items()}
    for name, seconds in side_by_side(draws, rounds).items():
        cost = statistics.median(seconds) / batch
        print(f"  {name:14s} {cost * 1e6:8.1f} us an image, {100 * cost / per_image:.3f}% of a train step")


def _field(law: AbstractTimestepSampler, key: PRNGKeyArray) -> TimeField:
    return law(key, 64, 64)


def _draw(compiled: Callable, keys: Key[Array, " batch"]) -> None:
    jax.block_until_ready(compiled(keys))


def bench_peers(config: UNetConfig, batch: int, size: int, rounds: int) -> None:
    """The train step against torch: our network written in torch, and diffusers' UNet of the same shape."""
    missing = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"torch and diffusers: not compared, as {' and '.join(missing)} cannot be imported")
        return
    from experiments.parts import bench_torch

    candidates = {
        "asyncpatch": train_step_of(denoiser_of(config), batch, size, config.channels),
        "torch": bench_torch.train_step_of(bench_torch.Twin(config), config, batch, size),
        "diffusers": bench_torch.train_step_of(bench_torch.DiffusersUNet(config), config, batch, size),
    }
    seconds = side_by_side(candidates, rounds)
    for name, times in seconds.items():
        print(f"train step, base {config.base}, {size}x{size}, batch {batch}, {name}: {statistics.median(times):.3f} s")
    for peer in ("torch", "diffusers"):
        print(f"  asyncpatch / {peer} = {ratio(seconds, 'asyncpatch', peer)}")


def main(rounds: int = 15, batch: int = 16) -> None:
    """Print all ratios.

    Args:
        rounds: calls of each candidate after the first.
        batch: images of a train step.
    """
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}, commit {commit()}")
    if jax.default_backend() != "cpu":
        bench_card(ON_CARD, CARD_SIDE, 64, rounds)
        bench_peers(CARD_PEER, 128, 64, rounds)
        bench_card(LAST_ON_CARD, CARD_SIDE, 64, rounds)
        return
    bench_shares(batch, rounds)
    for images in (batch, 4 * batch):
        layers = gradient_of(denoiser_of(preset("fashion", 1, 10)), images, 32, 1)
        print_layers(f"layers of fashion, batch {images}", *layers)
    bench_time_field("fashion", 32, 1, batch, rounds)
    bench_time_field("digits", 8, 1, 4 * batch, 2 * rounds)
    bench_time_field("miniature-transformer", 32, 1, batch, rounds)
    for name, size in (("digits", 8), ("miniature", 32)):
        for images in (16, 64):
            bench_trainer(name, size, images, 8 * rounds)
    bench_sampling((4, 16, 64), max(2, rounds // 5))
    for images in (batch, 4 * batch):
        bench_peers(PEER, images, 32, max(3, rounds // 2))
    bench_laws(64, rounds)
    bench_preparation()


if __name__ == "__main__":
    tyro.cli(main)
