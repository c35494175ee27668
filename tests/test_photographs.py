"""Photographs of folders as crops, and emoji: on real photographs, in several sizes, among drawings."""

import dataclasses
import io
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from asyncpatch.data import ArrayRecords
from asyncpatch.data.images import shrink
from asyncpatch.data.prepare import Look, Photographs, Sieve, emoji, photographs, prepare
from asyncpatch.data.prepare.crops import CropOriginal, draw_crops
from asyncpatch.data.prepare.emoji import family
from asyncpatch.data.prepare.near_duplicates import NEAR, distance, group_near, small_hash
from asyncpatch.image_files import read_rgb
from experiments import prepare_data

PHOTOS = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee")} | {
    "temple": load_sample_images().images[0]
}
SIEVE = Sieve(least_side=200)


def drawing(height: int, width: int) -> np.ndarray:
    image = Image.new("RGB", (width, height), "navy")
    draw = ImageDraw.Draw(image)
    for i in range(9):
        draw.ellipse((30 * i, 20 * i, 30 * i + 90, 20 * i + 60), fill=(25 * i, 200 - 20 * i, 90))
    return np.asarray(image)


def resized(pixels: np.ndarray, share: float) -> np.ndarray:
    height, width, _ = pixels.shape
    return np.asarray(Image.fromarray(pixels).resize((round(width * share), round(height * share))))


