"""One reader for all image files: what it takes, and that everything else is refused by all who read images.

Each file here was once misread, hung, or filled the memory, in at least one of the places that read images.
"""

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asyncpatch import files
from asyncpatch.data import IdxFiles, ImageFolder
from asyncpatch.data.images import read_image
from asyncpatch.data.prepare import FileOriginal
from asyncpatch.image_files import MAX_PIXELS, ImageFileError, read_grey, read_rgb
from asyncpatch.masks import Polarity, read_known
from asyncpatch.metrics.archive import DamagedFileError, read_archive
from asyncpatch.metrics.networks.checkpoints import arrays_in

RAMP = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
KNOWN = np.arange(64).reshape(8, 8) % 3 == 0

READERS = {
    "image": lambda path: read_rgb(path),
    "square": lambda path: read_image(path, 8),
    "mask": lambda path: read_known(path, Polarity.ONES_ARE_KNOWN, 8, 8),
    "bytes": lambda path: read_rgb(io.BytesIO(FileOriginal("a", 0, str(path)).read())),
}


def saved(array: np.ndarray, folder: Path, name: str = "a.tif", **options) -> Path:
    Image.fromarray(array).save(folder / name, **options)
    return folder / name


def tiff(array: np.ndarray, folder: Path, *, bits: int, photometric: int = 1, sample_format: int = 1) -> Path:
    """A TIFF, tag by tag: Pillow does not write all kinds that it reads."""
    pixels = array.tobytes()
    tags = {256: array.shape[1], 257: array.shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: array.shape[0], 279: len(pixels), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    (folder / "a.tif").write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + directory)
    return folder / "a.tif"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.png")
    return folder / "a.png"


def written(content: bytes, folder: Path) -> Path:
    (folder / "a.png").write_bytes(content)
    return folder / "a.png"


def bomb(side: int) -> bytes:
    """A PNG that announces a large image and holds next to nothing."""
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "png")
    content = bytearray(file.getvalue())
    struct.pack_into(">II", content, 16, side, side)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    return bytes(content)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"

