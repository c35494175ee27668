"""Weight files: every format gives the same arrays, nothing in a file is run, and a wrong file is named as such."""

import hashlib
import io
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from asyncpatch.metrics.networks import read_arrays
from asyncpatch.metrics.networks.weights import PublishedWeights, hash_of, name_of, select

GOLDEN = Path(__file__).with_name("golden")
GRID = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
WRITTEN_BY_TORCH = {
    "transposed": GRID.transpose(2, 0, 1),
    "part": GRID[1, 1:, ::2],
    "steps": np.array(7),
    "half": np.array([0.5, -2.0], np.float16),
    "parameter": np.array([[1.5]]),
}
LEGACY_START = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


def assert_equal(arrays, expected):
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
        assert arrays[name].base is None, "views keep whole files in memory"


@pytest.mark.parametrize("form", ["legacy", "zipped"])
def test_both_forms_of_pytorch_files_are_read(form):
    assert "torch" not in sys.modules
    assert_equal(read_arrays(GOLDEN / f"{form}.pth"), WRITTEN_BY_TORCH)


def test_npz_and_nested_pickles_are_read(tmp_path):
    arrays = {"a": GRID, "b": np.arange(3), "big": np.arange(3, dtype=">f4"), "columns": np.asfortranarray(GRID[0])}
    np.savez(tmp_path / "weights.npz", **arrays)
    assert list(read_arrays(tmp_path / "weights.npz")) == list(arrays)
    for protocol in (2, 3, 4):
        (tmp_path / "nested.ckpt").write_bytes(pickle.dumps({"net": {"conv": arrays}, "c": GRID}, max(protocol, 3)))
        expected = {f"net.conv.{name}": array for name, array in arrays.items()} | {"c": GRID}
        assert_equal(read_arrays(tmp_path / "nested.ckpt"), expected)


