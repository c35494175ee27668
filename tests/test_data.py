"""Laws of every source, and the errors that bad files and bad arguments must give."""

import dataclasses
import gzip
import json
import logging
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from asyncpatch.data import (
    AbstractRecords,
    AbstractSource,
    ArrayRecords,
    Digits,
    Folds,
    IdxFiles,
    ImageFolder,
    Record,
    TextureCrops,
    digits,
    hold_out,
    write_array_records,
)
from asyncpatch.data.image_folder import read_image

# --- Small data sets on disk


def idx_bytes(array: np.ndarray, magic: int) -> bytes:
    return struct.pack(f">{array.ndim + 1}I", magic, *array.shape) + array.tobytes()


def write_idx(folder: Path, count: int = 12) -> IdxFiles:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 6, 5), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 3
    (folder / "images.gz").write_bytes(gzip.compress(idx_bytes(images, 0x803)))
    (folder / "labels").write_bytes(idx_bytes(labels, 0x801))
    return IdxFiles(str(folder / "images.gz"), str(folder / "labels"))


def write_photos(folder: Path, size: int = 16) -> ImageFolder:
    """Crops of two real photographs, as JPEG and PNG, in two classes, one of them nested."""
    temple, flower = (Image.fromarray(photo) for photo in load_sample_images().images)
    for name, photo in {"temple/a": temple, "flower": flower}.items():
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(3):
            crop = photo.crop((100 * i, 50 * i, 100 * i + 90, 50 * i + 60))
            crop.save(folder / "photos" / name / f"{i}.JPEG")
            crop.save(folder / "photos" / name / f"{i}.png")
    (folder / "photos" / "flower" / "notes.txt").write_text("not an image")
    return ImageFolder(str(folder / "photos"), size)


def write_converted(folder: Path) -> ArrayRecords:
    write_array_records(write_idx(folder), folder / "records", shards=5)
    return ArrayRecords(str(folder / "records"))


