"""PyTorch's files are read without PyTorch, and no code in them is run."""

import collections
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
from conftest import SHARED
from pytorch_writer import DTYPES, Call, pickled, tensor, write

from align_keras.errors import InputError
from align_keras.models.conversion.pytorch import PyTorchFile


@pytest.mark.parametrize(("kind", "dtype"), DTYPES.items())
def test_every_kind_of_number_is_read(kind, dtype, torch, tmp_path):
    numbers = np.arange(12).astype(dtype)
    content = collections.OrderedDict(a=tensor(torch, kind, 12, (3, 4), (4, 1)))
    found = PyTorchFile(write(tmp_path / "a.bin", content, {"0": numbers})).read("a")
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, numbers.reshape(3, 4))


def test_bfloat16_is_read_as_float32(torch, tmp_path):
    numbers = np.array([1.0, -2.5, 3.0e38, 0.0], "<f4")
    halves = (numbers.view("<u4") >> 16).astype("<u2")
    content = {"a": tensor(torch, "BFloat16Storage", 4, (4,), (1,))}
    found = PyTorchFile(write(tmp_path / "a.bin", content, {"0": halves})).read("a")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, numbers, rtol=2**-7)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((4, 3), (1, 4), 0),
        ((2, 3), (6, 2), 1),
        ((3,), (0,), 5),
        ((), (), 7),
        ((0, 3), (3, 1), 0),
        ((1, 4), (99, 1), 2),
        ((2, 2, 3), (3, 6, 1), 0),
    ],
)
def test_any_strides_are_read_as_numpy_views_them(shape, strides, offset, torch, tmp_path):
    numbers = np.arange(12, dtype="<f4")
    content = {"a": tensor(torch, "FloatStorage", 12, shape, strides, offset)}
    found = PyTorchFile(write(tmp_path / "a.bin", content, {"0": numbers})).read("a")
    expected = np.lib.stride_tricks.as_strided(
        numbers[offset:], shape, [4 * stride for stride in strides]
    )
    np.testing.assert_array_equal(found, expected)


def test_parameters_shared_storages_and_other_values_beside_tensors(torch, tmp_path):
    half = tensor(torch, "FloatStorage", 4, (2,), (1,), 2)
    parameter = Call(torch._utils._rebuild_parameter, half, True, collections.OrderedDict())
    content = {"state_dict": {"a": parameter, "b": tensor(torch, "FloatStorage", 4, (4,), (1,))}}
    content |= {"epoch": 3, "rate": 0.5, "names": ["x", "y"], "done": True, "note": None}
    file = PyTorchFile(write(tmp_path / "a.bin", content, {"0": np.arange(4, dtype="<f4")}))
    assert file.tensors.keys() == {"a", "b"}
    np.testing.assert_array_equal(file.read("a"), [2, 3])
    np.testing.assert_array_equal(file.read("b"), [0, 1, 2, 3])
    assert file.shape("b") == (4,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_newer_pickles_are_read_too(protocol, torch, tmp_path):
    content = pickled({"a": tensor(torch, "FloatStorage", 2, (2,), (1,))}, protocol)
    file = PyTorchFile(write(tmp_path / "a.bin", content, {"0": np.arange(2, dtype="<f4")}))
    np.testing.assert_array_equal(file.read("a"), [0, 1])


def test_the_shared_checkpoint_equals_its_safetensors():
    if not (SHARED / "parity" / "tiny_bin").exists():
        pytest.skip("no ../shared/parity/tiny_bin")
    file = PyTorchFile(str(SHARED / "parity" / "tiny_bin" / "pytorch_model.bin"))
    reference = safetensors.safe_open(SHARED / "parity" / "tiny" / "model.safetensors", "np")
    for name in reference.keys():  # noqa: SIM118  it is no dictionary
        np.testing.assert_array_equal(file.read(name), reference.get_tensor(name))


# === Hostile and damaged files ===


@pytest.fixture
def canary(tmp_path):
    """A file that exists only if a command in a pickle was run."""
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_commands_are_not_run_and_are_named(protocol, tmp_path, canary):
    for function, arguments, name in (
        (os.system, (f"touch {canary}",), "posix.system"),
        (eval, (f"open({str(canary)!r}, 'w')",), "builtins.eval"),
        (getattr, ({}, "clear"), "builtins.getattr"),
    ):
        path = write(tmp_path / "a.bin", pickled({"a": Call(function, *arguments)}, protocol))
        with pytest.raises(InputError, match="not allowed") as caught:
            PyTorchFile(path)
        assert name.rpartition(".")[2] in str(caught.value) or protocol == 0
        assert caught.value.place.file == path


def test_calls_inside_of_allowed_calls_are_refused_too(torch, tmp_path, canary):
    inner = Call(os.system, f"touch {canary}")
    nested = Call(torch._utils._rebuild_parameter, Call(collections.OrderedDict, [["a", inner]]))
    with pytest.raises(InputError, match=r"posix\.system, which is not allowed"):
        PyTorchFile(write(tmp_path / "a.bin", {"a": nested}))


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "count", "problem"),
    [
        ((5,), (1,), 0, 4, "beyond the end"),
        ((2, 2), (3, 1), 0, 4, "beyond the end"),
        ((4,), (1,), -1, 4, "negative"),
        ((4,), (-1,), 3, 4, "negative"),
        ((-4,), (1,), 0, 4, "negative"),
        ((2.0,), (1,), 0, 4, "negative or fractional"),
        ((2, 2), (1,), 0, 4, "2 sizes and 1 strides"),
        ((1 << 40,), (0,), 0, 4, "repeats"),
        ((8,), (1,), 0, 8, "bytes"),
    ],
)
def test_tensors_that_are_no_view_of_their_storage(
    shape, strides, offset, count, problem, torch, tmp_path
):
    content = {"a": tensor(torch, "FloatStorage", count, shape, strides, offset)}
    path = write(tmp_path / "a.bin", content, {"0": np.arange(4, dtype="<f4")})
    with pytest.raises(InputError, match=problem):
        PyTorchFile(path).read("a")


