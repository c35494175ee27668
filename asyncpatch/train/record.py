"""What a checkpoint says of itself: config, step, validation loss, who wrote it, and the digest of every array.

It is the JSON item `config` of the checkpoint, and has a digest of its own. Invariant: `read_record` returns what was
written, or raises `DamageError`, or says that the files cannot be read at present. Checkpoints of releases that kept no
digests are read as they are; no damaged record passes for one of those, for it has entries that theirs lack.
"""

import dataclasses
import hashlib
import json
import math

from asyncpatch.config import Json
from asyncpatch.files import open_regular
from asyncpatch.places import Place
from asyncpatch.train.digest import Kinds

FIRST_RELEASE = "0.1.0"
"""The release whose checkpoints do not say which one wrote them."""

VALIDATION_LOSS = "validation_loss"
"""The metric that the best checkpoints are kept by."""

DIGEST = "digest"
"""The entry with the digest of all others."""

WITHOUT_DIGESTS = {"experiment", "release", "commit"}
"""All that a record had when there were no digests."""

GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What a missing file leads to."""


class DamageError(RuntimeError):
    """A checkpoint is proven to be other than it was saved."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What a checkpoint says of itself, its config still as JSON."""

    experiment: Json
    step: int
    validation_loss: float | None
    """Of the averaged weights; None if it was not measured at this step."""
    release: str
    """The release of this package that wrote it."""
    commit: str
    """The commit of the code that wrote it, or `unknown`."""
    kinds: Kinds | None
    """Types and shapes of all arrays; None in a checkpoint without digests."""
    digests: dict[str, str] | None
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    """All that was measured of the averaged weights, by name; without an entry in checkpoints of former releases."""


def written_record(record: Record) -> Json:
    """A record as it is saved."""
    written = dataclasses.asdict(record)
    return written | {DIGEST: _digest(written)}


def read_record(path: Place) -> Record:
    """The record of the checkpoint at `path`.

    Raises `DamageError` if it is not what was written, and `OSError` if it cannot be read for another reason.
    """
    written, metrics = _json_object(path / "config" / "metadata"), _json_object(path / "metrics" / "metrics")
    loss = metrics.get(VALIDATION_LOSS)
    if DIGEST not in written:
        return _record_without_digests(path, written, loss)
    found = written.pop(DIGEST)
    if found != _digest(written):
        raise DamageError(f"{path / 'config'} does not match its digest")
    loss_alone = {} if loss is None else {VALIDATION_LOSS: loss}
    written.setdefault("figures", loss_alone)
    fields = {field.name for field in dataclasses.fields(Record)}
    if missing := sorted(fields - written.keys()):
        raise DamageError(f"{path / 'config'} lacks {', '.join(missing)}")
    record = Record(**{name: written[name] for name in fields})
    if record.validation_loss != loss:
        raise DamageError(f"{path / 'metrics'} has the validation loss {loss}, saved was {record.validation_loss}")
    if str(record.step) != path.name:
        raise DamageError(f"{path} was saved at step {record.step}")
    return record


def _record_without_digests(path: Place, written: dict[str, Json], loss: Json) -> Record:
    if "experiment" not in written or written.keys() - WITHOUT_DIGESTS:
        raise DamageError(f"{path / 'config'} has the entries {', '.join(map(repr, written))}")
    if loss is not None and not isinstance(loss, int | float):
        raise DamageError(f"{path / 'metrics'} has the validation loss {loss!r}")
    return Record(
        experiment=written["experiment"],
        step=int(path.name),
        validation_loss=loss if loss is not None and math.isfinite(loss) else None,
        release=written.get("release", FIRST_RELEASE),
        commit=written.get("commit", "unknown"),
        kinds=None,
        digests=None,
    )


def _json_object(path: Place) -> dict[str, Json]:
    try:
        with open_regular(path) as file:
            content = json.loads(file.read())
    except GONE as error:
        raise DamageError(f"{path} is missing") from error
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{path} is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise DamageError(f"{path} holds no JSON object")
    return content


def _digest(written: Json) -> str:
    """SHA-256 of JSON, however it is laid out in a file."""
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()
