"""The trained model that ``--model`` names: a preset, or that of a run's directory."""

from pathlib import Path

from align_keras import AlignDualEncoder


def find_preset(model):
    """The preset of a run's directory, else what was given; FileNotFoundError without one."""
    if (Path(model) / "preset").is_dir():
        return str(Path(model) / "preset")
    if (Path(model) / "settings.json").is_file():
        raise FileNotFoundError(f"--model: the run {model} has no preset/ yet; let it finish")
    return str(model)


def from_preset(load, model, **options):
    """``load(preset, **options)``, such as a ``from_preset``; what fails names the flag."""
    preset = find_preset(model)
    try:
        return load(preset, **options)
    except (ValueError, OSError) as error:
        raise type(error)(f"--model: {error}") from None


def load_model(model, **options):
    """Loads the ``AlignDualEncoder`` with its preprocessor."""
    return from_preset(AlignDualEncoder.from_preset, model, **options)
