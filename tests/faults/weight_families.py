"""Damages presets, Hugging Face checkpoints, and weight files of PyTorch and safetensors."""

import checkpoints as small_checkpoints
import materials
import numpy as np
import pytorch_writer
import safetensors.numpy
from harness import Family
from materials import made_once
from mutations import choose, damaged, damaged_json

from align_keras.errors import InputError
from align_keras.models.conversion.tensor_files import TensorFiles
from align_keras.runs.presets import load_model


def damaged_file(rng, files):
    """Returns the name of a file and its changed bytes, or None for a missing file."""
    name, data = choose(rng, files)
    if rng.uniform() < 0.03:
        return name, None
    return name, damaged_json(data.decode(), rng) if name.endswith(".json") else damaged(data, rng)


def one_line(error):
    """Returns ``refused`` if an error has one line."""
    text = str(error)
    assert text and "\n" not in text, f"not one line: {text!r}"
    return "refused"


class Presets(Family):
    """One file of a preset is damaged; the preset is refused, or the model is the same."""

    name, share, batch, seconds = "presets", 0.012, 10, 300.0

    def prepare(self, folder):
        self.folder = folder
        self.sound = materials.material(folder.parent) / "start" / "preset"
        self.files = materials.files_of(self.sound)
        self.weights = self.of(materials.model(folder.parent))

    def of(self, model):
        """Returns everything that a preset determines."""
        weights = [value.tobytes() for value in model.get_weights()]
        return weights, model.preprocessor.get_config(), model.preprocessor.vocabulary

    def make_case(self, rng):
        return damaged_file(rng, self.files)

    def run(self, cases):
        return list(map(self.run_one, cases))

    def run_one(self, case):
        copy = materials.with_file(self.sound, self.folder, *case)
        try:
            found = self.of(load_model(str(copy)))
        except (InputError, OSError) as error:
            return one_line(error)
        if repr(found) == repr(self.weights):
            return "sound"
        materials.check_reported(copy, case[0])
        return "refused"


@made_once
def hugging_face(shared, folder):
    """Writes a checkpoint in Hugging Face's layout."""
    pieces = materials.model(shared).preprocessor.vocabulary
    small_checkpoints.small_model(pieces).export_to_transformers(folder)
    (folder / "checksums.json").unlink()  # checkpoints of other programs have no checksums


class HuggingFace(Presets):
    """A JSON file or the vocabulary of a checkpoint from another program is damaged."""

    name, share, batch, seconds = "checkpoints: Hugging Face", 0.008, 10, 300.0

    def prepare(self, folder):
        self.folder = folder
        self.sound = hugging_face(folder.parent)
        files = materials.files_of(self.sound)
        self.files = [file for file in files if not file[0].endswith(".safetensors")]

    def run_one(self, case):
        copy = materials.with_file(self.sound, self.folder, *case)
        try:
            load_model(str(copy))
        except (InputError, OSError) as error:
            return one_line(error)
        return "sound"


class Tensors(Family):
    """A file of weights is damaged. It has no checksum, so changed numbers are not noticed."""

    share, batch = 0.03, 50

    def __init__(self, kind):
        self.kind, self.name = kind, f"weights: {kind}"

    def prepare(self, folder):
        self.folder = folder / "checkpoint"
        self.folder.mkdir()
        rng = np.random.default_rng(0)
        tensors = {f"layer{n}.weight": rng.normal(size=(3, 4 + n)).astype("f4") for n in range(6)}
        self.file = self.folder / "model.safetensors"
        if self.kind == "safetensors":
            safetensors.numpy.save_file(tensors, self.file)
        else:
            self.file = self.folder / "pytorch_model.bin"
            self.write_pytorch(tensors)
        self.shapes = {name: value.shape for name, value in tensors.items()}
        self.data = self.file.read_bytes()

    def write_pytorch(self, tensors):
        """Writes the file as PyTorch does, with modules that have PyTorch's names."""
        import sys
        from unittest import mock

        modules = pytorch_writer.torch_modules()
        with mock.patch.dict(sys.modules, modules):
            content = {
                name: pytorch_writer.tensor(
                    *(modules["torch"], "FloatStorage", value.size, value.shape),
                    (value.shape[1], 1),
                    key=str(key),
                )
                for key, (name, value) in enumerate(tensors.items())
            }
            storages = {str(key): value for key, value in enumerate(tensors.values())}
            pytorch_writer.write(self.file, content, storages)

    def make_case(self, rng):
        return damaged(self.data, rng)

    def run(self, cases):
        return list(map(self.run_one, cases))

    def run_one(self, data):
        self.file.write_bytes(data)
        try:
            files = TensorFiles(str(self.folder))
            for name in files.names():
                assert files.read(name).shape == files.shape(name)
        except (InputError, OSError) as error:
            return one_line(error)
        return "sound"


FAMILIES = (Presets(), HuggingFace(), Tensors("PyTorch"), Tensors("safetensors"))
