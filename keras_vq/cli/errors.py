"""What goes wrong in a command, in a sentence for its user."""

FAILURE = 1
USAGE = 2


class CommandError(Exception):
    """An error that is shown as one line, without a traceback.

    Args:
        message: what was expected, what was received and what to do.
        code: exit status of the program: 2 for a command that cannot be
            meant as it was typed, 1 for everything else.
    """

    def __init__(self, message: str, code: int = FAILURE):
        super().__init__(message)
        self.code = code


class UsageError(CommandError):
    """A command line that has to be typed differently."""

    def __init__(self, message: str):
        super().__init__(message, USAGE)


def one_line(error: BaseException) -> str:
    """Returns the message of any exception on a single line."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) or not text:
        return f"{type(error).__name__} {text}".strip()
    return text
