"""The options of an export, checked before a model is loaded."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from align_keras import paths
from align_keras.errors import InputError, Place, concerning
from align_keras.evaluation import data_sets, zero_shot
from align_keras.wording import meant


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """The parts and the format to export; errors name the invalid field in ``setting``."""

    format: str = "saved_model"
    """``saved_model``, ``onnx`` or ``litert``."""
    class_names: str = ""
    """A text file with one name per line, or a known data set; empty for no ``classify``."""
    prompts: Sequence[str] = ()
    """Strings with ``{}`` for the class name; empty for CLIP's prompts of the data set."""
    fold_batch_norm: bool = False
    warm_up: bool = True
    """Whether to write warm-up requests for TensorFlow Serving."""
    quantize: str = "none"
    """``none``, ``float16`` or ``int8``; for ``litert`` only."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``AlignDualEncoder.export``.

        Raises:
            InputError: if options contradict each other, or the class names do not exist.
        """
        return self._of_saved_model() if self.format == "saved_model" else self._of_towers()

    def _of_towers(self) -> dict[str, Any]:
        for name in ("class_names", "fold_batch_norm"):
            if getattr(self, name):
                raise InputError(
                    f"does not apply to {self.format}",
                    remedy="give <format>=saved_model",
                    setting=name,
                )
        if self.quantize != "none" and self.format != "litert":
            raise self._not_litert()
        return {
            "format": self.format,
            "quantize": None if self.quantize == "none" else self.quantize,
        }

    def _not_litert(self) -> InputError:
        problem = f"does not apply to {self.format}"
        return InputError(problem, remedy="give <format>=litert", setting="quantize")

    def _of_saved_model(self) -> dict[str, Any]:
        if self.quantize != "none":
            raise self._not_litert()
        if self.prompts and not self.class_names:
            raise InputError("there are no classes", remedy="give <class_names>", setting="prompts")
        prompts = tuple(self.prompts) or data_sets.prompts_of(self.class_names)
        with concerning("prompts"):
            zero_shot.fill_prompts([], prompts)
        with concerning("class_names"):
            class_names = read_class_names(self.class_names)
        return {
            "format": "tf_saved_model",
            "class_names": class_names,
            "prompts": prompts,
            "fold_batch_norm": self.fold_batch_norm,
            "warm_up_requests": self.warm_up,
        }


def read_class_names(class_names: str) -> list[str] | None:
    """The lines of a file, or CLIP's names of a known data set; None if the argument is empty.

    Raises:
        InputError: if it is neither, or a name occurs twice in the file.
    """
    if not class_names:
        return None
    if paths.path_of(class_names).is_file():
        names = data_sets.read_names(class_names)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"{twice[0]!r} occurs twice", Place(class_names))
        return names
    known_names = data_sets.class_names_of(class_names)
    if known_names is None:
        known = [name for name in data_sets.DATA_SETS if data_sets.class_names_of(name)]
        raise InputError(
            f"{class_names} is neither a file nor one of {', '.join(known)}",
            remedy=f"{meant(class_names, known)} give a text file with one name per line".strip(),
        )
    return known_names
