"""Compiling for a slice of TPU chips on a machine without one.

Google's compiler comes as the package `libtpu`, and needs no chip to compile for one. It says what a program needs and
what it moves, and refuses one that does not fit. What it cannot say is how fast the program is.
"""

import dataclasses
import importlib.util
import os
import re
import time
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from experiments.parts.chips import GIB

INSTALL = 'pip install "jax[tpu]" in an environment of its own, or nox -s compile_tpu'

ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v6e-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What the compiler would ask a cloud machine for, and wait for without end; two processes may use it at a time."""


REFUSALS = (
    r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)",
    r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm",
)
"""How compilers of now and of earlier releases say what a chip would need and what it has."""


class DoesNotFitError(RuntimeError):
    """A program needs more memory than a chip has."""

    def __init__(self, needed: float, there: float):
        super().__init__(f"needs {needed / GIB:.1f} GiB a chip, and {there / GIB:.1f} are there")
        self.needed, self.there = needed, there


def compile_here() -> None:
    """Let this process compute on the CPU, whatever chips it has. Raises `ModuleNotFoundError` without the compiler."""
    if importlib.util.find_spec("libtpu") is None:
        raise ModuleNotFoundError(f"the compiler for TPUs (libtpu) is not installed; {INSTALL}")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")


def devices_of(topology: str) -> Sequence[jax.Device]:
    """The chips of a topology such as `v6e:8x8`. Raises `ValueError` for one that the compiler does not know."""
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{topology!r} is no slice that can be compiled for ({error}); name one such as v6e:8x8"
        ) from None


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program, of one device."""

    text: str
    peak_bytes: int
    argument_bytes: int
    xla_flops: float
    """By XLA's own count, in which a loop's body counts once."""
    seconds: float
    """Of processors, that it took to compile."""


def compile_program(lowered: jax.stages.Lowered) -> Program:
    """Compile for the devices of the arguments' shardings. Raises `DoesNotFitError`."""
    begun = time.process_time()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise does_not_fit(str(error)) or error from None
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    text = compiled.as_text()
    assert memory is not None
    assert text is not None
    return Program(
        text,
        memory.peak_memory_in_bytes,
        memory.argument_size_in_bytes,
        (costs or {}).get("flops", 0.0),
        time.process_time() - begun,
    )


def does_not_fit(said: str) -> DoesNotFitError | None:
    """The compiler's complaint in numbers; None if it is about something else."""
    found = next(filter(None, (re.search(form, said) for form in REFUSALS)), None)
    if "RESOURCE_EXHAUSTED" not in said or found is None:
        return None
    units = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    needed, its_unit, there, unit = found.groups()
    return DoesNotFitError(float(needed) * units[its_unit], float(there) * units[unit])
