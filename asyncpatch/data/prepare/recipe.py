"""What a folder is being prepared to, said before the first shard is made, and the hold of one run on it.

Invariant: all shards of a folder are of one recipe. It holds all that their bytes depend on.
"""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import PIL
from PIL import features

from asyncpatch.data.prepare.originals import Collection
from asyncpatch.data.prepare.shards import write_json

FORMAT = "asyncpatch-prepared"
VERSION = 1
PIXELS = "upright by EXIF; RGB of 8 bits; centred square; shrunk to exact area means, or enlarged by bicubic"
LOCK = ".lock"


def make_recipe(collection: Collection, size: int, images_per_shard: int) -> dict[str, Any]:
    """All that the bytes depend on. Decoders of one format differ in the last bit, so theirs are part of it."""
    libraries = [f"{name} {features.version(name)}" for name in ("libjpeg_turbo", "webp")]
    splits = {}
    for split, originals in collection.splits.items():
        listing = hashlib.sha256()
        for original in originals:
            listing.update(f"{original.label} {original.name}\n".encode())
        splits[split] = {"images": len(originals), "listing_sha256": listing.hexdigest()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "dataset": collection.title,
        "size": size,
        "pixels": PIXELS,
        "decoder": ", ".join([f"Pillow {PIL.__version__}", *libraries]),
        "images_per_shard": images_per_shard,
        "splits": splits,
    }


def begin(output: Path, recipe: dict[str, Any]) -> None:
    """Raise `ValueError` if `output` was begun by another recipe; else leave this one there."""
    path = output / "recipe.json"
    if path.is_file():
        begun = json.loads(path.read_text(encoding="utf-8"))
        changed = [f"{key} was {begun.get(key)}, is {recipe[key]}" for key in recipe if begun.get(key) != recipe[key]]
        if changed:
            raise ValueError(
                f"{output} was begun otherwise ({'; '.join(changed)}); remove it, or give another folder: shards of "
                "both would not belong together"
            )
    elif any(entry.name != LOCK for entry in output.iterdir()):
        raise FileExistsError(f"{output} holds something else; give a new or empty folder")
    write_json(path, recipe)


@contextlib.contextmanager
def only_run(output: Path) -> Generator[None, None, None]:
    """Hold `output` alone. The system lets go of it when the process ends, however it ends."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"another run is preparing {output}; wait for it, or give another folder") from error
        yield