@pytest.fixture(scope="module")
def wallpapers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs, one of them in three sizes, among what is none."""
    folder = tmp_path_factory.mktemp("wallpapers")
    (folder / "nature").mkdir()
    for name, pixels in PHOTOS.items():
        Image.fromarray(pixels).save(folder / "nature" / f"{name}.jpg", quality=95)
    for share in (0.7, 0.85):
        Image.fromarray(resized(PHOTOS["coffee"], share)).save(folder / f"coffee{share}.JPG", quality=60)
    Image.fromarray(PHOTOS["coffee"]).convert("L").save(folder / "grey.jpg")
    Image.fromarray(PHOTOS["coffee"][:150, :200]).save(folder / "preview.jpg")
    Image.fromarray(PHOTOS["chelsea"]).save(folder / "without_loss.png")
    Image.fromarray(drawing(300, 400)).save(folder / "drawn.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "nature" / "coffee.jpg").read_bytes()[:5000])
    (folder / "link.jpg").symlink_to(folder / "nature" / "coffee.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nature" / "nothing.jpg")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def found(wallpapers: Path) -> Photographs:
    return photographs([wallpapers], 16, 5, 0.3, 0, SIEVE)


# --- Which files are photographs


def reasons(found: Photographs) -> dict[str, str]:
    return {Path(look.path).name: look.left_out for look in found.looks}


def test_every_file_is_looked_at_and_the_reason_is_said(found):
    said = reasons(found)
    assert {name for name, reason in said.items() if not reason} == {f"{name}.jpg" for name in PHOTOS}
    assert said.keys() == {f"{name}.jpg" for name in PHOTOS} | {
        "coffee0.7.JPG",
        "coffee0.85.JPG",
        "cut.jpg",
        "drawn.jpg",
        "grey.jpg",
        "preview.jpg",
        "without_loss.png",
    }
    assert said["coffee0.7.JPG"] == said["coffee0.85.JPG"] == "shows what coffee.jpg shows"
    assert "truncated" in said["cut.jpg"]
    assert said["drawn.jpg"].startswith("is drawn")
    assert said["grey.jpg"].startswith("is grey, drawn, or of one colour: colours 0.00")
    assert said["preview.jpg"] == "is smaller than 200 pixels"
    assert said["without_loss.png"] == "is no .jpg or .jpeg"


def test_drawings_of_the_packages_are_known_by_their_path(tmp_path):
    for name in ("wallpapers/Autumn/contents", "Autumn"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(PHOTOS["coffee"]).save(tmp_path / name / "1.jpg", quality=95)
    assert SIEVE.look(tmp_path / "wallpapers/Autumn/contents/1.jpg").left_out.startswith("is known to be drawn")
    assert SIEVE.look(tmp_path / "Autumn/1.jpg").left_out == ""  # somebody's own autumn


def test_another_sieve_takes_other_files(wallpapers):
    loose = Sieve((".png", ".jpg"), least_side=100, most_flat=1.0, least_colours=0.0)
    assert [loose.look(wallpapers / f"{name}").left_out for name in ("drawn.jpg", "without_loss.png", "grey.jpg")] == [
        ""
    ] * 3


# --- The same picture in several files


def test_the_hash_tells_copies_from_other_pictures():
    hashes = {name: small_hash(pixels) for name, pixels in PHOTOS.items()}
    for name, pixels in PHOTOS.items():
        file = io.BytesIO()
        Image.fromarray((resized(pixels, 0.4) * 0.8).astype(np.uint8)).save(file, "JPEG", quality=30)
        assert distance(small_hash(read_rgb(file)), hashes[name]) <= NEAR
        assert distance(small_hash(pixels[:, ::-1]), hashes[name]) > NEAR
    assert all(distance(a, b) > 2 * NEAR for a in hashes.values() for b in hashes.values() if a != b)


def test_groups_are_chains_of_near_neighbours():
    a, chained, far = 0, 2**NEAR - 1, 2**64 - 1
    end = chained << NEAR | chained
    assert group_near([a, far, end, chained, far ^ 1]) == [[0, 2, 3], [1, 4]]
    assert group_near([a, 2 ** (NEAR + 1) - 1]) == [[0], [1]]
    assert group_near([]) == []


# --- Crops, and the split


def pictures_of(crops: tuple[CropOriginal, ...]) -> set[str]:
    return {crop.sha256 for crop in crops}


def check_split_by_picture(train: tuple[CropOriginal, ...], val: tuple[CropOriginal, ...]) -> None:
    assert not pictures_of(train) & pictures_of(val)
    assert Counter(crop.sha256 for crop in train + val) == dict.fromkeys(pictures_of(train + val), 5)


def test_no_picture_is_in_both_splits(found):
    train, val = found.collection.splits["train"], found.collection.splits["val"]
    check_split_by_picture(train, val)
    assert (len(train), len(val)) == (15, 5)
    assert pictures_of(val) == found.held_out
    with pytest.raises(AssertionError):  # as a split by crop would be
        check_split_by_picture(train[::2] + val[::2], train[1::2] + val[1::2])


def test_a_listing_is_a_function_of_the_seed_and_the_files(wallpapers, found):
    assert photographs([wallpapers], 16, 5, 0.3, 0, SIEVE).collection == found.collection
    other = photographs([wallpapers], 16, 5, 0.3, 1, SIEVE).collection
    assert {crop.name for crop in other.splits["train"]}.isdisjoint(
        crop.name for part in found.collection.splits.values() for crop in part
    )


def test_crops_are_of_every_scale_and_lie_inside():
    look = Look("a.jpg", "0123456789abcdef" * 4, "", 300, 900)
    crops = draw_crops(look, 2000, 30, 0)
    sides = np.array([crop.side for crop in crops])
    assert all(crop.top + crop.side <= 300 and crop.left + crop.side <= 900 for crop in crops)
    assert (sides.min(), sides.max()) == (30, 300)
    # Of a log-uniform side half lie below the geometric mean, 95: 5 standard deviations are 0.056, so that a right law
    # fails once in a million seeds. A uniform side has a quarter there.
    assert abs((sides < np.sqrt(30 * 300)).mean() - 0.5) < 0.056
    assert max(crop.left for crop in crops) > 800


def test_records_are_area_means_of_the_crops(found, tmp_path):
    prepare(found.collection, 16, tmp_path / "out")
    for split, originals in found.collection.splits.items():
        records = ArrayRecords(str(tmp_path / "out" / split)).open()
        assert len(records) == len(originals)
        for record, crop in zip(iter(records[i] for i in range(len(records))), originals, strict=True):
            picture = read_rgb(crop.path)
            square = picture[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
            assert np.array_equal(record["image"], shrink(square, 16))


def test_a_file_that_has_changed_since_it_was_listed_is_refused(tmp_path):
    for name in ("chelsea", "coffee"):
        Image.fromarray(PHOTOS[name]).save(tmp_path / f"{name}.jpg", quality=95)
    found = photographs([tmp_path], 16, 2, 0.5, 0, SIEVE)
    Image.fromarray(PHOTOS["temple"]).save(tmp_path / "coffee.jpg")
    with pytest.raises(ValueError, match=r"coffee.jpg, which has changed since it was listed"):
        prepare(found.collection, 16, tmp_path / "out")


def test_a_square_outside_of_its_picture_is_refused(found):
    crop = dataclasses.replace(found.collection.splits["train"][0], top=10_000)
    with pytest.raises(ValueError, match="lies outside the picture"):
        crop.read()


# --- Bad input


def test_what_to_install_is_said_where_there_is_nothing(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    install = "apt-get install mate-backgrounds plasma-workspace-wallpapers"
    for folders in ([tmp_path / "nowhere"], [tmp_path / "empty"], []):
        with pytest.raises(FileNotFoundError, match=install):
            photographs(folders, 16, 5, 0.2, 0, SIEVE)
    listing = sys.modules["asyncpatch.data.prepare.photographs"]  # by attribute it is the function of that name
    monkeypatch.setattr(listing, "DEBIAN_FOLDERS", (str(tmp_path / "a"), str(tmp_path / "b")))
    with pytest.raises(FileNotFoundError, match=install):
        prepare_data.photographs(16, tmp_path / "out")


def test_one_picture_cannot_be_split(tmp_path):
    Image.fromarray(PHOTOS["coffee"]).save(tmp_path / "coffee.jpg", quality=95)
    with pytest.raises(ValueError, match=r"1 of 1 image files in .* pass as photographs; two at least"):
        photographs([tmp_path], 16, 5, 0.2, 0, SIEVE)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sieve(suffixes=()), "suffixes is empty"),
        (lambda: Sieve(most_flat=1.5), "most_flat must be"),
        (lambda: draw_crops(Look("a.jpg", "0" * 64, "", 40, 50), 1, 64, 0), "has no crop of 64 pixels"),
        (lambda: photographs(["."], 0, 5, 0.2, 0, SIEVE), "size must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_command_says_what_became_of_every_file(wallpapers, tmp_path, capsys):
    prepare_data.photographs(16, tmp_path / "out", (wallpapers,), crops=2, sieve=SIEVE, workers=0)
    lines = capsys.readouterr().out
    assert f"left out   {wallpapers / 'preview.jpg'}: is smaller than 200 pixels" in lines
    assert "11 files: 4 photographs (1 held out), 7 left out" in lines
    prepare_data.check(tmp_path / "out")
    pictures = json.loads((tmp_path / "out" / "pictures.json").read_text())
    assert len(pictures) == 11
    assert sum(picture["held_out"] for picture in pictures) == 1
    prepare_data.photographs(16, tmp_path / "out", (wallpapers,), crops=2, sieve=SIEVE, workers=0)
    with pytest.raises(ValueError, match="was begun otherwise"):
        prepare_data.photographs(16, tmp_path / "out", (wallpapers,), crops=2, sieve=SIEVE, seed=1, workers=0)


# --- Emoji

NAMES = {
    "1F600": ("Smileys & Emotion", "red"),
    "1F468-200D-1F52C": ("People & Body", "green"),
    "1F469-200D-1F52C": ("People & Body", "blue"),
    "1F3C3-200D-2640-FE0F": ("People & Body", "yellow"),
    "1F1E7-1F1FB": ("Flags", "black"),
    "1F1F3-1F1F4": ("Flags", "black"),
    "1F3FB": ("Component", "brown"),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A red disc and others on a transparent ground, as the package lays them out."""
    (tmp_path / "package/img/google/64").mkdir(parents=True)
    entries = []
    for order, (unified, (category, colour)) in enumerate(NAMES.items()):
        image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        ImageDraw.Draw(image).ellipse((8, 8, 56, 56), fill=colour)
        image.save(tmp_path / "package/img/google/64" / f"{unified.lower()}.png")
        entry = {"category": category, "sort_order": order, "unified": unified, "has_img_google": True}
        entries.append(entry | {"image": f"{unified.lower()}.png"})
    entries.append(entries[0] | {"has_img_google": False, "image": "none.png"})
    (tmp_path / "package/emoji.json").write_text(json.dumps(entries))
    return tmp_path / "package"


