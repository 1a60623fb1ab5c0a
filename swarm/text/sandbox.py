"""Runs a chat template from a model file, which nobody has checked.

minijinja gives it nothing but the values of the conversation: no object of Python is within its reach. And it runs in
a process of its own (render_worker.py), which the kernel ends when it takes too long or too much memory: no list of
costly operations could be complete, and none may hold this process's interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from swarm.errors import ResourceError, TextError
from swarm.limits import (
    MAX_PROMPT_CHARS,
    MAX_TEMPLATE_BYTES,
    MAX_TEMPLATE_CHARS,
    MAX_TEMPLATE_S,
    MAX_TEMPLATE_STEPS,
)
from swarm.plain import one_line

_WORKER = Path(__file__).with_name("render_worker.py")
_PIPE_BYTES = select.PIPE_BUF  # a pipe that is ready takes at least so much without waiting
_GRACE_S = 2.0  # the worker's own timer comes first; a worker that is frozen is killed after this


class SandboxedTemplate:
    """A template; may be used from several threads, which take turns."""

    def __init__(self, source: str, renderer: Renderer | None = None) -> None:
        """Raise TextError when `source` is no template."""
        if len(source) > MAX_TEMPLATE_CHARS:
            raise TextError(f"the chat template has {len(source)} characters; the most is {MAX_TEMPLATE_CHARS}")
        self._source = source
        self._renderer = renderer or RENDERER
        self._ask({})

    def render(self, values: Mapping[str, object], now: datetime) -> str:
        """The text; TextError when the template fails, refuses the conversation or breaks a limit."""
        text = self._ask({"values": dict(values), "now": now.isoformat()})
        if len(text) > MAX_PROMPT_CHARS:
            raise TextError(f"the model's chat template failed: it writes more than {MAX_PROMPT_CHARS} characters")
        return text

    def _ask(self, request: Mapping[str, object]) -> str:
        try:
            reply = self._renderer.ask({"source": self._source, **request})
        except WorkerInterrupted:  # no fault of the template: nobody may try it another way
            raise ResourceError("this device is leaving the swarm: nothing is read any more; ask again later") from None
        except WorkerEnded as ended:
            raise TextError(f"the model's chat template failed: it {ended}") from None
        except (TypeError, ValueError, RecursionError):
            raise TextError("the conversation holds a value that JSON has no form for") from None
        match reply:
            case {"text": text}:
                return text
            case {"broken": why}:
                raise TextError(f"the chat template is broken: {one_line(str(why))}")
            case {"refused": why}:
                raise TextError(f"the model's chat template refused the conversation: {one_line(str(why))}")
        raise TextError(f"the model's chat template failed: {one_line(str(reply.get('failed', 'without a reason')))}")


class WorkerEnded(Exception):
    """The process that renders ended before it had an answer; the text goes on after "it"."""


class WorkerInterrupted(WorkerEnded):
    """It was told to end."""


class Renderer:
    """Owns the process that renders: started when it is needed, and again after it was killed."""

    def __init__(
        self, seconds: float = MAX_TEMPLATE_S, memory_bytes: int = MAX_TEMPLATE_BYTES, steps: int = MAX_TEMPLATE_STEPS
    ) -> None:
        self._limits = (str(steps), str(seconds), str(memory_bytes))
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._n_interrupts = 0

    def start(self) -> None:
        """Have the process begin now, so that it is ready when the first conversation comes."""
        with self._lock:
            self._running()

    def ask(self, request: Mapping[str, object]) -> dict[str, str]:
        """The worker's reply; WorkerEnded when it was ended for breaking a limit."""
        line = json.dumps(request).encode() + b"\n"
        before = self._n_interrupts
        with self._lock:
            if before != self._n_interrupts:
                raise WorkerInterrupted
            process = self._running()
            try:
                reply: dict[str, str] = json.loads(_exchange(process, line, self._seconds + _GRACE_S))
                return reply
            except (OSError, ValueError, TimeoutError):
                process.kill()
                code = process.wait()
                raise (WorkerInterrupted() if before != self._n_interrupts else WorkerEnded(self._why(code))) from None
            except BaseException:  # Ctrl-C: what the worker still writes belongs to nobody
                self._end()
                raise

    def interrupt(self) -> None:
        """End what is being rendered, and what waits to be, at once; from any thread."""
        self._n_interrupts += 1
        process = self._process
        if process is not None:
            process.kill()

    def stop(self) -> None:
        """End the process."""
        self.interrupt()
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            command = [sys.executable, "-I", str(_WORKER), *self._limits]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # the rest of a request that nobody reads any more
                    pipe.close()

    def _why(self, code: int) -> str:
        if code in (-signal.SIGALRM, -signal.SIGKILL):
            return f"takes longer than {self._seconds:g} s"
        return "takes more memory than a template may"


def _exchange(process: subprocess.Popen[bytes], request: bytes, seconds: float) -> bytes:
    """Write a request, read the line that answers it; ValueError when the worker ends, TimeoutError when it hangs."""
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin.fileno(), process.stdout.fileno()
    deadline = time.monotonic() + seconds
    unsent = memoryview(request)
    while unsent:
        _wait_for(stdin, select.POLLOUT, deadline)
        unsent = unsent[os.write(stdin, unsent[:_PIPE_BYTES]) :]
    reply = bytearray()
    while not reply.endswith(b"\n"):
        _wait_for(stdout, select.POLLIN, deadline)
        part = os.read(stdout, 1 << 20)
        if not part:
            raise ValueError("the worker ended")
        reply += part
    return bytes(reply)


def _wait_for(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
        raise TimeoutError


RENDERER = Renderer()
atexit.register(RENDERER.stop)
