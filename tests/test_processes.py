"""Processes that come together, disagree, or die: said in one line, soon, with the folder left whole."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import jax
import pytest
from toy_training import TOY_RUN, arrays_of, toy_train

from asyncpatch.train import AbsentError, CompanyError, line, processes
from asyncpatch.train import interrupt as interrupt_module
from asyncpatch.train.interrupt import LOOK_SECONDS, TerminationRequest
from asyncpatch.train.line import LOST_STATUS, meet
from asyncpatch.train.processes import VARIABLES, Start, how_started

SCRIPT = Path(__file__).with_name("toy_training.py")
SOON = 10.0
"""Seconds within which a process that was left alone must end."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


# How a process was started


def variables(*values: str) -> dict[str, str]:
    return dict(zip(VARIABLES, values, strict=True))


SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[07-09]",
    "SLURM_NTASKS": "6",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


def test_the_variables_say_who_is_who():
    assert how_started(variables("host:1234", "4", "3")) == Start("host", 1234, 4, 3, None)
    assert how_started(variables("[::1]:1234", "2", "0")) == Start("::1", 1234, 2, 0, None)
    assert how_started(variables("host:1234", "1", "0")) is None


def test_a_slurm_job_of_several_tasks_is_known(monkeypatch):
    monkeypatch.delenv(VARIABLES[0], raising=False)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert how_started(os.environ) == Start("node07", 61441, 6, 5, [1])
    assert how_started(os.environ | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert how_started(os.environ) is None


def test_without_either_a_process_is_alone():
    assert how_started({}) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({VARIABLES[2]: "1"}, "JAX_PROCESS_ID is set and JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES is not"),
        (variables("host", "2", "0"), "number 0 of 2, with the coordinator at host; give HOST:PORT"),
        (variables("host:99999", "2", "0"), "give HOST:PORT"),
        (variables("host:1234", "2", "2"), "number 2 of 2"),
        (variables("host:1234", "two", "0"), "number 0 of two"),
    ],
)
def test_variables_that_make_no_sense(given, said):
    with pytest.raises(ValueError, match=said):
        how_started(given)


IMPORT = """
import experiments.train, experiments.evaluate, experiments.sample
from jax._src import xla_bridge
raise SystemExit(xla_bridge.backends_are_initialized())
"""


def test_commands_can_be_read_before_processes_meet():
    """JAX joins processes before it has looked for devices, and never after: no default may be an array."""
    root = SCRIPT.parents[1]
    assert subprocess.run([sys.executable, "-c", IMPORT], cwd=root, timeout=300).returncode == 0


# The line between them


