"""Damage to a preset is reported before a model is loaded."""

import shutil

import pytest
from damage import KINDS, damaged_copy

from align_keras import AlignBackbone, AlignDualEncoder, AlignPreprocessor, checksums, hub
from align_keras.errors import InputError


@pytest.mark.parametrize("seed", range(8 * len(KINDS)))
def test_damage_is_reported_or_changes_no_file(seed, tiny_run, tmp_path):
    preset = tiny_run / "preset"
    copy, done = damaged_copy(preset, tmp_path / "copy", seed)
    try:
        with hub.one_line(copy):
            hub.check_files(copy)
    except InputError as error:
        assert str(error).startswith(f"{copy} (")
        assert "\n" not in str(error)
    else:
        names = sorted({*checksums.files_below(preset)} - {checksums.CARD})  # users may edit it
        assert all((copy / name).read_bytes() == (preset / name).read_bytes() for name in names), (
            done
        )


@pytest.fixture
def copy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run / "preset", tmp_path / "copy")


def test_no_class_loads_a_damaged_preset(copy):
    path = copy / "assets" / "tokenizer" / "vocabulary.txt"
    path.write_text(path.read_text().replace("ring", "gnir"))
    line = r"copy \(assets/tokenizer/vocabulary.txt\): damaged: its checksum has"
    for cls in (AlignDualEncoder, AlignBackbone, AlignPreprocessor):
        with pytest.raises(InputError, match=line):
            cls.from_preset(copy)


def test_a_preprocessor_needs_no_reading_of_weights(copy, monkeypatch):
    read = []
    of_file = checksums.of_file
    monkeypatch.setattr(checksums, "of_file", lambda path: read.append(path) or of_file(path))
    monkeypatch.setattr(hub, "WITHOUT_WEIGHTS", 10_000)
    AlignPreprocessor.from_preset(copy)
    assert read and not [path for path in read if path.endswith("model.weights.h5")]


def test_a_part_that_is_saved_anew_keeps_the_others_checksums(copy, preprocessor):
    before = checksums.read(checksums.list_of(copy))
    preprocessor.save_to_preset(copy)
    assert checksums.read(checksums.list_of(copy)) == before
    assert not list(checksums.faults(checksums.list_of(copy)))
    assert not (copy / ".partial").exists()
    (copy / "model.weights.h5").write_bytes(b"x")
    preprocessor.save_to_preset(copy)
    with pytest.raises(InputError, match="weights.h5: damaged"):
        checksums.check(copy)


def test_a_hugging_face_checkpoint_has_checksums_too(exported, tmp_path):
    checkpoint = shutil.copytree(exported[0], tmp_path / "checkpoint")
    assert not list(checksums.faults(checksums.list_of(checkpoint)))
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(InputError, match=r"checkpoint \(model.safetensors\): damaged"):
        AlignDualEncoder.from_preset(checkpoint)
