"""Opening a source once.

To open a folder of images is to decode them all, so its training and held-out parts, the reading of its shape and the
training itself share what was opened. Invariant: an object that says where images are is opened at most once, and what
it gave is kept as long as the object; a new object, even an equal one, looks at the files anew.
"""

import weakref

from asyncpatch.data.base import AbstractRecords, AbstractSource

_OPENED: dict[int, AbstractRecords] = {}
"""What living sources gave, by their identity."""


def open_once(source: AbstractSource) -> AbstractRecords:
    """The records of a source, from its `open()` or from an earlier call."""
    if id(source) not in _OPENED:
        _OPENED[id(source)] = source.open()
        weakref.finalize(source, _OPENED.pop, id(source), None)
    return _OPENED[id(source)]
