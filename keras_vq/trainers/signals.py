"""Signals that wait until the step in progress is taken, or saved."""

import contextlib
import signal
import threading

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def finished_first():
    """Context whose end Ctrl-C waits for; a second one acts at once."""
    before = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread()
    if not here or not callable(before):
        yield
        return
    received = []

    def remember(number, frame):
        received.append((number, frame))
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            before(*received[0])


class DelayedSignals:
    """Remembers SIGTERM or SIGINT until `act` is called."""

    def __init__(self):
        self.received = None

    @contextlib.contextmanager
    def watching(self):
        """Context in which signals wait; a second one acts at once."""
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            # Python gives signals to the main thread, and its handlers stay.
            yield
            return
        before = {number: signal.getsignal(number) for number in _NUMBERS}

        def restore():
            for number, handler in before.items():
                signal.signal(number, handler)

        def remember(number, frame):
            self.received = number
            restore()

        for number in _NUMBERS:
            signal.signal(number, remember)
        try:
            yield
        finally:
            restore()

    def act(self, message: str = "") -> None:
        """Does what the remembered signal asks for, if there is one.

        Args:
            message: What was done in the meantime, for the user.

        Raises:
            KeyboardInterrupt: After SIGINT.
            SystemExit: After SIGTERM, with exit code 143.
        """
        if self.received is None:
            return
        name = signal.Signals(self.received).name
        if message:
            print(f"\n{message} after {name}.", flush=True)
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.received)