SOURCES: dict[str, Callable[[Path], AbstractSource]] = {
    "digits": lambda folder: Digits(),
    "idx": write_idx,
    "textures": lambda folder: TextureCrops(((0, 33),)),
    "folder": write_photos,
    "array_records": write_converted,
    "folds": lambda folder: Folds(write_idx(folder), 4, (0, 3)),
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractSource:
    return SOURCES[request.param](tmp_path)


def same_record(one: Record, other: Record) -> bool:
    return all(one[k].dtype == other[k].dtype and np.array_equal(one[k], other[k]) for k in ("image", "label"))


# --- Laws of sources


def check_well_formed(records: AbstractRecords) -> None:
    assert len(records) >= 1
    assert len(set(records.class_names)) == len(records.class_names)
    for i in (0, len(records) // 2, len(records) - 1):
        record = records[i]
        assert record["image"].dtype == np.uint8
        assert record["image"].shape == records.shape
        assert record["label"].dtype == np.int32
        assert record["label"].shape == ()
        assert 0 <= record["label"] < len(records.class_names)


def check_depends_on_index_alone(records: AbstractRecords) -> None:
    first = [records[i] for i in (0, 1, 2)]
    again = [records[i] for i in (2, 1, 0)]
    assert all(same_record(*pair) for pair in zip(first, reversed(again), strict=True))


def check_survives_pickling(records: AbstractRecords) -> None:
    copy = pickle.loads(pickle.dumps(records))
    assert len(copy) == len(records)
    assert (copy.shape, copy.class_names) == (records.shape, records.class_names)
    assert all(same_record(copy[i], records[i]) for i in range(3))


LAWS = [check_well_formed, check_depends_on_index_alone, check_survives_pickling]


@pytest.mark.parametrize("law", LAWS)
def test_records(source, law):
    law(source.open())


class WrongRecords(AbstractRecords):
    """Breaks every law: the label is outside, images change with each reading, and it refuses to be pickled."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Record:
        image = np.random.default_rng().integers(0, 256, self.shape, dtype=np.uint8)
        return {"image": image, "label": np.asarray(7, np.int32)}

    def __reduce__(self):
        raise AssertionError("cannot be pickled")


@pytest.mark.parametrize("law", LAWS)
def test_laws_reject_wrong_records(law):
    with pytest.raises(AssertionError):
        law(WrongRecords((4, 4, 1), ("a", "b")))


def test_source_is_a_plain_value(source):
    assert source == dataclasses.replace(source)
    assert hash(source) == hash(dataclasses.replace(source))
    fields = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    plain = {name: value for name, value in fields.items() if not isinstance(value, AbstractSource)}
    back = json.loads(json.dumps(plain))
    assert {name: as_tuples(value) for name, value in back.items()} == plain


def as_tuples(value: object) -> object:
    """What JSON reads as lists, as the tuples that they were."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def test_converting_keeps_records_and_their_order(source, tmp_path):
    write_array_records(source, tmp_path / "converted", shards=3)
    original, converted = source.open(), ArrayRecords(str(tmp_path / "converted")).open()
    assert (converted.shape, converted.class_names) == (original.shape, original.class_names)
    assert len(converted) == len(original)
    assert all(same_record(original[i], converted[i]) for i in range(len(original)))


# --- What each source holds


def test_digits_span_the_whole_range():
    records = Digits().open()
    assert (len(records), records.shape, len(records.class_names)) == (1797, (8, 8, 1), 10)
    assert (records.images.min(), records.images.max()) == (0, 255)


@pytest.mark.parametrize(("name", "moved"), [("FILE", "sklearn/moved.csv.gz"), ("load_digits", None)])
def test_digits_are_those_that_scikit_learn_loads(name, moved, monkeypatch):
    """By its function where the file is elsewhere, and from the file where there is no such function."""
    theirs = load_digits()
    monkeypatch.setattr(digits if name == "FILE" else sklearn.datasets, name, moved)
    records = Digits().open()
    assert np.array_equal(records.images[..., 0], np.rint(theirs.images * 255 / 16))
    assert np.array_equal(records.labels, theirs.target)
    assert records.labels.dtype == np.int32
    assert records.class_names == tuple(map(str, theirs.target_names))


def test_idx_reads_what_was_written(tmp_path):
    records = write_idx(tmp_path).open()
    expected = np.random.default_rng(0).integers(0, 256, (12, 6, 5), dtype=np.uint8)
    assert np.array_equal(records.images[..., 0], expected)
    assert records.labels.tolist() == [0, 1, 2] * 4


def test_folder_takes_classes_and_files_in_order(tmp_path):
    records = write_photos(tmp_path).open()
    assert records.class_names == ("flower", "temple")
    assert [Path(path).name for path in records.paths[:3]] == ["0.JPEG", "0.png", "1.JPEG"]
    assert records.labels.tolist() == [0] * 6 + [1] * 6


def test_folder_crops_the_centre_and_averages_areas(tmp_path):
    """Pillow averages along rows, rounds, averages along columns and rounds again: at most 1/2 twice."""
    photo = load_sample_images().images[0][:64, :96]
    Image.fromarray(photo).save(tmp_path / "a.png")
    expected = photo[:, 16:80].reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(read_image(str(tmp_path / "a.png"), 16) - expected).max() <= 1


def test_folds_are_disjoint_and_complete():
    records = Digits().open()
    training, held_out = (part.open() for part in hold_out(Digits(), one_in=7))
    assert sorted([*training.indices, *held_out.indices]) == list(range(len(records)))
    assert same_record(held_out[2], records[14])


# --- Every kind of image file becomes RGB of 8 bits


GRADIENT = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)


def save(path: Path, image: Image.Image, **options) -> str:
    image.save(path, **options)
    return str(path)


def palette_image() -> Image.Image:
    return Image.fromarray(GRADIENT).convert("P")


GREY_FILES = {
    "grey": lambda folder: save(folder / "a.png", Image.fromarray(GRADIENT)),
    "rgb": lambda folder: save(folder / "a.ppm", Image.fromarray(GRADIENT).convert("RGB")),
    "16 bit": lambda folder: save(folder / "a.png", Image.fromarray(GRADIENT.astype(np.uint16) * 257)),
    "cmyk": lambda folder: save(folder / "a.tif", Image.fromarray(GRADIENT).convert("RGB").convert("CMYK")),
    "palette": lambda folder: save(folder / "a.gif", palette_image()),
    "opaque": lambda folder: save(folder / "a.png", Image.fromarray(GRADIENT).convert("RGBA")),
}


@pytest.mark.parametrize("write", GREY_FILES.values(), ids=GREY_FILES)
def test_every_pixel_format_reads_the_same(write, tmp_path):
    read = read_image(write(tmp_path), 8)
    assert read.dtype == np.uint8
    assert np.array_equal(read, np.repeat(GRADIENT[..., None], 3, axis=2))


def test_transparent_pixels_show_white(tmp_path):
    colours = np.zeros((8, 8, 4), np.uint8)
    colours[:4] = [10, 20, 30, 255]
    read = read_image(save(tmp_path / "a.png", Image.fromarray(colours)), 8)
    assert (read[:4] == [10, 20, 30]).all()
    assert (read[4:] == 255).all()


def test_rotation_tag_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter clockwise
    read = read_image(save(tmp_path / "a.png", Image.fromarray(GRADIENT), exif=exif), 8)
    assert np.array_equal(read[..., 0], np.rot90(GRADIENT, -1))


def test_small_images_are_enlarged(tmp_path):
    read = read_image(save(tmp_path / "a.png", Image.fromarray(GRADIENT)), 32)
    assert np.abs(read[16, :, 0].astype(int)[::4] - GRADIENT[4]).max() < 16


# --- Corrupt images


def corrupt_one(folder: ImageFolder) -> Path:
    victim = Path(folder.root) / "flower" / "1.png"
    victim.write_bytes(victim.read_bytes()[:2000])
    return victim


def test_corrupt_image_is_counted_named_and_skipped(tmp_path, caplog):
    source = dataclasses.replace(write_photos(tmp_path), max_corrupt_share=0.1)
    whole = source.open()
    victim = corrupt_one(source)
    with caplog.at_level(logging.WARNING):
        rest = source.open()
    assert str(victim) in caplog.text
    assert "skipped 1 corrupt images of 12" in caplog.text
    assert set(whole.paths) - set(rest.paths) == {str(victim)}
    assert rest.labels.tolist() == [0] * 5 + [1] * 6


def test_too_many_corrupt_images_stop_the_run(tmp_path):
    source = dataclasses.replace(write_photos(tmp_path), max_corrupt_share=0.05)
    victim = corrupt_one(source)
    with pytest.raises(ValueError, match=r"1 of 12 images .* corrupt, more than the share of 0.05") as error:
        source.open()
    assert str(victim) in str(error.value)


def test_a_file_of_another_kind_and_a_float_image_are_corrupt(tmp_path):
    source = dataclasses.replace(write_photos(tmp_path), max_corrupt_share=0.2)
    (Path(source.root) / "flower" / "text.png").write_text("not an image")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(Path(source.root) / "flower" / "float.tif")
    assert len(source.open()) == 12


# --- Errors of sources, before any compute


@pytest.mark.parametrize(
    ("layout", "error", "message"),
    [
        (lambda root: None, FileNotFoundError, "no folder at"),
        (lambda root: root.mkdir(), ValueError, "has no sub-folders"),
        (lambda root: (root / "cat").mkdir(parents=True), ValueError, "class folder .*cat holds no image"),
    ],
    ids=["missing", "empty", "empty class"],
)
def test_folder_without_images(tmp_path, layout, error, message):
    layout(tmp_path / "root")
    with pytest.raises(error, match=message):
        ImageFolder(str(tmp_path / "root"), 8).open()


IMAGES = idx_bytes(np.zeros((3, 4, 4), np.uint8), 0x803)
LABELS = idx_bytes(np.zeros(3, np.uint8), 0x801)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:-1], LABELS, "should hold 48 bytes .* got 47"),
        (IMAGES + b"x", LABELS, "should hold 48 bytes .* got 49"),
        (IMAGES[:10], LABELS, "is cut: an IDX header takes 16 bytes, got 10"),
        (b"", LABELS, "is cut"),
        (gzip.compress(IMAGES)[:-12], LABELS, "damaged or cut gzip"),
        (gzip.compress(IMAGES)[:15] + b"\xff" * 20, LABELS, "damaged or cut gzip"),
        (LABELS + bytes(20), IMAGES, "begins with 0x00000801, expected 0x00000803"),
        (IMAGES, idx_bytes(np.zeros(2, np.uint8), 0x801), "holds 3 images but .* holds 2 labels"),
        (idx_bytes(np.zeros((0, 4, 4), np.uint8), 0x803), LABELS, "holds no data"),
    ],
    ids=["cut", "too long", "cut header", "empty", "cut gzip", "damaged gzip", "swapped", "mismatch", "no images"],
)
def test_bad_idx_files(tmp_path, images, labels, message):
    (tmp_path / "images").write_bytes(images)
    (tmp_path / "labels").write_bytes(labels)
    with pytest.raises(ValueError, match=message):
        IdxFiles(str(tmp_path / "images"), str(tmp_path / "labels")).open()


