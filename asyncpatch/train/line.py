"""A line of sockets between the processes of a run: who is there, what each says, and who has gone.

Process 0 listens and the others call it, before JAX starts anything, because JAX ends a process that waits in vain
without a word that a user could use. The line stays open: the operating system closes a dead process's end of it at
once, so all others know within a second, where JAX's own heartbeats take `HEARTBEAT_SECONDS`, and collective
operations on some devices wait for ever.

Messages are lines of JSON. Invariant: what `exchange` returns is equal on all processes.
"""

import json
import os
import queue
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

LOST_STATUS = os.EX_TEMPFAIL
"""The exit status of a process that another left alone: 75. The same command, started for all, goes on."""

GRACE_SECONDS = 2.0
"""How long a process may take to say an error of its own when another has ended with one: often it is the same."""

LAST_SECONDS = 5.0
"""How long process 0 stays for the others to end. JAX's service ends with it, and aborts those that still need it."""


class CompanyError(RuntimeError):
    """The processes of a run did not come together, or do not agree."""


class AbsentError(CompanyError):
    """A process did not come, or said nothing: the same command, started for all, may do better."""


class Line:
    """One process's ends of the line. `meet` makes one."""

    def __init__(self, index: int, peers: dict[int, socket.socket]):
        """`peers` are all others of process 0, and process 0 alone of the others."""
        self._index, self._peers = index, peers
        self._files = {number: peer.makefile("r", encoding="utf-8", newline="\n") for number, peer in peers.items()}
        self._said: dict[int, queue.Queue[Any]] = {number: queue.Queue() for number in peers}
        self._writing = threading.Lock()
        self._leaving, self._ending = threading.Event(), threading.Lock()
        self._listeners: list[threading.Thread] = []
        self.loss: str | None = None
        """What is to be said of a process that is gone."""

    def exchange(self, thing: Any, seconds: float) -> list[Any]:
        """What every process says, in the order of the processes. Raises `CompanyError` if one says nothing."""
        deadline = time.monotonic() + seconds
        if self._index > 0:
            self._send(0, {"say": thing})
            return self._await(0, deadline, seconds)
        said = [thing] + [self._await(number, deadline, seconds) for number in sorted(self._peers)]
        for number in self._peers:
            self._send(number, {"say": said})
        return said

    def watch(self) -> None:
        """From now on the end of another process ends this one."""
        for number in self._peers:
            self._listeners.append(threading.Thread(target=self._listen, args=(number,), daemon=True))
            self._listeners[-1].start()

    def leave(self, reason: str | None) -> None:
        """Say goodbye; with a reason it is one that nobody was to expect, and ends the others."""
        self._leaving.set()
        for number in self._peers:
            self._send(number, {"end": reason})

    def stay(self) -> None:
        """After an error, let process 0 be the last to end; the others know of it, and do not wait."""
        deadline = time.monotonic() + LAST_SECONDS
        for listener in self._listeners if self._index == 0 else ():
            if listener is not threading.current_thread():
                listener.join(max(deadline - time.monotonic(), 0.0))

    def _listen(self, number: int) -> None:
        loss = f"process {number} is gone: it was killed, it crashed, or its machine cannot be reached"
        with self._peers[number], self._files[number], suppress(OSError, ValueError):
            for line in self._files[number]:
                match json.loads(line):
                    case {"say": thing}:
                        self._said[number].put(thing)
                    case {"lost": loss, "grace": grace}:
                        self._lost(loss, grace)
                    case {"end": None}:
                        return
                    case {"end": reason}:
                        loss = f"process {number} ended: {reason}"
                        self._lost(loss, GRACE_SECONDS)
        self._lost(loss, 0.0)

    def _lost(self, loss: str, grace: float) -> None:
        """Tell the others, leave this process time for its own error, and end it.

        There is no such time where another was killed: JAX would end this process in its own words.
        """
        if self._leaving.is_set():
            return
        self.loss = self.loss or loss
        for number in self._peers if self._index == 0 else ():
            self._send(number, {"lost": loss, "grace": grace})
        if not self._leaving.wait(grace):
            self.end_alone()

    def end_alone(self) -> None:
        """End this process because another has gone."""
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()  # It is being done.
        line = f"process {self._index} ends, because {self.loss}; start all again: they go on from the last checkpoint"
        os.write(2, f"error: {line}\n".encode())
        self.stay()
        os._exit(LOST_STATUS)

    def _send(self, number: int, message: dict[str, Any]) -> None:
        # Where it is gone, the thread that listens to it will say so.
        with suppress(OSError, ValueError), self._writing:
            self._peers[number].sendall((json.dumps(message) + "\n").encode())

    def _await(self, number: int, deadline: float, seconds: float) -> Any:
        try:
            return self._said[number].get(timeout=max(deadline - time.monotonic(), 0.01))
        except queue.Empty:
            raise AbsentError(
                f"process {number} has said nothing for {seconds:.0f} s; look at what it prints, and start all again"
            ) from None


def meet(host: str, port: int, index: int, count: int, seconds: float) -> Line:
    """Wait until all `count` processes are on the line. Raises `CompanyError` if that takes more than `seconds`."""
    deadline = time.monotonic() + seconds
    line = Line(index, _welcome(port, count, deadline, seconds) if index == 0 else _call(host, port, index, deadline))
    line.watch()
    return line


def _welcome(port: int, count: int, deadline: float, seconds: float) -> dict[int, socket.socket]:
    """The others' calls, each of which begins with its number."""
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        raise CompanyError(
            f"process 0 cannot listen at port {port} ({error.strerror}), one above the coordinator's; give the "
            "coordinator another port"
        ) from error
    peers: dict[int, socket.socket] = {}
    with server, ExitStack() as unless_all_come:
        while missing := sorted(set(range(1, count)) - peers.keys()):
            try:
                server.settimeout(max(deadline - time.monotonic(), 0.01))
                peer = unless_all_come.enter_context(server.accept()[0])
            except TimeoutError:
                raise AbsentError(
                    f"of {count} processes, {missing} have not come within {seconds:.0f} s; start them all, with one "
                    "coordinator and their own numbers"
                ) from None
            number = _number_of(peer)
            if number is not None and number not in missing:
                raise CompanyError(
                    f"a process called itself number {number}, and process 0 waits for {missing} of {count}; give "
                    f"every process its own number below {count}"
                )
            if number is not None:
                peers[number] = peer
        unless_all_come.pop_all()
    return peers


def _call(host: str, port: int, index: int, deadline: float) -> dict[int, socket.socket]:
    while True:
        try:
            peer = socket.create_connection((host, port), timeout=5.0)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise AbsentError(
                    f"process {index} cannot reach process 0 at {host}, port {port} ({error}); start process 0, and "
                    "check the coordinator's address"
                ) from error
            time.sleep(0.2)
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.sendall(f"{index}\n".encode())
    return {0: peer}


def _number_of(peer: socket.socket) -> int | None:
    """What a caller calls itself; None for a stranger. Read byte by byte, so that nothing after it is lost."""
    text = b""
    try:
        peer.settimeout(5.0)
        while not text.endswith(b"\n") and len(text) < 20:
            text += peer.recv(1) or b"?\n"
        peer.settimeout(None)
        return int(text)
    except (OSError, ValueError):
        return None