REFUSED = {
    "float": (lambda f: saved(RAMP.astype(np.float32), f), "floating-point"),
    "32 bits": (lambda f: saved(RAMP.astype(np.int32), f), "32-bit"),
    "signed 16 bits": (lambda f: tiff(RAMP.astype(np.int16), f, bits=16, sample_format=2), "32-bit or signed"),
    "signed 8 bits": (lambda f: tiff(RAMP.astype(np.int8), f, bits=8, sample_format=2), "sample format"),
    "12 bits": (lambda f: tiff(np.repeat(RAMP, 2, 1)[:, :12], f, bits=12), r"of \[12\] bits"),
    "white is 0": (lambda f: tiff(RAMP.astype(np.uint16) * 257, f, bits=16, photometric=0), "0 is white"),
    "8 bits in 16": (lambda f: saved(RAMP.astype(np.uint16), f, "a.png"), "no value above 255"),
    "LAB": (lambda f: (Image.new("LAB", (8, 8)).save(f / "a.tif"), f / "a.tif")[1], "kind LAB"),
    "pipe": (pipe, "folder, pipe or device"),
    "folder": (lambda f: f, "folder, pipe or device"),
    "device": (lambda f: Path("/dev/zero"), "folder, pipe or device"),
    "EPS": (lambda f: written(EPS, f), "no image of a known kind"),
    "text": (lambda f: written(b"not an image", f), "no image of a known kind"),
    "empty": (lambda f: written(b"", f), "no image of a known kind"),
    "cut": (lambda f: written(saved(NOISE, f, "b.png").read_bytes()[:2000], f), "cannot be read"),
    "large": (lambda f: written(bomb(9_000), f), f"{MAX_PIXELS:,} pixels allowed"),
    "larger": (lambda f: written(bomb(10_000), f), f"{MAX_PIXELS:,} pixels allowed"),
    "huge": (lambda f: written(bomb(100_000), f), f"{MAX_PIXELS:,} pixels allowed"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused_by_every_reader(make, message, read, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(make(tmp_path))


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_files_are_left_out_of_folders(make, message, tmp_path):
    (tmp_path / "classes" / "one").mkdir(parents=True)
    saved(RAMP, tmp_path / "classes" / "one", "good.png")
    (tmp_path / "classes" / "one" / "bad.png").symlink_to(make(tmp_path))
    source = ImageFolder(str(tmp_path / "classes"), 8, max_corrupt_share=0.6)
    assert len(source.open()) == 1


def sixteen(known: np.ndarray) -> np.ndarray:
    return known.astype(np.uint16) * 65535


MASKS = {
    "16 bits": lambda f: saved(sixteen(KNOWN), f, "a.png"),
    "16 bits, TIFF": lambda f: saved(sixteen(KNOWN), f),
    "16 bits, PGM": lambda f: saved(sixteen(KNOWN), f, "a.pgm"),
    "1 bit": lambda f: saved(KNOWN, f, "a.png"),
    "colours": lambda f: saved(np.stack([KNOWN.astype(np.uint8) * 255] * 3, -1), f, "a.png"),
}


@pytest.mark.parametrize("write", MASKS.values(), ids=MASKS)
def test_masks_of_every_kind_read_the_same(write, tmp_path):
    assert np.array_equal(read_known(write(tmp_path), Polarity.ONES_ARE_KNOWN, 8, 8), KNOWN)


@pytest.mark.parametrize("low", [1, 255, 1000, 32768, 65534])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_masks_that_are_not_black_and_white_are_grey(low, name, tmp_path):
    """All of these would be black or white once they are rounded to 8 bits, or clipped."""
    values = np.where(KNOWN, 65535, low).astype(np.uint16)
    with pytest.raises(ValueError, match=f"{(~KNOWN).sum()} pixels of .* are grey"):
        read_known(saved(values, tmp_path, name), Polarity.ONES_ARE_KNOWN, 8, 8)


def test_masks_of_nearly_black_colours_are_grey(tmp_path):
    """As shades of grey they would be black."""
    values = np.zeros((8, 8, 3), np.uint8)
    values[0] = 255
    values[1, :, 2] = 1
    with pytest.raises(ValueError, match=r"8 pixels of .* are grey"):
        read_known(saved(values, tmp_path, "a.png"), Polarity.ONES_ARE_KNOWN, 8, 8)


def test_grey_is_the_same_by_every_way(tmp_path):
    for name, array in {
        "a.png": RAMP,
        "b.png": RAMP.astype(np.uint16) * 257,
        "c.tif": RAMP.astype(np.uint16) * 257,
    }.items():
        assert np.array_equal(read_grey(saved(array, tmp_path, name))[..., 0], RAMP)
    opaque = np.stack([RAMP, RAMP, RAMP, np.where(KNOWN, 255, 0).astype(np.uint8)], -1)
    assert np.array_equal(read_grey(saved(opaque, tmp_path, "d.png"))[..., 0], np.where(KNOWN, RAMP, 255))


def test_errors_name_the_file_and_say_what_to_do(tmp_path):
    with pytest.raises(ImageFileError, match=r"a\.png is no image of a known kind, which are BMP, .*; convert it"):
        read_rgb(written(b"nothing", tmp_path))


# --- Compressed files that stand for too much


def idx_header(count: int) -> bytes:
    return struct.pack(">IIII", 0x803, count, 1000, 1000)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1, r"should hold 1000000 bytes .* or more"),
        (100, "more than the 10,000,000 that a compressed file may"),
        (2**32 - 1, "which no gzip file of .* bytes can hold"),
    ],
)
def test_idx_files_expand_to_no_more_than_they_may(count, message, tmp_path, monkeypatch):
    """Each holds a hundred images. The first says one, the second is honest, and the third boasts."""
    monkeypatch.setattr(files, "MAX_EXPANDED", 10**7)
    with gzip.open(tmp_path / "images", "wb") as file:
        file.write(idx_header(count) + bytes(10**8))
    with pytest.raises(ValueError, match=message):
        IdxFiles(str(tmp_path / "images"), str(tmp_path / "images")).open()


def test_idx_files_that_are_not_compressed_allocate_no_more_than_there_is(tmp_path):
    (tmp_path / "images").write_bytes(idx_header(2**32 - 1) + bytes(8))
    with pytest.raises(ValueError, match=r"should hold 4294967295000000 bytes .* got 8"):
        IdxFiles(str(tmp_path / "images"), str(tmp_path / "images")).open()


def npz(header: bytes, zeros: int) -> bytes:
    """One member, of this header and so many zeros, compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("description.npy", "w") as member:
        member.write(header)
        for _ in range(zeros // 2**24):
            member.write(bytes(2**24))
    return file.getvalue()


def npy_header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


BOMBS = {
    "large": (npy_header((2**30 + 2**24,)), 2**30 + 2**24, "more than the 1,073,741,824"),
    "boastful": (npy_header((2**44,)), 0, "announces uint8 of shape"),
}


@pytest.mark.parametrize(("header", "zeros", "message"), BOMBS.values(), ids=BOMBS)
def test_npz_files_are_not_expanded_beyond_the_cap(header, zeros, message, tmp_path):
    content = npz(header, zeros)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DamagedFileError, match=message):
        read_archive(tmp_path / "a.npz", "statistics")
    with pytest.raises(ValueError, match=message):
        arrays_in(content)