def test_missing_idx_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no IDX file at"):
        IdxFiles(str(tmp_path / "images"), str(tmp_path / "labels")).open()


def edit_sidecar(folder: Path, **changes) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_shard(folder: Path) -> None:
    path = folder / "records-00003-of-00005.array_record"
    path.write_bytes(path.read_bytes()[:40_000])


def foreign_shard(folder: Path) -> None:
    writer = ArrayRecordWriter(str(folder / "records-00000-of-00005.array_record"), "group_size:1")
    for _ in range(2):
        writer.write(b"somebody else's record")
    writer.close()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (cut_shard, ValueError, "records-00003-of-00005.array_record is cut"),
        (lambda folder: (folder / "records-00001-of-00005.array_record").unlink(), FileNotFoundError, "1 of 5 shards"),
        (lambda folder: (folder / "dataset.json").unlink(), FileNotFoundError, "no dataset.json"),
        (lambda folder: (folder / "dataset.json").write_text("{}"), ValueError, "not written by write_array_records"),
        (lambda folder: edit_sidecar(folder, version=2), ValueError, "this release reads"),
        (lambda folder: edit_sidecar(folder, count=13), ValueError, "hold 12 records, but its dataset.json says 13"),
        (foreign_shard, ValueError, "record 0 in .* is damaged .*a record begins with"),
        (lambda folder: edit_sidecar(folder, shape=[5, 6, 1]), ValueError, r"has shape \(6, 5, 1\)"),
    ],
    ids=["cut", "missing shard", "no sidecar", "foreign sidecar", "version", "count", "foreign shard", "shape"],
)
def test_bad_array_record_folders(tmp_path, damage, error, message):
    source = write_converted(tmp_path)
    damage(tmp_path / "records")
    with pytest.raises(error, match=message):
        source.open()[0]


