"""The supervisor: starts broker, SERVE, LEARN and GATEWAY on one machine, restarts what dies, stops all cleanly."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from schemas.errors import ExplainedError
from schemas.migrations import upgrade
from schemas.settings import Settings
from schemas.topics import Topics
from streams.access import cluster
from streams.administration import ensure_topics
from streams.broker import EmbeddedBroker
from streams.gateway.address import listen
from streams.store import database_url, open_engine

log = logging.getLogger(__name__)

READY = "ready"
LINE_BYTES = 512

LINE_FD = "HEADSTREAM_SUPERVISOR_FD"
"""Names the inherited socket over which a child says that it is ready, and learns that its supervisor is gone."""

KILLED_SECONDS = 1.0
"""After the time that a process may take to stop: it may be writing its stacks to its log."""
READY_SECONDS = 180.0
BACKOFF_SECONDS = (0.5, 15.0)
DEATHS_ALLOWED = 5
DEATHS_WINDOW_SECONDS = 120.0
LINES_SHOWN = 12


class KeepsDying(ExplainedError):
    """A process ends again and again; restarting it is no use."""

    def __init__(self, name: str, code: int, log_file: Path, last_lines: str) -> None:
        self.name, self.code, self.log_file = name, code, log_file
        super().__init__(
            f"{name} ended {DEATHS_ALLOWED} times within {DEATHS_WINDOW_SECONDS:.0f} s, last with exit code {code}. "
            f"Its last words ({log_file}):\n{last_lines}"
        )


class NotReady(ExplainedError):
    """A process takes too long to start."""

    def __init__(self, names: Sequence[str], seconds: float, logs: Path) -> None:
        self.names = tuple(names)
        super().__init__(f"{', '.join(names)} not ready after {seconds:.0f} s; see the logs in {logs}")


class Child:
    """One process of ours: started, watched, and started again with growing pauses.

    Attributes:
        address: where it answers, as it said when it became ready; "" where it said nothing of the kind.
        start_at: when it starts again after it has died, monotonic seconds.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log_file: Path) -> None:
        self.name = name
        self.state = "starting"
        self.address = ""
        self._command = command
        self._environment = environment
        self._log_file = log_file
        self._deaths: deque[float] = deque(maxlen=DEATHS_ALLOWED)
        self.start_at = 0.0
        self._line: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._close_line()
        ours, theirs = socket.socketpair()
        environment = {**self._environment, LINE_FD: str(theirs.fileno())}
        with theirs, self._log_file.open("ab") as log_file:
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the children in order.
            self.process = subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.setblocking(False)
        self._line = ours
        self.state = "starting"

    def check(self) -> bool:
        """Notice readiness and death, start again when it is time; returns whether anything changed.

        Raises:
            KeepsDying: it died too often too fast.
        """
        if self.process is None:
            if time.monotonic() >= self.start_at:
                self.start()
                return True
            return False
        code = self.process.poll()
        if code is not None:
            self._died(code)
            return True
        if self.state == "starting" and self._line is not None:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                if said := self._line.recv(LINE_BYTES):
                    self.address = said.decode(errors="replace").strip().removeprefix(READY).strip()
                    self.state = "ready"
                    return True
        return False

    def _died(self, code: int) -> None:
        now = time.monotonic()
        while self._deaths and now - self._deaths[0] >= DEATHS_WINDOW_SECONDS:
            self._deaths.popleft()  # who died long ago, and has worked since, starts again as quickly as at first
        self._deaths.append(now)
        self.process = None
        self.state = "restarting"
        if len(self._deaths) == DEATHS_ALLOWED:
            raise KeepsDying(self.name, code, self._log_file, self.last_words())
        shortest, longest = BACKOFF_SECONDS
        pause = min(longest, shortest * 2.0 ** (len(self._deaths) - 1))
        log.warning("%s ended with exit code %d; it starts again in %.1f s", self.name, code, pause)
        self.start_at = now + pause

    def last_words(self) -> str:
        lines = self._log_file.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LINES_SHOWN:])

    def terminate(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def reap(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic), then kill."""
        if self.process is not None:
            try:
                self.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop in time and is killed", self.name)
                self.process.kill()
                self.process.wait()
        self.state = "stopped"
        self._close_line()

    def _close_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class Supervisor:
    """All processes of one machine, as a context manager.

    Attributes:
        broker: "host:port" once started.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        arguments: Sequence[str] = (),
        processes: Sequence[str] = ("serve", "learn", "gateway"),
        environment: Mapping[str, str] | None = None,
        on_step: Callable[[str], None] = lambda _step: None,
    ) -> None:
        """`arguments` are handed on to every child's command line, such as --config, `environment` beside our own."""
        self._settings = settings
        self._arguments = list(arguments)
        self._names = processes
        self._environment = dict(environment or {})
        self._on_step = on_step
        self._data = Path(settings.data).resolve()
        self._embedded: EmbeddedBroker | None = None
        self._children: list[Child] = []
        self._announced = False
        self.broker: str = cluster(settings.kafka)

    def __enter__(self) -> Supervisor:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        if "gateway" in self._names:
            # Better to say so now than after all else was started, and its process had died five times.
            listen(self._settings.gateway.host, self._settings.gateway.port).close()
        logs = self._data / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        if not self._settings.kafka.broker:
            kafka = self._data / "kafka"
            self._embedded = EmbeddedBroker(kafka, port=self._settings.kafka.port, on_step=self._on_step)
            self.broker = self._embedded.start()
        self._on_step(f"preparing topics on {self.broker}")
        ensure_topics(self.broker, Topics(self._settings).all(), self._settings.kafka.replication)
        self._on_step("preparing the database")
        engine = open_engine(database_url(self._settings))
        try:
            upgrade(engine)
        finally:
            engine.dispose()
        ours = {"HEADSTREAM_KAFKA_BROKER": self.broker, "PYTHONUNBUFFERED": "1"}
        environment = {**os.environ, **self._environment, **ours}
        for name in self._names:
            self._on_step(f"starting {name}")
            command = [sys.executable, "-m", "streams.cli", name, *self._arguments]
            child = Child(name, command, environment, logs / f"{name}.log")
            self._children.append(child)
            child.start()
        if not self._children:
            self._announce()

    @property
    def gateway(self) -> str:
        """The URL of GATEWAY; "" before it was ready for the first time, or where none is run."""
        return next((child.address for child in self._children if child.name == "gateway"), "")

    def wait_ready(self, stop: threading.Event, timeout: float = READY_SECONDS) -> bool:
        """Wait until every process is ready; False if `stop` was set first.

        Raises:
            KeepsDying: one of them cannot start.
            NotReady: one of them takes too long.
        """
        deadline = time.monotonic() + timeout
        told: set[str] = set()
        while not stop.is_set():
            self.check()
            for child in self._children:
                if child.state == "ready" and child.name not in told:
                    told.add(child.name)
                    self._on_step(f"{child.name} is ready")
            waiting = [child.name for child in self._children if child.state != "ready"]
            if not waiting:
                self._announce()
                return True
            if time.monotonic() > deadline:
                raise NotReady(waiting, timeout, self._data / "logs")
            stop.wait(0.1)
        return False

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set; raises `KeepsDying`."""
        while not stop.wait(0.2):
            self.check()

    def check(self) -> None:
        """Look after every process once."""
        changed = [child.check() for child in self._children]
        if self._embedded is not None and not self._embedded.running:
            log.warning("the embedded Kafka has ended; it starts again on %s", self.broker)
            if self._announced:
                self._announce()
            self._embedded.start()
            changed.append(True)
        if self._announced and any(changed):
            self._announce()

    def _announce(self) -> None:
        """Say where everything is, for scripts: from when all is ready on, and anew with every change."""
        processes: dict[str, dict[str, object]] = {
            child.name: {
                "pid": child.process.pid if child.process else None,
                "state": child.state,
                **({"address": child.address} if child.address else {}),
            }
            for child in self._children
        }
        if self._embedded is not None:
            processes["broker"] = {
                "pid": self._embedded.pid or None,
                "state": "ready" if self._embedded.running else "restarting",
            }
        self._announced = True
        path = endpoints_file(self._settings)
        temporary = path.with_suffix(".tmp")
        addresses = {"broker": self.broker, **({"gateway": self.gateway} if self.gateway else {})}
        temporary.write_text(json.dumps({**addresses, "processes": processes}, indent=2) + "\n")
        temporary.replace(path)

    def stop(self) -> None:
        """Stop children, then the broker that they need to stop well."""
        deadline = time.monotonic() + self._settings.stop_seconds + KILLED_SECONDS
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.reap(deadline)
        if self._embedded is not None:
            self._embedded.stop()
        if self._announced:
            endpoints_file(self._settings).unlink(missing_ok=True)


def endpoints_file(settings: Settings) -> Path:
    return Path(settings.data).resolve() / "endpoints.json"


def known_broker(settings: Settings) -> str | None:
    """The broker that was configured, or the one that a running `headstream up` says it has started."""
    if settings.kafka.broker:
        return settings.kafka.broker
    try:
        broker = json.loads(endpoints_file(settings).read_text())["broker"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return broker if isinstance(broker, str) else None


def line_to_supervisor() -> Callable[[str], None]:
    """For a child: end when the supervisor ends; returns what to call, with its address, once this process is ready."""
    number = os.environ.pop(LINE_FD, None)
    if number is None:
        return lambda _address: None
    line = socket.socket(fileno=int(number))

    def end_with_supervisor() -> None:
        with contextlib.suppress(OSError):
            line.recv(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_supervisor, name="supervisor-line", daemon=True).start()
    return lambda address: line.sendall(f"{READY} {address}\n".encode())
