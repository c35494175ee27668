"""Emoji as a small labelled set of coloured pictures: npm's `emoji-datasource-google`, Noto's emoji at 64x64 pixels.

    npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
    package/emoji.json, package/img/google/64/*.png

The class is the category. Skin tones are left out, those of people and the category `Component`, which is nothing else;
a picture that was taken already is left out too. Emoji that differ in the sex, or in the direction that somebody faces,
look much alike: they are one family, and a family is either trained on or held out. Which, its digest says, so that it
stays where it is in other releases. Transparent pixels show white.
"""

import hashlib
import json
from pathlib import Path

from asyncpatch.data.prepare.originals import Collection, FileOriginal

LISTING, IMAGES = "emoji.json", "img/google/64"

NO_PICTURES = "Component"
"""The category of skin tones and hair, which are no pictures."""

SAME_PERSON = {"1F468": "1F9D1", "1F469": "1F9D1"}
"""Man and woman, as a person."""

NOT_TOLD_APART = {"200D", "2640", "2642", "27A1", "FE0F"}
"""Joiners, the signs of both sexes, an arrow for who faces right, and the wish for colour."""

HELD_OUT_ONE_IN = 10


def emoji(root: str | Path) -> Collection:
    """List the emoji of the unpacked package at `root`.

    Raises `FileNotFoundError` if it is not there, `ValueError` if its listing is none.
    """
    root = Path(root)
    if not (root / LISTING).is_file():
        raise FileNotFoundError(
            f"no {LISTING} in {root}; give the folder package that npm pack emoji-datasource-google@16.0.0 and tar xzf "
            "unpack"
        )
    try:
        entries = [
            (entry["category"], entry["sort_order"], entry["unified"], entry["image"])
            for entry in json.loads((root / LISTING).read_text(encoding="utf-8"))
            if entry["has_img_google"] and entry["category"] != NO_PICTURES
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{root / LISTING} lists no emoji ({error!r}); unpack the package again") from error
    classes = tuple(sorted({category for category, *_ in entries}))
    splits: dict[str, list[FileOriginal]] = {"train": [], "val": []}
    seen = set[str]()
    for category, _, unified, image in sorted(entries):
        path = root / IMAGES / image
        if not path.is_file():
            raise FileNotFoundError(f"no {path}, which {LISTING} lists; unpack the package again")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in seen:
            continue
        seen.add(digest)
        name = f"{image} {digest[:16]}"
        splits[_split(unified)].append(FileOriginal(name, classes.index(category), str(path)))
    return Collection("emoji", classes, {split: tuple(part) for split, part in splits.items()})


def family(unified: str) -> str:
    """What is left of an emoji's code points without what is not told apart."""
    points = [SAME_PERSON.get(point, point) for point in unified.split("-")]
    return "-".join(point for point in points if point not in NOT_TOLD_APART)


def _split(unified: str) -> str:
    drawn = int.from_bytes(hashlib.sha256(family(unified).encode()).digest()[:8])
    return "val" if drawn % HELD_OUT_ONE_IN == 0 else "train"
