"""An interpreter of pickles that can only build plain data.

It imports nothing and calls nothing that a file names: the instructions are
taken apart by Python's disassembler (`pickletools`, which never executes any),
and a class or function of the file becomes an inert `Name`. Names that the
caller has a builder for are built by it; whatever any other name would have
made is a `Foreign`, which keeps nothing of what it was given.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from keras_vq.convert.errors import DamagedFileError, UnsafeFileError

_MAX_STEPS = 2_000_000
_MAX_FIELD = 1 << 20
_MAX_BYTES = 64 << 20

# Nobody's weights need these. They would be inert here; but somebody made
# the file to run something, and the next program may run it.
_RUNS_CODE = set(
    """os posix nt io _io subprocess sys importlib runpy socket shutil ctypes
    code codeop pty webbrowser pickle _pickle dill cloudpickle marshal operator
    asyncio multiprocessing pip requests urllib http commands popen2 timeit
    cProfile profile pdb bdb platform""".split()
)
_HARMLESS_BUILTINS = set(
    """set frozenset dict list tuple int float str bytes bytearray complex
    bool slice range object type NoneType Ellipsis""".split()
)
_VALUES = set(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING
    BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8""".split()
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that a file names, and nothing but its name."""

    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"[:80]


@dataclasses.dataclass(eq=False)
class Foreign:
    """Stands for an object of a class that is none of ours."""

    kind: Any

    def __str__(self):
        return f"an object of {self.kind}"


class BoundedStream:
    """Reads from a file, but no field longer than any of ours can be."""

    def __init__(self, file: BinaryIO, source: str):
        self._file = file
        self._source = source
        self._left = _MAX_BYTES

    def read(self, size: int) -> bytes:
        """Returns `size` bytes, or fewer at the end of the file."""
        if not 0 <= size <= _MAX_FIELD or size > self._left:
            raise UnsafeFileError(
                f"{self._source} is refused: expected fields of at most "
                f"{_MAX_FIELD} bytes. Received: one of {size} bytes."
            )
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        """Returns the rest of a line."""
        line = self._file.readline(min(_MAX_FIELD, self._left))
        self._left -= len(line)
        return line


def read_pickle_data(
    stream: BoundedStream,
    source: str,
    builders: dict[Name, Callable] | None = None,
    persistent: Callable | None = None,
) -> Any:
    """Reads one pickle up to its end.

    Args:
        stream: Where the pickle starts.
        source: What to call the file in an error.
        builders: What to make of a call of these names, from its arguments.
        persistent: What to make of a persistent id.

    Returns:
        Numbers, strings, bytes, None, tuples, lists and dicts, what the
        builders made, `Name` and `Foreign`. A dict holds only entries whose
        key is a number, a string or a `Name`.

    Raises:
        UnsafeFileError: If it names what runs code or is too large.
        DamagedFileError: If it is no complete pickle.
    """
    machine = _Machine(source, builders or {}, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode.name, argument)
        return machine.result()
    except (UnsafeFileError, DamagedFileError):
        raise
    # A damaged file can fail in any instruction, in any way.
    except Exception as error:
        raise DamagedFileError(
            f"{source} is damaged: {type(error).__name__}: {error!s:.200}. "
            "Fetch it again."
        ) from None


class _Machine:
    def __init__(self, source, builders, persistent):
        self.source = source
        self.builders = builders
        self.persistent = persistent
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict = {}
        self.steps = 0

    def step(self, name, argument):
        self.spend(1)
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        else:
            method = getattr(self, f"op_{name.lower()}", None)
            if method is None:
                self.refuse(f"the instruction {name}")
            method(argument)

    def result(self):
        if self.marks or len(self.stack) != 1:
            raise ValueError("it does not end with one object")
        return self.stack[0]

    def spend(self, steps):
        self.steps += steps
        if self.steps > _MAX_STEPS:
            self.refuse(f"more than {_MAX_STEPS} instructions")

    def refuse(self, what) -> NoReturn:
        raise UnsafeFileError(
            f"{self.source} is refused: expected numbers and tensors. "
            f"Received: {what}. Load it with no other program either."
        )

    def named(self, module, name):
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        root = module.split(".")[0]
        builtin = root in ("builtins", "__builtin__")
        if root in _RUNS_CODE or builtin and name not in _HARMLESS_BUILTINS:
            self.refuse(f"the name {module[:40]}.{name[:40]}")
        return Name(module, name)

    def call(self, function, arguments):
        if isinstance(function, Name) and function in self.builders:
            if isinstance(arguments, tuple):
                if arguments and isinstance(arguments[0], list | dict):
                    self.spend(len(arguments[0]))
                return self.builders[function](*arguments)
            raise ValueError(f"a call of {function} without arguments")
        if isinstance(function, Name | Foreign):
            return Foreign(function if isinstance(function, Name) else "one")
        raise ValueError("a call of something that is no function")

    def since_mark(self):
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def set_items(self, items):
        target = self.stack[-1]
        if isinstance(target, Foreign):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("entries for something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing nested tuples can take for ever.
            if isinstance(key, str | int | float | bytes | Name | None):
                target[key] = value

    def add_items(self, items):
        target = self.stack[-1]
        if isinstance(target, Foreign):
            return
        if not isinstance(target, list):
            raise ValueError("elements for something that is no list")
        target.extend(items)

    def op_proto(self, version):
        if version > 5:
            raise ValueError(f"version {version} of the format")

    def op_frame(self, _):
        pass

    def op_stop(self, _):
        pass

    def op_mark(self, _):
        self.marks.append(len(self.stack))

    def op_pop(self, _):
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def op_pop_mark(self, _):
        self.since_mark()

    def op_dup(self, _):
        self.stack.append(self.stack[-1])

    def op_empty_list(self, _):
        self.stack.append([])

    def op_empty_dict(self, _):
        self.stack.append({})

    def op_empty_tuple(self, _):
        self.stack.append(())

    def op_empty_set(self, _):
        self.stack.append(Foreign("set"))

    def op_frozenset(self, _):
        self.since_mark()
        self.stack.append(Foreign("frozenset"))

    def op_additems(self, _):
        self.since_mark()
        if not isinstance(self.stack[-1], Foreign):
            raise ValueError("elements for something that is no set")

    def op_list(self, _):
        self.stack.append(self.since_mark())

    def op_dict(self, _):
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def op_tuple(self, _):
        self.stack.append(tuple(self.since_mark()))

    def op_tuple1(self, _):
        self.fixed_tuple(1)

    def op_tuple2(self, _):
        self.fixed_tuple(2)

    def op_tuple3(self, _):
        self.fixed_tuple(3)

    def fixed_tuple(self, length):
        if len(self.stack) < length:
            raise ValueError("too few objects")
        items = tuple(self.stack[-length:])
        del self.stack[-length:]
        self.stack.append(items)

    def op_setitem(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def op_setitems(self, _):
        self.set_items(self.since_mark())

    def op_append(self, _):
        self.add_items([self.stack.pop()])

    def op_appends(self, _):
        self.add_items(self.since_mark())

    def op_put(self, key):
        self.memo[key] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, key):
        self.stack.append(self.memo[key])

    op_binget = op_long_binget = op_get

    def op_global(self, text):
        self.stack.append(self.named(*text.split(" ", 1)))

    def op_stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.named(module, name))

    def op_reduce(self, _):
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(function, arguments))

    op_newobj = op_reduce

    def op_newobj_ex(self, _):
        self.stack.pop()
        self.op_reduce(None)

    def op_inst(self, text):
        arguments = tuple(self.since_mark())
        self.stack.append(self.call(self.named(*text.split(" ", 1)), arguments))

    def op_obj(self, _):
        function, *arguments = self.since_mark()
        self.stack.append(self.call(function, tuple(arguments)))

    def op_build(self, _):
        self.stack.pop()
        # Attributes of a dict (torch's version numbers) are left out.
        if not isinstance(self.stack[-1], dict | Foreign):
            raise ValueError("a state for something that has none")

    def op_binpersid(self, _):
        if self.persistent is None:
            self.refuse("a persistent id")
        self.stack.append(self.persistent(self.stack.pop()))