def met(count: int) -> list[line.Line]:
    """Both ends of a line, in one process."""
    port, found = free_port(), {}

    def come(index):
        found[index] = meet("localhost", port, index, count, 10.0)

    threads = [threading.Thread(target=come, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[index] for index in range(count)]


def all_do(lines, act):
    """What `act(index, line)` gives in each process, or the error."""
    results = {}

    def run(index):
        try:
            results[index] = act(index, lines[index])
        except CompanyError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(lines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[index] for index in range(len(lines))]


def test_all_hear_what_all_say():
    lines = met(3)
    for round_ in range(2):
        said = all_do(lines, lambda index, line, round_=round_: line.exchange([index, round_], 10.0))
        assert said == [[[0, round_], [1, round_], [2, round_]]] * 3
    for one in lines:
        one.leave(None)


def test_one_that_says_nothing_is_named():
    lines = met(3)
    said = all_do(lines, lambda index, line: line.exchange(index, 0.5) if index < 2 else None)
    assert "process 2 has said nothing for 0 s" in str(said[0])
    assert isinstance(said[1], CompanyError)
    for one in lines:
        one.leave(None)


def test_one_that_does_not_come_and_a_coordinator_that_is_not_there():
    begun = time.monotonic()
    with pytest.raises(AbsentError, match=r"of 3 processes, \[1, 2\] have not come within 0 s; start them all"):
        meet("localhost", free_port(), 0, 3, 0.3)
    with pytest.raises(AbsentError, match=r"cannot reach process 0 at localhost, port .* start process 0"):
        meet("localhost", free_port(), 1, 2, 0.3)
    assert time.monotonic() - begun < SOON


def test_two_of_one_number_are_told():
    port, others = free_port(), ExitStack()
    with others:

        def call():
            for _ in range(2):
                peer = others.enter_context(socket.create_connection(("localhost", port)))
                peer.sendall(b"1\n")

        threading.Timer(0.5, call).start()
        with pytest.raises(CompanyError, match=r"called itself number 1, and process 0 waits for \[2\] of 3"):
            meet("localhost", port, 0, 3, 5.0)
        time.sleep(0.1)


@pytest.mark.parametrize("changed", ["code", "config"])
def test_processes_that_differ_are_told_in_what(changed, monkeypatch):
    lines = met(2)
    config = {"type": "TrainConfig", "seed": 0, "optimizer": {"learning_rate": 0.1}}
    other = {"type": "TrainConfig", "seed": 0, "optimizer": {"learning_rate": 0.2}}
    things = [{"code": processes.code(), "config": config}] * 2
    changes = {"code": things[1]["code"] | {"commit": "0123"}} if changed == "code" else {"config": other}
    things = [things[0], things[1] | changes]

    def say(index, one):
        return processes.check_alike(one.exchange(things[index], 10.0))

    errors = all_do(lines, say)
    wanted = "commit is .* and 0123" if changed == "code" else r"config\.optimizer\.learning_rate is 0\.1 and 0\.2"
    for error in errors:
        with pytest.raises(CompanyError, match=f"processes 0 and 1 differ: .*{wanted}.*; start all with"):
            raise error
    for one in lines:
        one.leave(None)


# How soon a request to stop is noticed


def test_processes_look_at_the_same_steps_about_once_a_second(monkeypatch):
    """Two processes of different pace, which meet at every look: the slower decides when to look next."""
    now, looks = [0.0], []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(interrupt_module.time, "monotonic", lambda: now[0])

    def gather(mine):
        looks.append((now[0], mine[1]))
        return interrupt_module.np.stack([mine, mine * interrupt_module.np.float32(0.5)])

    monkeypatch.setattr(interrupt_module.multihost_utils, "process_allgather", gather)
    request = TerminationRequest()
    for step in range(1, 1001):
        now[0] += 0.01
        assert not request.agreed(step)
    times = [moment for moment, _ in looks]
    gaps = [after - before for before, after in itertools.pairwise(times[2:])]
    assert max(gaps) <= LOOK_SECONDS
    assert len(looks) < 30
    request._note(15, None)
    assert any(request.agreed(step) for step in range(1001, 1001 + 100))


# An error


LATE = """
import os, time
from experiments.parts.command import run_command

def fail():
    time.sleep(int(os.environ["JAX_PROCESS_ID"]))
    raise ValueError("the same everywhere")

run_command(fail)
"""
"""A command that finds its error in process 0 first: if that ended at once, and JAX's service with it, JAX would abort
the other with a trace of its own."""


def test_an_error_of_all_is_one_line_of_each():
    root = SCRIPT.parents[1]
    address = f"localhost:{free_port()}"
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", LATE],
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(root)} | variables(address, "2", str(number)),
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=120)[1].decode() for process in pair]
    assert said == ["error: the same everywhere (--debug shows where)\n"] * 2
    assert [process.returncode for process in pair] == [1, 1]


# Death


ABORTS = [("another task died", "gloo::EnforceNotMet"), ("gloo::EnforceNotMet",)]
"""By the process that dies, what the other may say in words that are not ours, if it is aborted before the line knows:
JAX's client when its service dies with process 0, and gloo when the survivor's devices, of which one has lost its
partner, are no longer in step."""

CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
"""Each of the pairs of processes compiles the same programs."""


def start(folder: Path, pause: float) -> list[subprocess.Popen]:
    port = str(free_port())
    environment = os.environ | CACHE | {"PYTHONPATH": str(SCRIPT.parents[1])}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder.parent / "cache")
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(pause), str(number), port],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
        for number in range(2)
    ]


@pytest.mark.timeout(300)
def test_when_either_of_two_dies_the_other_says_so_and_the_folder_is_whole(tmp_path):
    """Both are killed in turn, and the run then ends as one that was never killed, to the bit."""
    for victim in range(2):
        pair = start(tmp_path / "run", 0.1)
        try:
            while not list((tmp_path / "run").glob(f"checkpoints/{8 * victim + 4}")):
                assert pair[victim].poll() is None, pair[victim].stderr.read().decode()
                time.sleep(0.01)
            pair[victim].send_signal(signal.SIGKILL)
            begun = time.monotonic()
            errors = pair[1 - victim].communicate(timeout=120)[1].decode()
            assert time.monotonic() - begun < SOON
        finally:
            for process in pair:
                process.kill()
                process.communicate()
        status = pair[1 - victim].returncode
        said = status == LOST_STATUS and f"process {1 - victim} ends, because process {victim} is gone" in errors
        assert said or (status == -signal.SIGABRT and any(words in errors for words in ABORTS[victim])), errors
    for folder in (tmp_path / "run", tmp_path / "whole"):
        pair = start(folder, 0.0)
        for process in pair:
            errors = process.communicate(timeout=120)[1]
            assert process.returncode == 0, errors.decode()
    resumed, whole = (arrays_of(toy_train(tmp_path / name)) for name in ("run", "whole"))
    assert all((resumed[name] == whole[name]).all() for name in whole)
    assert int(whole[".step"]) == TOY_RUN.steps