def test_a_storage_that_is_not_there(torch, tmp_path):
    content = {"a": tensor(torch, "FloatStorage", 4, (4,), (1,), key="../../etc/passwd")}
    with pytest.raises(InputError, match="no data/"):
        PyTorchFile(write(tmp_path / "a.bin", content)).read("a")


def test_a_compressed_member_is_refused(torch, tmp_path):
    content = {"a": tensor(torch, "FloatStorage", 1 << 20, (1 << 20,), (1,))}
    zeros = {"0": np.zeros(1 << 20, "<f4")}
    path = write(tmp_path / "a.bin", content, zeros, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed"):
        PyTorchFile(path)


def test_a_key_that_takes_for_ever_to_hash(tmp_path):
    key = ()
    for _ in range(60):
        key = (key, key)
    # Assembled by hand, since the pickler would also hash the key.
    content = pickled(key)[:-1]
    path = write(tmp_path / "a.bin", b"\x80\x02}" + content[2:] + b"K\x01s.")
    with pytest.raises(InputError, match="damaged"):
        PyTorchFile(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "zip format"),
        (b"hello", "zip format"),
        (b"PK\x03\x04 and no more", "not readable"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", r"before version 1\.6.*save it again"),
    ],
)
def test_files_of_another_kind(content, problem, tmp_path):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        PyTorchFile(str(tmp_path / "a.bin"))


def test_a_member_whose_name_is_no_utf8_is_one_line(tmp_path):
    """``zipfile`` decodes the name in the member's own header only when it is read."""
    path = write(tmp_path / "a.bin", {}, {})
    content = Path(path).read_bytes()
    own = content.index(b"archive/data.pkl")
    flags = content.rindex(b"PK\x03\x04", 0, own) + 6
    changed = bytearray(content)
    changed[flags + 1] |= 0x08  # says that the name is UTF-8
    changed[own] = 0xF7
    Path(path).write_bytes(changed)
    with pytest.raises(InputError, match="not readable as PyTorch's zip format"):
        PyTorchFile(str(path))


@pytest.mark.parametrize(
    ("content", "others", "problem"),
    [
        ([1, 2], {}, "no dictionary"),
        (b"\x80\x02}q", {}, "damaged"),
        (b"\x80\x02" + b"(" * 5, {}, "damaged"),
        (b"\x80\x02t.", {}, "damaged"),
        ({}, {"constants.pkl": b""}, "TorchScript"),
        ({}, {"byteorder": b"big"}, "byte order"),
        ({}, {"sub/data.pkl": b""}, "2 files data.pkl"),
    ],
)
def test_archives_of_another_kind(content, others, problem, tmp_path):
    with pytest.raises(InputError, match=problem):
        PyTorchFile(write(tmp_path / "a.bin", content, **others))


def test_a_thousand_damaged_files_end_in_one_line(torch, tmp_path):
    """Bytes are flipped, cut and repeated; whatever is raised is an InputError."""
    content = {name: tensor(torch, "FloatStorage", 6, (2, 3), (3, 1)) for name in "abc"}
    sound = write(tmp_path / "a.bin", content, {"0": np.arange(6, dtype="<f4")})
    with open(sound, "rb") as file:
        data = file.read()
    rng = np.random.default_rng(0)
    for _ in range(1000):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(len(damaged))]
        (tmp_path / "b.bin").write_bytes(damaged)
        try:
            file = PyTorchFile(str(tmp_path / "b.bin"))
            for name in file.tensors:
                file.read(name)
        except InputError as error:
            assert "\n" not in str(error)