WRONG_FIELDS = {
    "count": [0, -1, 12.0, "12", None, True, float("inf"), [12]],
    "shards": [0, -1, 10**7, 5.0, "5", None, True, float("nan"), [5]],
    "shape": [[6, 5], [6, 5, 3, 1], [0, 5, 3], [6, -5, 3], [6, 5, 2**16], [6.0, 5, 3], "653", 3, None, [[6], 5, 3]],
    "class_names": ["flower", [], [1, 2], [None, "flower"], None, 2, {"flower": 0}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_FIELDS.items() for value in values], ids=str
)
def test_every_field_of_a_sidecar_is_checked(tmp_path, name, value):
    source = write_converted(tmp_path)
    edit_sidecar(tmp_path / "records", **{name: value})
    with pytest.raises(ValueError, match=rf"dataset.json is damaged: {name} must"):
        source.open()


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "[" * 100_000, "\x00", '{"format": 1}'])
def test_sidecars_that_are_none_are_refused(tmp_path, text):
    source = write_converted(tmp_path)
    (tmp_path / "records" / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match="was not written by write_array_records"):
        source.open()


def test_damaged_record_is_named_when_read(tmp_path):
    source = write_converted(tmp_path)
    path = tmp_path / "records" / "records-00000-of-00005.array_record"
    content = bytearray(path.read_bytes())
    content[content.index(b"APR1") + 20] ^= 0xFF  # random pixels cannot be compressed, so they lie there as they are
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"record 0 in .* is damaged"):
        source.open()[0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ImageFolder("x", 0), "size must be at least 1"),
        (lambda: ImageFolder("x", 8, max_corrupt_share=1.0), "max_corrupt_share must lie in"),
        (lambda: Folds(Digits(), 3, ()), "at least one"),
        (lambda: Folds(Digits(), 3, (1, 1)), "distinct"),
        (lambda: Folds(Digits(), 3, (3,)), r"must lie in \[0, 3\)"),
        (lambda: Folds(Digits(), 5000, (4999,)).open(), "are empty"),
        (lambda: hold_out(Digits(), 1), "one_in must be at least 2"),
    ],
)
def test_bad_source_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# --- The converter


def test_converting_twice_gives_the_same_bytes(tmp_path):
    source = write_idx(tmp_path)
    for name in ("one", "two"):
        write_array_records(source, tmp_path / name, shards=2)
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))


def test_each_record_can_be_read_alone(tmp_path):
    write_converted(tmp_path)
    reader = ArrayRecordReader(str(tmp_path / "records" / "records-00000-of-00005.array_record"))
    assert "group_size:1," in reader.writer_options_string()
    reader.close()


@dataclasses.dataclass(frozen=True)
class FailsHalfWay(AbstractSource):
    def open(self) -> AbstractRecords:
        return FailingRecords((4, 4, 1), ("a",))


class FailingRecords(AbstractRecords):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Record:
        if index == 5:
            raise OSError("disk gone")
        return {"image": np.zeros(self.shape, np.uint8), "label": np.asarray(0, np.int32)}


def test_failed_conversion_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="disk gone"):
        write_array_records(FailsHalfWay(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_converter_refuses_bad_arguments(tmp_path):
    source = write_idx(tmp_path)
    with pytest.raises(ValueError, match="12 images cannot fill 13 shards"):
        write_array_records(source, tmp_path / "out", shards=13)
    with pytest.raises(FileExistsError, match="exists already"):
        write_array_records(source, tmp_path)
