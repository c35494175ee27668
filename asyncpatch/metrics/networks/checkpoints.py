"""Arrays out of the checkpoints of numpy and PyTorch, without running what a checkpoint asks for.

A pickle is a program: `pickle.load` calls whatever the file names. The two unpicklers of this file know a handful of
names, each bound to code of this file that only gathers numbers, and refuse every other, so that a file from a
stranger can do no more than fail. Neither PyTorch nor the library that wrote the file is needed.

Invariant: what comes back is a dictionary from names to plain arrays that own their memory. Names of nested
dictionaries are joined with dots.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from asyncpatch.files import check_zip, read_npz

_LEGACY_TORCH_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
"""The first pickle of every file that PyTorch wrote before 1.6: one number, the same for all files."""

_TORCH_NUMBERS = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}

_NUMPY_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def arrays_in(content: bytes) -> dict[str, np.ndarray]:
    """All arrays of a PyTorch state dict (old or new form), an `npz` or a pickle of nested dictionaries of arrays."""
    if content.startswith(_LEGACY_TORCH_START):
        return _flatten(_legacy_torch(io.BytesIO(content), len(content)))
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_zip("it", archive, len(content))
            pickles = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
            if pickles:
                return _flatten(_zipped_torch(archive, pickles[0].removesuffix("data.pkl")))
        return read_npz("it", io.BytesIO(content))
    if content.startswith(b"\x80"):
        return _flatten(_NumpyUnpickler(io.BytesIO(content)).load())
    raise ValueError("it starts like no file of PyTorch, npz or pickle")


def _flatten(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    if isinstance(tree, Mapping):
        parts = [_flatten(branch, f"{prefix}.{name}" if prefix else str(name)) for name, branch in tree.items()]
        return {name: array for part in parts for name, array in part.items()}
    if isinstance(tree, _NumpyArray):
        return {prefix: tree.array}
    if isinstance(tree, np.ndarray):
        return {prefix: np.array(tree)}
    raise ValueError(f"its entry {prefix!r} is of type {type(tree).__name__}; only arrays and dictionaries are read")


def _refuse(module: str, name: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(
        f"it names {module}.{name}, which no dictionary of arrays needs; save a state dict, not a whole model"
    )


class _NumpyType:
    """What a pickle says of a number type: its kind and width at first, its byte order later."""

    def __init__(self, code: str, *_flags: object):
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _NumpyArray:
    """Stands in for numpy's array while a pickle is read, so that numpy's own code never sees unchecked state."""

    def __init__(self, *_empty: object):
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, numbers, by_columns, data = state
        if numbers.code not in _NUMPY_NUMBERS:
            raise pickle.UnpicklingError(f"it holds an array of type {numbers.code!r}; only numbers are read")
        flat = np.frombuffer(data, np.dtype(numbers.order + numbers.code))
        self.array = flat.reshape(shape, order="F" if by_columns else "C").copy()


class _NumpyUnpickler(pickle.Unpickler):
    """Reads dictionaries, numbers and numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return _NumpyArray
            case ("numpy", "ndarray"):
                return "ndarray"
            case ("numpy", "dtype"):
                return _NumpyType
        raise _refuse(module, name)


class _TorchUnpickler(pickle.Unpickler):
    """Reads dictionaries, numbers and tensors whose memory `storage(key, number type, count)` hands out."""

    def __init__(self, file: io.BytesIO, storage: Callable[[str, str, int], np.ndarray]):
        super().__init__(file, encoding="utf-8")
        self.storage = storage

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, numbers, key, _device, count, *view = pid
        if kind != "storage" or any(view):
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no plain storage")
        return self.storage(key, numbers, count)

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case ("collections", "OrderedDict"):
                return OrderedDict
            case ("torch._utils", "_rebuild_tensor_v2"):
                return _tensor
            case ("torch._utils", "_rebuild_parameter"):
                return _parameter
            case ("torch", _) if name in _TORCH_NUMBERS:
                return _TORCH_NUMBERS[name]
        raise _refuse(module, name)


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_gradient: object) -> np.ndarray:
    """A view into a storage, every element of which lies inside it."""
    if min((offset, *shape, *strides)) < 0 or len(shape) != len(strides):
        raise pickle.UnpicklingError(f"it holds a tensor of shape {shape} and strides {strides} at {offset}")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    count = int(np.prod(shape, dtype=object))
    if count > storage.size or (count > 0 and last >= storage.size):
        raise pickle.UnpicklingError(f"it holds a tensor of shape {shape} that reaches outside its storage")
    if count == 0:
        return np.zeros(shape, storage.dtype)
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps)


def _parameter(tensor: np.ndarray, *_gradient: object) -> np.ndarray:
    return tensor


def _zipped_torch(archive: zipfile.ZipFile, folder: str) -> Any:
    """The form since PyTorch 1.6: a zip of one pickle and one member for each storage."""
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine")

    def storage(key: str, numbers: str, count: int) -> np.ndarray:
        return np.frombuffer(archive.read(f"{folder}data/{key}"), numbers, count)

    return _TorchUnpickler(io.BytesIO(archive.read(f"{folder}data.pkl")), storage).load()


def _legacy_torch(file: io.BytesIO, length: int) -> Any:
    """The form before PyTorch 1.6: pickles of a number, a version, the machine, the tensors and the order of the
    storages, whose contents follow. Tensors are views, so that storages can be filled after the tensors are made."""
    storages: dict[str, np.ndarray] = {}

    def storage(key: str, numbers: str, count: int) -> np.ndarray:
        if count * np.dtype(numbers).itemsize > length:
            raise ValueError(f"it announces a storage of {count} numbers, more than it can hold")
        return storages.setdefault(key, np.zeros(count, numbers))

    def load() -> Any:
        return _TorchUnpickler(file, storage).load()

    _start, _version, _machine, tensors, order = load(), load(), load(), load(), load()
    for key in order:
        count = int.from_bytes(file.read(8), "little")
        numbers = np.frombuffer(file.read(count * storages[key].itemsize), storages[key].dtype)
        storages[key][:] = numbers
    return tensors
