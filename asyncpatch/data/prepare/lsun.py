"""LSUN bedrooms as published: one LMDB environment for each split, whose values are encoded images.

    root/bedroom_train_lmdb/data.mdb    3,033,042 images
    root/bedroom_val_lmdb/data.mdb            300 images

Images are taken in the order of their keys, which are hashes: an order that has nothing to do with what they show.
"""

from pathlib import Path

from asyncpatch.data.prepare.originals import Collection, LmdbOriginal, open_lmdb

LSUN_BEDROOM_TRAIN, LSUN_BEDROOM_VAL = 3_033_042, 300


def lsun_bedroom(root: str | Path, train: int = LSUN_BEDROOM_TRAIN, val: int = LSUN_BEDROOM_VAL) -> Collection:
    """List the bedrooms below `root`, which must be `train` and `val` many."""
    folders = {split: Path(root) / f"bedroom_{split}_lmdb" for split in ("train", "val")}
    missing = [str(folder) for folder in folders.values() if not (folder / "data.mdb").is_file()]
    if missing:
        raise FileNotFoundError(
            f"no data.mdb in {' and '.join(missing)}; give the folder into which bedroom_train_lmdb.zip and "
            "bedroom_val_lmdb.zip were unpacked"
        )
    splits = {split: _list_keys(str(folder)) for split, folder in folders.items()}
    collection = Collection("LSUN bedroom", ("bedroom",), splits)
    collection.check_counts({"train": train, "val": val})
    return collection


def _list_keys(folder: str) -> tuple[LmdbOriginal, ...]:
    with open_lmdb(folder) as environment, environment.begin() as transaction:
        keys = transaction.cursor().iternext(keys=True, values=False)
        return tuple(LmdbOriginal(key.decode(), 0, folder) for key in keys)
