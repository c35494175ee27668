"""Preparation of published data sets, on real photographs in small copies of their layouts.

Among the photographs are those that need care (CMYK, grey, 16 bits, palette, transparency, rotation tags, broken
tags) and those that cannot be saved (cut, empty, another kind of file, floating-point pixels).
"""

import errno
import fcntl
import gzip
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from asyncpatch.data import ArrayRecords
from asyncpatch.data.images import read_image, shrink
from asyncpatch.data.prepare import Collection, FileOriginal, check_prepared, imagenet, lsun_bedroom, prepare
from experiments import prepare_data

ROOT = Path(__file__).parent.parent
SIZE = 24

# --- Real photographs in every kind of file


PHOTOS = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}


def crop(photo: str, number: int, height: int = 90, width: int = 120) -> np.ndarray:
    pixels = PHOTOS[photo]
    top, left = 37 * number % (pixels.shape[0] - height), 53 * number % (pixels.shape[1] - width)
    return pixels[top : top + height, left : left + width]


def encode(pixels: np.ndarray, kind: str = "JPEG", mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def rotated(pixels: np.ndarray, tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return encode(pixels, exif=exif)


def sixteen_bits(pixels: np.ndarray) -> bytes:
    grey = pixels.mean(axis=2)
    file = io.BytesIO()
    Image.fromarray(np.round(grey * 257).astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


def with_transparency(pixels: np.ndarray) -> bytes:
    alpha = np.linspace(0, 255, pixels.shape[1]).astype(np.uint8)
    return encode(np.dstack([pixels, np.broadcast_to(alpha, pixels.shape[:2])]), "PNG", "RGBA")


SOUND: dict[str, Callable[[np.ndarray], bytes]] = {
    "jpeg": lambda pixels: encode(pixels, quality=90),
    "progressive": lambda pixels: encode(pixels, progressive=True),
    "png": lambda pixels: encode(pixels, "PNG"),
    "webp": lambda pixels: encode(pixels, "WEBP", quality=80),
    "cmyk": lambda pixels: encode(pixels, mode="CMYK"),
    "grey": lambda pixels: encode(pixels, mode="L"),
    "16 bits": sixteen_bits,
    "palette": lambda pixels: encode(pixels, "GIF", "P"),
    "transparency": with_transparency,
    "upside down": lambda pixels: rotated(pixels, 3),
    "on its side": lambda pixels: rotated(pixels, 6),
    "mirrored on its side": lambda pixels: rotated(pixels, 5),
    "broken tags": lambda pixels: encode(pixels, exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnonsense"),
    "tall": lambda pixels: encode(pixels.swapaxes(0, 1)),
    "small": lambda pixels: encode(pixels[:SIZE, : SIZE + 7]),
}

DAMAGED: dict[str, tuple[Callable[[np.ndarray], bytes], str]] = {
    "cut": (lambda pixels: encode(pixels)[:1500], "truncated"),
    "text": (lambda pixels: b"<html>404 not found</html>", "no image of a known kind"),
    "empty": (lambda pixels: b"", "no image of a known kind"),
    "float": (lambda pixels: encode(pixels, "TIFF", "F"), "floating-point pixels"),
}


def reference(content: bytes, size: int) -> np.ndarray:
    """The same by other means: turned with numpy, CMYK and transparency by formula, areas by a matrix of overlaps."""
    image = Image.open(io.BytesIO(content))
    turn = {3: lambda a: a[::-1, ::-1], 5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1)}
    try:
        tag = image.getexif().get(0x0112, 1)
    except Exception:
        tag = 1
    if image.mode == "CMYK":
        ink = np.asarray(image) / 255
        pixels = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    elif image.mode == "RGBA":
        layers = np.asarray(image).astype(float)
        pixels = layers[..., :3] * layers[..., 3:] / 255 + 255 - layers[..., 3:]
    elif image.mode.startswith("I"):
        pixels = np.repeat(np.asarray(image)[..., None] // 256, 3, axis=2)
    else:
        pixels = np.asarray(image.convert("RGB"))
    pixels = turn.get(tag, lambda a: a)(pixels).astype(float)
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return area_means(pixels[top : top + side, left : left + side], size)


def area_means(square: np.ndarray, size: int) -> np.ndarray:
    side, cuts = len(square), np.linspace(0, len(square), size + 1)
    pixel = np.arange(side)
    overlap = np.minimum(cuts[1:, None], pixel + 1) - np.maximum(cuts[:-1, None], pixel)
    weights = overlap.clip(0) * size / side
    return np.einsum("iy,jx,yxc->ijc", weights, weights, square, optimize=True)


def read(content: bytes, size: int = SIZE) -> np.ndarray:
    return read_image(io.BytesIO(content), size)


def check_areas(resize: Callable[[np.ndarray, int], np.ndarray], side: int, size: int) -> None:
    """Within half a level of the mean over areas, and up to rounding indifferent to a stop at twice the size."""
    square = crop("coffee", side, side, side)
    assert np.abs(resize(square, size) - area_means(square, size)).max() <= 0.5 + 1e-6
    if side >= 2 * size:
        halved = resize(square, 2 * size).reshape(size, 2, size, 2, 3).mean((1, 3))
        assert np.abs(halved - resize(square, size)).max() <= 1 + 1e-6


@given(st.integers(2, 250), st.data())
def test_shrinking_takes_areas(side, data):
    check_areas(shrink, side, data.draw(st.integers(1, side)))


@pytest.mark.parametrize("twin", [Image.Resampling.BOX, Image.Resampling.BICUBIC])
def test_area_law_rejects_filters(twin):
    def resize(square: np.ndarray, size: int) -> np.ndarray:
        return np.asarray(Image.fromarray(square).resize((size, size), twin))

    with pytest.raises(AssertionError):
        check_areas(resize, 90, 64)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", SOUND)
def test_every_kind_of_file_has_the_pixels_of_the_reference(kind):
    """Within a level: conversions of CMYK and of transparency round before the mean, the reference after it."""
    content = SOUND[kind](crop("astronaut", 3))
    assert np.abs(read(content) - reference(content, SIZE)).max() <= 1


def test_rotation_tags_are_seen():
    """The wrong twin of the reference: what ignores the tag is far off."""
    content = SOUND["on its side"](crop("astronaut", 3))
    untagged = SOUND["jpeg"](crop("astronaut", 3))
    assert np.abs(read(content) - reference(untagged, SIZE)).max() > 50


def test_large_sides_do_not_overflow():
    white = np.full((3000, 3000, 1), 255, np.uint8)
    assert (shrink(white, 7) == 255).all()


# --- Small copies of the published layouts

SYNSETS = {"n03126707": "crane", "n01440764": "tench, Tinca tinca", "n02012849": "crane"}
IN_ORDER = sorted(SYNSETS)
TRAIN, VAL = len(SOUND), 6


def images_by_class() -> dict[str, dict[str, bytes]]:
    """The sound kinds dealt to three classes, which get different photographs."""
    classes: dict[str, dict[str, bytes]] = {synset: {} for synset in IN_ORDER}
    for i, write in enumerate(SOUND.values()):
        synset = IN_ORDER[i % 3]
        classes[synset][f"{synset}_{i}.JPEG"] = write(crop(list(PHOTOS)[i % 4], i))
    return classes


def val_images() -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{i:08d}.JPEG": encode(crop("rocket", i)) for i in range(1, VAL + 1)}


VAL_SYNSETS = [IN_ORDER[i] for i in (2, 0, 1, 1, 0, 2)]


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in reversed(files.items()):  # archives keep no order
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def tar_bytes(files: dict[str, bytes], scratch: Path) -> bytes:
    write_tar(scratch, files)
    content = scratch.read_bytes()
    scratch.unlink()
    return content


def write_names(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{synset} {words}\n" for synset, words in SYNSETS.items())
    (root / "LOC_synset_mapping.txt").write_text(lines)


def write_kit(root: Path) -> None:
    """The development kit, which numbers classes in an order of its own and lists groups of classes too."""
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    columns = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    numbered = [(number, synset, words, 0) for number, (synset, words) in enumerate(SYNSETS.items(), start=1)]
    synsets = np.array([*numbered, (4, "n00001740", "entity", 3)], dtype=columns)
    savemat(kit / "meta.mat", {"synsets": synsets[:, None]})
    numbers = {synset: number for number, synset, *_ in numbered}
    truth = "".join(f"{numbers[synset]}\n" for synset in VAL_SYNSETS)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


def write_solution(root: Path) -> None:
    rows = [f"{Path(name).stem},{synset} 1 2 30 40 " for name, synset in zip(val_images(), VAL_SYNSETS, strict=True)]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\n")


def official_archives(root: Path) -> Path:
    write_kit(root)
    classes = {f"{name}.tar": tar_bytes(files, root / "inner.tar") for name, files in images_by_class().items()}
    write_tar(root / "ILSVRC2012_img_train.tar", classes)
    write_tar(root / "ILSVRC2012_img_val.tar", val_images())
    return root


def kaggle_folders(root: Path) -> Path:
    write_names(root)
    write_solution(root)
    for synset, files in images_by_class().items():
        write_files(root / "ILSVRC/Data/CLS-LOC/train" / synset, files | {"notes.txt": b"", "._a.JPEG": b""})
    write_files(root / "ILSVRC/Data/CLS-LOC/val", val_images())
    return root


def class_folders(root: Path) -> Path:
    write_names(root)
    for synset, files in images_by_class().items():
        write_files(root / "train" / synset, files)
    for (name, content), synset in zip(val_images().items(), VAL_SYNSETS, strict=True):
        write_files(root / "val" / synset, {name: content})
    return root


LAYOUTS = {"archives": official_archives, "kaggle": kaggle_folders, "class folders": class_folders}


def listing(root: Path) -> Collection:
    return imagenet(root, TRAIN, VAL)


def outcome(folder: Path) -> dict[str, str]:
    """The hash of every file that a preparation leaves, by path; nothing temporary is among it."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return class_folders(tmp_path_factory.mktemp("imagenet"))


@pytest.fixture(scope="module")
def prepared(root, tmp_path_factory) -> Path:
    """Prepared in this process without interruption, four images to a shard."""
    folder = tmp_path_factory.mktemp("prepared") / "out"
    prepare(listing(root), SIZE, folder, images_per_shard=4)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_and_classes(layout, tmp_path, prepared):
    collection = listing(LAYOUTS[layout](tmp_path / "root"))
    assert collection.class_names == ("n01440764 tench, Tinca tinca", "n02012849 crane", "n03126707 crane")
    prepare(collection, SIZE, tmp_path / "out", images_per_shard=4)
    assert outcome(tmp_path / "out") == outcome(prepared)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_records_are_the_images_in_order(prepared):
    train = [pair for files in images_by_class().values() for pair in sorted(files.items())]
    for split, files, synsets in (
        ("train", train, [name.split("_")[0] for name, _ in train]),
        ("val", sorted(val_images().items()), VAL_SYNSETS),
    ):
        records = ArrayRecords(str(prepared / split)).open()
        assert [int(records[i]["label"]) for i in range(len(records))] == [IN_ORDER.index(name) for name in synsets]
        assert all(np.array_equal(records[i]["image"], read(content)) for i, (_, content) in enumerate(files))


def test_index_counts_classes_and_names_shards(prepared):
    index = check_prepared(prepared)
    train = index["splits"]["train"]
    assert (train["images"], train["records"], train["per_class"], train["damaged"]) == (TRAIN, TRAIN, [5, 5, 5], {})
    assert [shard["records"] for shard in train["shards"]] == [4, 4, 4, 3]
    assert index["splits"]["val"]["per_class"] == [2, 2, 2]
    assert index["size"] == SIZE
    assert "Pillow" in index["decoder"]


def write_bedrooms(root: Path) -> dict[str, dict[str, bytes]]:
    """Keys that are hashes, values of two kinds."""
    written = {}
    for split, kinds in (("train", ("webp", "jpeg", "webp")), ("val", ("webp",))):
        contents = [SOUND[kind](crop("coffee", i)) for i, kind in enumerate(kinds)]
        written[split] = {hashlib.sha1(content).hexdigest(): content for content in contents}
        folder = str(root / f"bedroom_{split}_lmdb")
        with lmdb.open(folder, map_size=2**20) as environment, environment.begin(write=True) as transaction:
            for key, content in written[split].items():
                transaction.put(key.encode(), content)
    return written


def test_bedrooms_are_read_in_the_order_of_their_keys(tmp_path):
    written = write_bedrooms(tmp_path)
    index = prepare(lsun_bedroom(tmp_path, 3, 1), SIZE, tmp_path / "out")
    assert index["class_names"] == ["bedroom"]
    for split, values in written.items():
        records = ArrayRecords(str(tmp_path / "out" / split)).open()
        assert len(records) == len(values)
        for i, key in enumerate(sorted(values)):
            assert np.array_equal(records[i]["image"], read(values[key]))


# --- The same bytes for any number of workers, and after a run was killed


def check_workers_do_not_matter(prepare_with: Callable[[int, Path], object], expected: Path, folder: Path) -> None:
    for workers in (1, 2):
        prepare_with(workers, folder / str(workers))
        assert outcome(folder / str(workers)) == outcome(expected)


def test_worker_count_does_not_matter(root, prepared, tmp_path):
    told = []

    def prepare_with(workers: int, folder: Path) -> None:
        progress = lambda done, total: told.append((done, total))  # noqa: E731
        prepare(listing(root), SIZE, folder, images_per_shard=4, workers=workers, progress=progress)

    check_workers_do_not_matter(prepare_with, prepared, tmp_path)
    assert told[-1] == (TRAIN + VAL, TRAIN + VAL)


def test_worker_law_rejects_shards_by_worker(root, prepared, tmp_path):
    def wrong(workers: int, folder: Path) -> None:
        prepare(listing(root), SIZE, folder, images_per_shard=-(-TRAIN // workers))

    with pytest.raises(AssertionError):
        check_workers_do_not_matter(wrong, prepared, tmp_path)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def has_reader(pipe: Path) -> bool:
    """Does not leave a reader waiting, so it is asked only about readers that should be gone."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True


KILLED_RUN = """
import dataclasses
import sys
from asyncpatch.data.prepare import AbstractOriginal, imagenet, prepare


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting(AbstractOriginal):
    path: str

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()


if __name__ == "__main__":
    root, output, train, val, size = sys.argv[1:]
    listed = imagenet(root, int(train), int(val))
    originals = tuple(
        Waiting(one.name, one.label, one.path) if i == 6 else one for i, one in enumerate(listed.splits["train"])
    )
    listed = dataclasses.replace(listed, splits={**listed.splits, "train": originals})
    prepare(listed, int(size), output, images_per_shard=4, workers=1)
"""


def test_killed_run_resumes_to_the_same_bytes(prepared, tmp_path):
    """One image is a pipe that nobody writes to, which files are not allowed to be: it has an original of its own. The
    worker waits in the middle of the second shard, and is killed.
    """
    root, output = class_folders(tmp_path / "root"), tmp_path / "out"
    blocking = sorted(path for path in (root / "train").rglob("*.JPEG"))[6]
    content = blocking.read_bytes()
    blocking.unlink()
    os.mkfifo(blocking)
    (tmp_path / "killed_run.py").write_text(KILLED_RUN)
    arguments = [str(value) for value in (tmp_path / "killed_run.py", root, output, TRAIN, VAL, SIZE)]
    run = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    first = output / "train" / "records-00000-of-00004.json"
    wait_until(lambda: first.is_file() and any((output / "train").glob(".records-00001*.partial")))
    time.sleep(0.2)  # for the worker to come to the pipe
    run.send_signal(signal.SIGKILL)
    run.wait()
    time.sleep(0.5)
    wait_until(lambda: not has_reader(blocking))  # the worker left as well
    assert not (output / "index.json").exists()
    with pytest.raises(FileNotFoundError, match=r"no dataset.json"):
        ArrayRecords(str(output / "train")).open()

    blocking.unlink()
    blocking.write_bytes(content)
    made = first.stat().st_mtime_ns
    prepare(listing(root), SIZE, output, images_per_shard=4)
    assert first.stat().st_mtime_ns == made
    assert outcome(output) == outcome(prepared)


def test_damaged_shards_are_named_and_made_again(root, prepared, tmp_path):
    prepare(listing(root), SIZE, tmp_path / "out", images_per_shard=4)
    victim = tmp_path / "out" / "train" / "records-00002-of-00004.array_record"
    content = bytearray(victim.read_bytes())
    content[len(content) // 3] ^= 1
    victim.write_bytes(content)
    (tmp_path / "out" / "val" / "records-00000-of-00002.array_record").unlink()
    with pytest.raises(ValueError, match=r"2 of 6 shards .*train/records-00002-of-00004.*val/records-00000-of-00002"):
        check_prepared(tmp_path / "out")
    prepare(listing(root), SIZE, tmp_path / "out", images_per_shard=4)
    assert outcome(tmp_path / "out") == outcome(prepared)


# --- Damaged images


def spoil(root: Path) -> dict[str, str]:
    """Replace one image by each kind of damage. Returns part of the reason by name."""
    paths = sorted((root / "train").rglob("*.JPEG"))[::3]
    reasons = {}
    for path, (write, reason) in zip(paths, DAMAGED.values(), strict=False):
        path.write_bytes(write(crop("chelsea", 1)))
        reasons[f"{path.parent.name}/{path.name}"] = reason
    assert len(reasons) == len(DAMAGED)
    return reasons


def test_each_damaged_image_is_named(tmp_path, caplog):
    root = class_folders(tmp_path / "root")
    reasons = spoil(root)
    with pytest.raises(ValueError, match=r"4 of 15 images of train are damaged, more than the share of 0.0") as error:
        prepare(listing(root), SIZE, tmp_path / "out", images_per_shard=4)
    assert all(name in str(error.value) for name in reasons)
    with caplog.at_level(logging.WARNING):
        index = prepare(listing(root), SIZE, tmp_path / "out", images_per_shard=4, max_corrupt_share=0.3)
    train = index["splits"]["train"]
    assert train["damaged"].keys() == reasons.keys()
    assert all(reason in train["damaged"][name] for name, reason in reasons.items())
    assert all(name in caplog.text for name in reasons)
    assert (train["images"], train["records"]) == (TRAIN, TRAIN - 4)
    assert len(ArrayRecords(str(tmp_path / "out" / "train")).open()) == TRAIN - 4


def test_mended_images_are_taken_up(tmp_path, prepared):
    root = class_folders(tmp_path / "root")
    spoil(root)
    with pytest.raises(ValueError, match="are damaged"):
        prepare(listing(root), SIZE, tmp_path / "out", images_per_shard=4)
    class_folders(tmp_path / "root")
    prepare(listing(root), SIZE, tmp_path / "out", images_per_shard=4)
    assert outcome(tmp_path / "out") == outcome(prepared)


def test_reports_do_not_depend_on_the_process(tmp_path):
    """Pillow names what it cannot identify by an address in memory."""
    root = class_folders(tmp_path / "root")
    spoil(root)
    for name in ("one", "two"):
        prepare(listing(root), SIZE, tmp_path / name, images_per_shard=4, max_corrupt_share=0.3)
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")


def test_a_shard_of_damaged_images_alone(tmp_path):
    """It is empty, and the others are read all the same."""
    files = {f"{i}.JPEG": encode(crop("coffee", i)) if i > 1 else b"" for i in range(4)}
    write_files(tmp_path / "photos", files)
    originals = tuple(FileOriginal(name, 0, str(tmp_path / "photos" / name)) for name in files)
    collection = Collection("photos", ("photo",), {"train": originals})
    prepare(collection, SIZE, tmp_path / "out", images_per_shard=2, max_corrupt_share=0.5)
    records = ArrayRecords(str(tmp_path / "out" / "train")).open()
    assert len(records) == 2
    assert np.array_equal(records[1]["image"], read(files["3.JPEG"]))


def test_images_that_cannot_be_read_stop_the_run(tmp_path):
    """A disk or server that fails says nothing about the image."""
    collection = Collection("photos", ("photo",), {"train": (FileOriginal("gone", 0, str(tmp_path / "gone.JPEG")),)})
    with pytest.raises(FileNotFoundError, match="gone cannot be read: No such file"):
        prepare(collection, SIZE, tmp_path / "out", max_corrupt_share=0.5)


# --- Errors, before any image is decoded


def cut_archive(root: Path) -> None:
    path = official_archives(root) / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:-20_000])


def compressed_archive(root: Path) -> None:
    path = official_archives(root) / "ILSVRC2012_img_val.tar"
    path.write_bytes(gzip.compress(path.read_bytes()))


def without(name: str, layout: Callable[[Path], Path] = official_archives) -> Callable[[Path], None]:
    return lambda root: next(layout(root).rglob(name)).unlink()


def fewer_classes(root: Path) -> None:
    class_folders(root)
    (root / "train" / "n01440764").rename(root / "train" / "n99999999")


def other_names(root: Path) -> None:
    class_folders(root)
    (root / "LOC_synset_mapping.txt").write_text("tench\n")


def other_truth(root: Path) -> None:
    next(official_archives(root).rglob("*ground_truth.txt")).write_text("1\n2\n3\n900\n1\n1\n")


def short_truth(root: Path) -> None:
    next(official_archives(root).rglob("*ground_truth.txt")).write_text("1\n2\n3\n")


@pytest.mark.parametrize(
    ("layout", "error", "message"),
    [
        (without("n01440764_0.JPEG", class_folders), ValueError, "train holds 14, expected 15"),
        (without("LOC_synset_mapping.txt", class_folders), FileNotFoundError, "none of LOC_synset_mapping.txt, meta"),
        (without("meta.mat"), FileNotFoundError, "none of LOC_synset_mapping.txt, meta.mat"),
        (without("*ground_truth.txt"), FileNotFoundError, r"none of LOC_val_solution.csv, ILSVRC2012_validation"),
        (without("ILSVRC2012_img_train.tar"), FileNotFoundError, "none of ILSVRC2012_img_train.tar, train"),
        (cut_archive, ValueError, "ILSVRC2012_img_train.tar is cut, damaged or no plain archive"),
        (compressed_archive, ValueError, "ILSVRC2012_img_val.tar is cut, damaged or no plain archive"),
        (fewer_classes, ValueError, r"has 1 others \['n99999999'\], and lacks 1 \['n01440764'\]"),
        (other_names, ValueError, r"should hold lines like .*got \['tench'\]"),
        (other_truth, ValueError, "names class 900, which meta.mat lacks"),
        (short_truth, ValueError, "3 images in .* have no label"),
    ],
)
def test_incomplete_imagenet(tmp_path, layout, error, message):
    layout(tmp_path / "root")
    with pytest.raises(error, match=message):
        listing(tmp_path / "root")


def test_ground_truth_is_not_read_without_its_numbering(tmp_path):
    """Class names alone would give wrong labels: the ground truth does not count classes in their order."""
    write_names(official_archives(tmp_path))
    next(tmp_path.rglob("meta.mat")).unlink()
    with pytest.raises(FileNotFoundError, match=r"holds none of meta.mat"):
        listing(tmp_path)


def test_published_counts_are_expected(root, tmp_path):
    with pytest.raises(ValueError, match=r"train holds 15, expected 1,281,167; val holds 6, expected 50,000"):
        imagenet(root)
    write_bedrooms(tmp_path)
    with pytest.raises(ValueError, match=r"train holds 3, expected 3,033,042; val holds 1, expected 300"):
        lsun_bedroom(tmp_path)


def test_bad_bedrooms(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no data.mdb in .*bedroom_train_lmdb"):
        lsun_bedroom(tmp_path)
    write_bedrooms(tmp_path)
    (tmp_path / "bedroom_train_lmdb" / "data.mdb").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="bedroom_train_lmdb is no LMDB environment, or is cut"):
        lsun_bedroom(tmp_path, 3, 1)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "asyncpatch\[data\]"'):
        lsun_bedroom(tmp_path, 3, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"workers": -1}, "workers must be 0"),
        ({"max_corrupt_share": 1.0}, r"max_corrupt_share must lie in \[0, 1\)"),
        ({"images_per_shard": 0}, "images_per_shard must be at least 1"),
        ({"collection": Collection("photos", ("photo",), {"train": ()})}, "photos has no images in train"),
    ],
)
def test_bad_arguments(root, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare(**({"collection": listing(root), "size": SIZE, "output": tmp_path / "out"} | arguments))
    assert not (tmp_path / "out").exists()


def test_folders_of_others_are_refused(root, prepared, tmp_path):
    with pytest.raises(ValueError, match=r"begun otherwise \(size was 24, is 16\)"):
        prepare(listing(root), 16, prepared, images_per_shard=4)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="holds something else"):
        prepare(listing(root), SIZE, tmp_path)
    with (prepared / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="another run is preparing"):
            prepare(listing(root), SIZE, prepared, images_per_shard=4)
    with pytest.raises(FileNotFoundError, match=r"no index.json"):
        check_prepared(tmp_path)


def test_command_line(root, tmp_path, capsys):
    prepare_data.imagenet(root, SIZE, tmp_path / "out", TRAIN, VAL, workers=0)
    said = capsys.readouterr().out
    assert "train: 15 images, 0 damaged" in said
    prepare_data.check(tmp_path / "out")
    checksum = json.loads((tmp_path / "out" / "index.json").read_text())["sha256"]
    assert capsys.readouterr().out == f"2 shards are as they were prepared; checksum of all: {checksum}\n"
