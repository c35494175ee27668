"""Several processes as one run: how they were started, how they come together, and what they must agree on.

A command is one of several processes if it is told so by the variables `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`
and `JAX_PROCESS_ID`, or by SLURM, Open MPI or a TPU slice, which JAX knows how to ask. The processes meet at
the port above the coordinator's (`asyncpatch.train.line`), compare their code, and only then start JAX's own
service. Where JAX must be started otherwise, `jax.distributed.initialize` before anything else does as well; then
nothing is compared, and a dead process is noticed by JAX alone.

Invariant: a process that cannot work with the others says why and ends, within a minute and before any computation.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
from jax._src.clusters import ClusterEnv  # what `jax.distributed.initialize` asks, which does not tell

from asyncpatch.config import Json, differences
from asyncpatch.train.line import CompanyError, Line, meet
from asyncpatch.train.provenance import commit, release

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

CLUSTER_SIGNS = ("SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE")
"""Variables that the processes of a cluster have. A TPU slice is known by its chips."""

MEETING_SECONDS = 45.0
"""How long processes wait for each other at the start."""

HEARTBEAT_SECONDS = 60
"""How long JAX waits for a sign of life of a machine that went down without closing its sockets."""

SHUTDOWN_SECONDS = 30
"""How long a process that is done waits for the others."""


@dataclasses.dataclass(frozen=True)
class Start:
    """One of several processes."""

    host: str
    port: int
    count: int
    index: int
    local_devices: Sequence[int] | None
    """The accelerators of this machine that this process uses; None for all."""


def how_started(environment: Mapping[str, str]) -> Start | None:
    """What the variables say, or else the cluster; None for a process that is alone.

    Raises `ValueError` if the variables are not all there or make no sense.
    """
    given = {name: environment[name] for name in VARIABLES if environment.get(name)}
    if given:
        if missing := [name for name in VARIABLES if name not in given]:
            raise ValueError(f"{', '.join(given)} is set and {', '.join(missing)} is not; set all three, or none")
        return _started(*given.values(), None)
    # An interactive shell inside a SLURM job of many tasks is one process. Nothing is asked of a cluster without a sign
    # of one: looking for some takes seconds, or fails.
    alone = environment.get("SLURM_STEP_NUM_TASKS") == "1"
    if alone or not (any(name in environment for name in CLUSTER_SIGNS) or _has_tpu()):
        return None
    address, count, index, local = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(MEETING_SECONDS)
    )
    if address is None or count is None or index is None or count < 2:
        return None
    return _started(address, str(count), str(index), local)


def _has_tpu() -> bool:
    """Whether this machine has TPU chips, and JAX what it needs for them."""
    chips = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(chips) and find_spec("libtpu") is not None


def _started(address: str, count: str, index: str, local: Sequence[int] | None) -> Start | None:
    host, _, port = address.rpartition(":")
    numbers = [int(text) if text.isascii() and text.isdigit() else -1 for text in (port, count, index)]
    if not host or not 0 < numbers[0] < 65535 or not 0 <= numbers[2] < numbers[1]:
        raise ValueError(
            f"this process is to be number {index} of {count}, with the coordinator at {address}; give HOST:PORT, a "
            "positive number of processes, and a number of this one from 0 to one below"
        )
    return None if numbers[1] == 1 else Start(host.strip("[]"), *numbers, local)


_line: Line | None = None
"""The line of this process, as JAX's own service is one a process."""


@contextmanager
def joined(environment: Mapping[str, str] | None = None) -> Generator[None]:
    """Inside, this process is one of those that it was started with. Must be entered before JAX computes anything.

    Raises `CompanyError` if they do not come together or run different code.
    """
    global _line
    start = how_started(os.environ if environment is None else environment)
    if start is None:
        yield
        return
    _line = meet(start.host, start.port + 1, start.index, start.count, MEETING_SECONDS)
    try:
        agree({"code": code(), "processes": start.count})
        _start_jax(start)
        yield
    except BaseException as error:
        _leave_after(_line, error)
        raise
    _line.leave(None)


def agree(things: Json) -> None:
    """Raise `CompanyError`, naming what differs, unless all processes say the same; each must call it."""
    if _line is not None:
        check_alike(_line.exchange(things, MEETING_SECONDS))


def check_alike(said: list[Json]) -> None:
    """Raise `CompanyError` if a process says other things than the first."""
    for number, theirs in enumerate(said):
        if found := differences(said[0], theirs):
            lines = "; ".join(f"{name} is {first} and {other}" for name, (first, other) in list(found.items())[:5])
            raise CompanyError(
                f"processes 0 and {number} differ: {lines}; start all with the same code and the same command"
            )


def code() -> dict[str, str]:
    """The code that runs here."""
    return {"release": release(), "commit": commit(), "jax": jax.__version__, "python": sys.version.split()[0]}


def _start_jax(start: Start) -> None:
    # JAX's service would take SIGTERM for itself (`asyncpatch.train.interrupt` says what is done with it).
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        f"{start.host}:{start.port}",
        start.count,
        start.index,
        start.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(MEETING_SECONDS),
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )


NOTICE_SECONDS = 1.0
"""How long an error may come before the news of the death that caused it."""


def _leave_after(line: Line, error: BaseException) -> None:
    """Say goodbye after an error. One that another process's death caused is not the one to report."""
    if isinstance(error, SystemExit):
        return line.leave(None)
    if isinstance(error, jax.errors.JaxRuntimeError):
        time.sleep(NOTICE_SECONDS)
        if line.loss is not None:
            line.end_alone()
    said: Any = str(error).splitlines()
    return line.leave(said[0] if said else type(error).__name__)


def leave(status: int) -> None:
    """End this process with a status after an error, of which the others know."""
    if _line is None:
        raise SystemExit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    _line.stay()
    os._exit(status)
