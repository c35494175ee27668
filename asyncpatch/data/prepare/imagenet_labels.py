"""What ImageNet's classes are called, and which class a validation image is of.

    names   LOC_synset_mapping.txt, lines like "n01440764 tench, Tinca tinca", or meta.mat of the development kit
    labels  LOC_val_solution.csv, or ILSVRC2012_validation_ground_truth.txt and meta.mat of the development kit

The ground truth numbers classes from 1 in an order of its own, which is not that of the synset ids: `meta.mat` alone
says which number is which class, and labels read without it would be wrong without any sign of it.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

META_FILE = "meta.mat"
TRUTH_FILE = "ILSVRC2012_validation_ground_truth.txt"
KIT_FOLDERS = ("", "data/", "ILSVRC2012_devkit_t12/data/")

NAMES = ("LOC_synset_mapping.txt",)
SOLUTION = ("LOC_val_solution.csv",)
META = tuple(folder + META_FILE for folder in KIT_FOLDERS)
TRUTH = tuple(folder + TRUTH_FILE for folder in KIT_FOLDERS)


def find_first(root: Path, places: Sequence[str]) -> Path:
    """The first of `places` that is there."""
    for place in places:
        if (root / place).exists():
            return root / place
    raise FileNotFoundError(f"{root} holds none of {', '.join(places)}; give the folder that holds one of them")


def read_class_names(root: Path) -> dict[str, str]:
    """Words of each class by its synset id."""
    path = find_first(root, NAMES + META)
    if path.name == META_FILE:
        return dict(_read_meta(path).values())
    lines = [line.partition(" ") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    wrong = [synset for synset, _, words in lines if not re.fullmatch(r"n\d{8}", synset) or not words.strip()]
    if wrong or not lines:
        raise ValueError(
            f'{path} should hold lines like "n01440764 tench, Tinca tinca", got {wrong[:1] or "none"}; fetch it again'
        )
    return {synset: words.strip() for synset, _, words in lines}


def read_val_synsets(root: Path) -> dict[str, str]:
    """The class of each validation image by its name without suffix."""
    path = find_first(root, SOLUTION + TRUTH)
    if path.name in SOLUTION:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows or not {"ImageId", "PredictionString"} <= rows[0].keys():
            raise ValueError(f"{path} should have the columns ImageId and PredictionString; fetch it again")
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    meta = _read_meta(find_first(root, META))
    numbers = [int(line) for line in path.read_text(encoding="utf-8").split()]
    unknown = sorted(set(numbers) - set(meta))
    if unknown:
        raise ValueError(f"{path} names class {unknown[0]}, which meta.mat lacks; take both from one development kit")
    return {f"ILSVRC2012_val_{i:08d}": meta[number][0] for i, number in enumerate(numbers, start=1)}


def _read_meta(path: Path) -> dict[int, tuple[str, str]]:
    """Synset id and words of each class by its number in the ground truth. `meta.mat` also lists groups of classes."""
    from scipy.io import loadmat  # a second to import, and only this layout needs it

    synsets = loadmat(path, squeeze_me=True)["synsets"]
    return {
        int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"])) for row in synsets if row["num_children"] == 0
    }
