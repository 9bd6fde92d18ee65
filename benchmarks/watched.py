"""A process under measurement: on one core, with what /proc says of it each half second."""

import contextlib
import os
import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Watched:
    """A server in a process on one core, with what /proc says of it."""

    def __init__(self, command: list[str], core: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        os.sched_setaffinity(self.process.pid, {core})
        self.samples: list[tuple[int, int, int]] = []  # bytes, files, threads
        self.most = 0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()

    def _sample(self) -> None:
        proc = Path(f"/proc/{self.process.pid}")
        while not self._ended.wait(0.5):
            with contextlib.suppress(OSError, IndexError, ValueError):
                files = sum(1 for _ in (proc / "fd").iterdir())
                self.samples.append((self.memory(), files, self._field("Threads")))

    def _field(self, name: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition(f"{name}:")[2].split()[0])

    def memory(self) -> int:
        """Bytes that are resident now."""
        return self._field("VmRSS") * 1024

    def peak(self) -> int:
        """The most that was resident since `forget`."""
        return self._field("VmHWM") * 1024

    def forget(self) -> None:
        """Begin the peak anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        self._ended.set()
        self._watch.join()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
