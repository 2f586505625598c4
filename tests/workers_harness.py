"""Runs one script in several processes that train together."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]


class Worker:
    """A process of the cluster, its output and its result.

    Args:
        process: The `subprocess.Popen`.
        log: Path of the file with its output.
        result_path: Path of the file that it writes its result to.
        address: Its address in the cluster.
    """

    def __init__(self, process, log, result_path, address):
        self.process = process
        self.address = address
        self._log = log
        self._result_path = result_path

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def result(self):
        """What the script gave to `report`."""
        assert self._result_path.exists(), self.output[-6000:]
        return json.loads(self._result_path.read_text())

    def wait(self, timeout) -> int:
        """Its exit code; fails the test if it has none in time."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still running after {timeout} s:\n{self.output[-6000:]}"
            ) from None

    def wait_for(self, text, timeout=60):
        """Returns when `text` stands in its output."""
        end = time.monotonic() + timeout
        while text not in self.output:
            assert self.process.poll() is None, self.output[-6000:]
            assert time.monotonic() < end, self.output[-6000:]
            time.sleep(0.02)

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)


def addresses(count: int) -> list[str]:
    """Addresses on this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]


@contextlib.contextmanager
def cluster(command, folder, count=2, environment=None):
    """Starts `command` once a worker and ends what is left afterwards.

    Args:
        command: Path of a script, which writes JSON to the path in the
            variable RESULT, or a list of words after `python`.
        folder: `pathlib.Path` of a folder for output and results.
        count: Integer, number of workers.
        environment: Dict of further environment variables.

    Yields:
        List of `Worker`, the chief first.
    """
    words = command if isinstance(command, list) else [str(command)]
    tasks = addresses(count)
    workers = []
    try:
        for index in range(count):
            log = folder / f"worker-{index}.log"
            result = folder / f"worker-{index}.json"
            config = {
                "cluster": {"worker": tasks},
                "task": {"type": "worker", "index": index},
            }
            path = [str(ROOT), str(ROOT / "tests")]
            variables = {
                **os.environ,
                "TF_CONFIG": json.dumps(config),
                "RESULT": str(result),
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "PYTHONPATH": os.pathsep.join(path),
                "PYTHONUNBUFFERED": "1",
                **(environment or {}),
            }
            with open(log, "wb") as file:
                process = subprocess.Popen(
                    [sys.executable, *words],
                    env=variables,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            workers.append(Worker(process, log, result, tasks[index]))
        yield workers
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
        for worker in workers:
            worker.process.wait()


def run(command, folder, count=2, timeout=120, environment=None) -> list:
    """Runs a script on `count` workers and returns their results."""
    with cluster(command, folder, count, environment) as workers:
        end = time.monotonic() + timeout
        for worker in workers:
            code = worker.wait(max(end - time.monotonic(), 0.1))
            assert code == 0, worker.output[-6000:]
        return [worker.result for worker in workers]


def report(result):
    """Writes the result of a worker; called by the scripts."""
    pathlib.Path(os.environ["RESULT"]).write_text(json.dumps(result))
