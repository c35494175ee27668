"""ArrayRecord files as a source: random access to millions of images in a few files.

ArrayRecord keeps a checksum of every chunk: a shard that is cut is found when the folder is opened, a damaged
record when it is read.
"""

import dataclasses
from pathlib import Path

import grain

from asyncpatch.data.base import AbstractRecords, AbstractSource, Record
from asyncpatch.data.record_format import Sidecar, decode_record, shard_names
from asyncpatch.data.staged import staged


@dataclasses.dataclass(frozen=True)
class ArrayRecords(AbstractSource):
    """A folder that `write_array_records` wrote; one in a bucket is copied first (`staged`)."""

    folder: str

    def open(self) -> "ArrayRecordRecords":
        folder = staged(self.folder)
        sidecar = Sidecar.read(folder)
        shards = open_shards([str(folder / name) for name in shard_names(sidecar.shards)])
        if len(shards) != sidecar.count:
            raise ValueError(
                f"the shards in {self.folder} hold {len(shards)} records, but its dataset.json says {sidecar.count}; "
                "they do not belong together: convert the images again"
            )
        return ArrayRecordRecords(sidecar.shape, sidecar.class_names, self.folder, shards)


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayRecordRecords(AbstractRecords):
    """Records in the shards of a folder."""

    folder: str
    shards: grain.sources.ArrayRecordDataSource = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Record:
        try:
            record = decode_record(self.shards[index])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"record {index} in {self.folder} is damaged ({error}); convert it again") from error
        shape, label = record["image"].shape, int(record["label"])
        if shape != self.shape or not 0 <= label < len(self.class_names):
            raise ValueError(
                f"record {index} in {self.folder} has shape {shape} and label {label}, but its dataset.json says "
                f"{self.shape} and {len(self.class_names)} classes; convert the images again"
            )
        return record


def open_shards(paths: list[str]) -> grain.sources.ArrayRecordDataSource:
    """All records of these files, in order. Raises an error that names a file which is missing or cut."""
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} shards are missing, the first is {missing[0]}")
    for path in paths:
        try:
            grain.sources.ArrayRecordDataSource([path])
        except RuntimeError as error:
            raise ValueError(f"{path} is cut or is no ArrayRecord file; copy or convert it again") from error
    return grain.sources.ArrayRecordDataSource(paths)
