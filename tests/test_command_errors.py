"""A user's mistake ends in one line, whatever the command; ours keep their traceback."""

import ast
import subprocess
import sys

import pytest

from asyncpatch.train import FolderInUseError, NonFiniteLossError
from experiments.__main__ import FOLDER, commands
from experiments.parts.command import run_command

ROOT = FOLDER.parent
ELSEWHERE = {"bench"}
"""Commands that do not yet run by the shared helper."""

PASSING = (MemoryError, FolderInUseError, OSError)
"""After these the same command may do better; a file that is not there is not among them."""


def failing(error: BaseException):
    def command(number: int = 0) -> None:
        raise error

    return command


def run_with(monkeypatch, command, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    run_command(command)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("two\n  lines"), "error: two lines (--debug shows where)"),
        (
            FileNotFoundError(2, "No such file or directory", "a.png"),
            "error: a.png: No such file or directory",
        ),
        (RuntimeError("the loss is nan"), "error: the loss is nan"),
        (MemoryError(), "error: MemoryError"),
        (OSError(28, "No space left on device"), "error: [Errno 28] No space left on device"),
        (FolderInUseError("process 1 trains in it"), "error: process 1 trains in it"),
        (NonFiniteLossError("nan at step 3"), "error: nan at step 3"),
        (ModuleNotFoundError("pip install lmdb"), "error: pip install lmdb"),
        (ZeroDivisionError("by zero"), "error: by zero"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_users_errors_are_one_line_and_a_status(error, said, several, monkeypatch, capsys):
    command, arguments = failing(error), []
    if several:
        command, arguments = {"make": command, "check": failing(AssertionError())}, ["make"]
    with pytest.raises(SystemExit) as ended:
        run_with(monkeypatch, command, *arguments)
    assert ended.value.code == (75 if isinstance(error, PASSING) and not isinstance(error, FileNotFoundError) else 1)
    out, err = capsys.readouterr()
    assert err.startswith(said)
    assert err.count("\n") == 1
    assert not out
    with pytest.raises(type(error)):
        run_with(monkeypatch, command, *arguments, "--debug")


@pytest.mark.parametrize("error", [TypeError("a bug"), KeyError("a bug"), AssertionError("a bug")])
def test_our_errors_keep_their_traceback(error, monkeypatch):
    with pytest.raises(type(error)):
        run_with(monkeypatch, failing(error))


def test_interruptions_and_statuses_are_passed_on(monkeypatch):
    for error, status in [(KeyboardInterrupt(), 130), (SystemExit(143), 143)]:
        with pytest.raises(SystemExit) as ended:
            run_with(monkeypatch, failing(error))
        assert ended.value.code == status


@pytest.mark.parametrize("name", sorted(set(commands()) - ELSEWHERE))
def test_every_command_runs_by_the_shared_helper(name):
    last = ast.parse((FOLDER / f"{name}.py").read_text()).body[-1]
    assert isinstance(last, ast.If)
    assert "__main__" in ast.unparse(last.test)
    assert [ast.unparse(line)[: len("run_command(")] for line in last.body] == ["run_command("]


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("train FOLDER --nonsense", 2, "nonsense"),
        ("train FOLDER --preset miniature --optimizer.eps inf", 2, "eps must be finite and above 0"),
        ("train FOLDER weighting:si-d2 --weighting.bias 1000", 2, "bias must be between -30 and 30"),
        ("train FOLDER --sampling.eta 2", 2, "eta must be in [0, 1]"),
        ("train FOLDER --sampling.patch 64", 1, "error: a patch of 64x64 is larger than the grid of 8x8"),
        ("train FOLDER weighting:fisher-divergence", 1, "FisherDivergence() on RectifiedFlow() weighs the noise time"),
        ("train FOLDER --fsdp 0", 1, "error: fsdp must be"),
        ("train FOLDER --batch-size 0", 1, "error: batch_size must be"),
        ("sample fashion FOLDER --sampling.guidance nan", 2, "guidance must be finite"),
        ("sample fashion FOLDER --count 0", 1, "error: count must be"),
        ("sample fashion FOLDER --count -3", 1, "error: count must be"),
        ("sample nowhere FOLDER", 1, "error: there is no run at nowhere"),
    ],
)
def test_mistakes_on_the_command_line_end_before_anything_is_made(line, status, said, tmp_path):
    arguments = line.replace("FOLDER", str(tmp_path / "out")).split()
    command = [sys.executable, "-m", f"experiments.{arguments[0]}", *arguments[1:]]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == status
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()
