"""A reader for pickles of plain data that runs nothing.

Python's own unpickler calls whatever a file names. This one takes the few
instructions that plain data and NumPy's byte arrays need, and a class or
function that a file names becomes one of three inert stand-ins here; any
other name or instruction is refused. No module is imported on the file's
behalf, and no NumPy function sees the file's arguments.
"""

import dataclasses
import io
import os
import pickle
import pickletools

import numpy as np

_MAX_BYTES = 256 << 20
_ALLOWED = {
    op.code.encode("latin1")[0]
    for op in pickletools.opcodes
    if op.name
    in """PROTO STOP MARK POP POP_MARK FRAME GLOBAL STACK_GLOBAL REDUCE BUILD
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 STRING BINSTRING
    SHORT_BINSTRING BINBYTES SHORT_BINBYTES UNICODE BINUNICODE
    SHORT_BINUNICODE EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND
    APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GET BINGET LONG_BINGET PUT
    BINPUT LONG_BINPUT MEMOIZE""".split()
}


class UnsafePickleError(ValueError):
    """A pickle asks for more than plain data."""


@dataclasses.dataclass
class ArrayData:
    """Stands for a pickled NumPy array."""

    state: tuple = ()

    def to_numpy(self, path: str) -> np.ndarray:
        """Returns the array, which must be one of unsigned bytes."""
        try:
            _, shape, dtype, fortran, raw = self.state
            if isinstance(raw, str):
                raw = raw.encode("latin1")
            if not isinstance(dtype, _DType) or dtype.name not in (
                b"u1",
                "u1",
            ):
                raise ValueError("it is not one of unsigned bytes")
            array = np.frombuffer(raw, np.uint8)
            return array.reshape(shape, order="F" if fortran else "C")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} holds an array that cannot be read: {error}."
            ) from None


@dataclasses.dataclass
class _DType:
    name: object = None
    state: object = None


class _Name:
    """Stands for a class or function that a pickle names."""

    def __init__(self, kind):
        self.kind = kind

    def make(self, args):
        """Returns what calling the name with `args` stands for."""
        if self.kind == "array":
            return ArrayData()
        if self.kind == "dtype" and args:
            return _DType(args[0])
        if self.kind == "encode" and args and isinstance(args[0], str):
            # How Python 3 writes bytes in protocol 2.
            return args[0].encode("latin1")
        raise UnsafePickleError(f"a call of a {self.kind} with {args!r:.80}")


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy", "ndarray"): "class",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
}


class _Reader(pickle._Unpickler):
    """Python's own interpreter of pickles, with its doors taken out.

    The one in C cannot be restricted this far, and reserves memory for any
    memo number that a file names.
    """

    dispatch = {
        code: function
        for code, function in pickle._Unpickler.dispatch.items()
        if code in _ALLOWED
    }

    def find_class(self, module, name):
        kind = _NAMES.get((module, name))
        if kind is None:
            raise UnsafePickleError(f"the name {module}.{name}")
        return _Name(kind)

    def load_reduce(self):
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise UnsafePickleError("a call of something that is no function")
        self.stack[-1] = function.make(arguments)

    def load_build(self):
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, (ArrayData, _DType)):
            raise UnsafePickleError("a state for something that has none")
        target.state = state

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


def read_pickle(path: str):
    """Reads a pickle that holds plain data and NumPy arrays of bytes.

    Args:
        path: The file.

    Returns:
        What it holds; an array is an `ArrayData`.

    Raises:
        UnsafePickleError: If the file asks for anything else.
        ValueError: If it is no pickle, truncated, or too large.
    """
    size = os.path.getsize(path)
    if size > _MAX_BYTES:
        raise ValueError(
            f"{path} must be smaller than {_MAX_BYTES} bytes. Received: "
            f"{size} bytes."
        )
    with open(path, "rb") as file:
        data = file.read()
    if not data.endswith(pickle.STOP):
        raise ValueError(
            f"{path} is not a complete pickle: its end is missing. Received: "
            f"{size} bytes. Copy it anew."
        )
    reader = _Reader(io.BytesIO(data), encoding="bytes")
    try:
        return reader.load()
    except UnsafePickleError as error:
        raise UnsafePickleError(
            f"{path} is refused: a file of plain data must not ask for "
            f"more. Received: {error}."
        ) from None
    except KeyError as error:
        code = error.args[0] if error.args else None
        raise UnsafePickleError(
            f"{path} is refused: it uses the instruction {code!r}, which "
            "plain data does not need."
        ) from None
    except Exception as error:
        # A damaged file can fail in any instruction, in any way.
        raise ValueError(
            f"{path} is not a complete pickle of plain data: "
            f"{type(error).__name__}: {error}. Copy it anew."
        ) from None