def test_emoji_have_their_category_as_class_and_a_white_ground(package, tmp_path):
    collection = emoji(package)
    assert collection.class_names == ("Flags", "People & Body", "Smileys & Emotion")
    originals = [original for part in collection.splits.values() for original in part]
    assert sorted(original.label for original in originals) == [0, 1, 1, 1, 2]  # of two equal flags one
    disc = next(original for original in originals if original.label == 2)
    prepare(dataclasses.replace(collection, splits={"all": (disc,)}), 64, tmp_path / "out")
    image = ArrayRecords(str(tmp_path / "out" / "all")).open()[0]["image"]
    assert image[0, 0].tolist() == [255] * 3
    assert image[32, 32].tolist() == [255, 0, 0]


def test_a_family_of_emoji_is_on_one_side():
    assert family("1F468-200D-1F52C") == family("1F469-200D-1F52C") == family("1F9D1-200D-1F52C")
    assert family("1F3C3") == family("1F3C3-200D-2640-FE0F-200D-27A1-FE0F")
    assert family("1F1E7-1F1FB") != family("1F1F3-1F1F4")


def test_a_package_that_is_none_is_refused(package, tmp_path):
    with pytest.raises(FileNotFoundError, match="npm pack emoji-datasource-google"):
        emoji(tmp_path)
    (package / "img/google/64/1f600.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1f600.png, which emoji.json lists"):
        emoji(package)
    (package / "emoji.json").write_text('[{"category": 1}]')
    with pytest.raises(ValueError, match="lists no emoji"):
        emoji(package)