def zipped(program):
    """A file of PyTorch's new form around a pickle, with one storage of four numbers."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
    return content.getvalue()


def legacy(program):
    """The same of the old form."""
    storage = (4).to_bytes(8, "little") + np.arange(4, dtype="<f4").tobytes()
    return LEGACY_START + program + pickle.dumps(["0"], 2) + storage


def plain(program):
    return b"\x80\x03" + program


def tensor(offset, shape, strides):
    """The program of a state dict of one tensor `w` over that storage."""
    lengths, steps = (b"(" + b"".join(b"I%d\n" % number for number in numbers) + b"t" for numbers in (shape, strides))
    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    return b"(dS'w'\nctorch._utils\n_rebuild_tensor_v2\n(%sI%d\n%s%sI00\nNtRs." % (storage, offset, lengths, steps)


HOSTILE = {
    "os.system": b"cos\nsystem\n(S'touch owned'\ntR.",
    "builtins.eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "builtins.getattr": b"cbuiltins\ngetattr\n.",
    "numpy.load": b"cnumpy\nload\n.",
    "torch.nn.modules.linear.Linear": b"ctorch.nn.modules.linear\nLinear\n)\x81.",
    "asyncpatch.metrics.networks.checkpoints.io.open": b"casyncpatch.metrics.networks.checkpoints\nio.open\n.",
}


@pytest.mark.parametrize("form", [plain, zipped, legacy])
@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_that_a_file_names_is_called(tmp_path, monkeypatch, form, name):
    monkeypatch.chdir(tmp_path)
    Path("weights").write_bytes(form(HOSTILE[name]))
    with pytest.raises(ValueError, match=rf"names {name}, which no dictionary of arrays needs; save a state dict"):
        read_arrays("weights")
    assert not Path("owned").exists()


@pytest.mark.parametrize("form", [zipped, legacy])
def test_tensors_stay_inside_their_storage(tmp_path, form):
    path = tmp_path / "weights.pth"
    path.write_bytes(form(tensor(1, (3,), (1,))))
    assert_equal(read_arrays(path), {"w": np.array([1, 2, 3], np.float32)})
    outside = [(2, (3,), (1,)), (0, (2, 2), (3, 1)), (4, (1,), (1,)), (0, (2, 4), (0, 1)), (0, (10**9, 10**9), (0, 0))]
    for program in outside:
        path.write_bytes(form(tensor(*program)))
        with pytest.raises(ValueError, match="reaches outside its storage"):
            read_arrays(path)
    for program in [(-1, (2,), (1,)), (1, (2,), (-1,)), (0, (-1,), (1,)), (0, (1, 1), (1,))]:
        path.write_bytes(form(tensor(*program)))
        with pytest.raises(ValueError, match="it holds a tensor of shape"):
            read_arrays(path)


def test_other_contents_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    cases = {
        b"<html>not found</html>": "starts like no file",
        b"": "starts like no file",
        pickle.dumps({"epoch": 3}, 3): "its entry 'epoch' is of type int; only arrays",
        pickle.dumps({"names": np.array(["a", None], object)}, 3): "an array of type 'O8'; only numbers are read",
        (GOLDEN / "zipped.pth").read_bytes()[:-40]: "cannot be read as weights",
        (GOLDEN / "legacy.pth").read_bytes()[:-40]: "cannot be read as weights",
        zipped(b"(S'storage'\nctorch\nFloatStorage\nS'../0'\nS'cpu'\nI4\ntQ."): "cannot be read as weights",
        legacy(tensor(0, (1,), (1,)).replace(b"I4\n", b"I99999999\n")): "storage of 99999999 numbers",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_arrays(path)
        assert str(path) in str(caught.value)


def test_a_published_file_is_known_by_its_checksum(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, a=GRID)
    right = PublishedWeights("Net", hashlib.sha256(path.read_bytes()).hexdigest(), "fetch it")
    assert np.array_equal(right.read(path)["a"], GRID)
    wrong = PublishedWeights("Net", "0" * 64, "fetch it")
    with pytest.raises(ValueError, match=rf"of Net: its sha256 is {right.sha256}, expected 0{{64}}; it is damaged"):
        wrong.read(path)
    with pytest.raises(FileNotFoundError, match=r"no weight file .*absent.npz; fetch it"):
        right.read(tmp_path / "absent.npz")
    with pytest.raises(FileNotFoundError, match="no weights for Net: no path was given; fetch it"):
        right.read()


def test_a_package_is_found_and_not_imported(tmp_path, monkeypatch):
    published = PublishedWeights("Net", "0" * 64, "fetch it", "weights_of_net", "inside/net.pth")
    with pytest.raises(FileNotFoundError, match="the package weights_of_net is not installed; fetch it"):
        published.find()
    (tmp_path / "weights_of_net").mkdir()
    (tmp_path / "weights_of_net" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert published.find() == tmp_path / "weights_of_net" / "inside" / "net.pth"


def test_weights_are_checked_before_use():
    shapes = {"a.weight": (2, 3), "a.bias": (2,)}
    arrays = {"a.weight": np.ones((2, 3)), "a.bias": np.ones(2), "other": np.ones(1)}
    chosen = select(arrays, shapes, "Net")
    assert list(chosen) == list(shapes)
    assert all(array.dtype == np.float32 for array in chosen.values())
    with pytest.raises(ValueError, match=r"of Net: 1 of 2 are missing, the first is 'a.bias'; there is a.weight"):
        select({"a.weight": np.ones((2, 3))}, shapes, "Net")
    with pytest.raises(ValueError, match=r"no weights of Net: 'a.bias' has shape \(3,\), expected \(2,\)"):
        select(arrays | {"a.bias": np.ones(3)}, shapes, "Net")


def test_the_hash_tells_weights_apart():
    arrays = {"a": GRID, "b": np.zeros(3, np.float32)}
    assert hash_of(arrays) == hash_of(dict(reversed(arrays.items()))) == hash_of({"b": np.zeros(3), "a": GRID})
    others = [{"a": GRID}, {"a": GRID + 1e-3, "b": np.zeros(3)}, {"a": GRID.reshape(6, 4), "b": np.zeros(3)}]
    assert len({hash_of(weights) for weights in [arrays, *others]}) == 4
    assert name_of("Net", "abc", "abc") == "Net"
    assert name_of("Net", "0123456789", "abc") == "Net-01234567"
