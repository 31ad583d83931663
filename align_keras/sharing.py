"""Uploads presets with their cards; keras-hub's own upload would overwrite the card."""

import os

from align_keras import checksums, hub, paths, preset_copies, preset_folders
from align_keras.errors import InputError, MissingInputError, Place

#: Hubs to which a preset can be uploaded.
SCHEMES = ("hf", "kaggle")


def upload_preset(uri: str, preset: str | os.PathLike[str]) -> None:
    """Uploads a preset to a hub.

    All files are uploaded, including the card, ``README.md``. Log in first with ``hf auth login``,
    or with Kaggle's ``kaggle.json``.

    Args:
        uri: ``hf://USER/MODEL``, which is created if it does not exist, or
            ``kaggle://USER/MODEL/keras/VARIATION``.
        preset: a folder written by ``save_to_preset`` or by a run; also ``gs://...``.

    Raises:
        InputError: if a file has changed since it was written, or the hub cannot be reached or
            denies access.
        MissingInputError: if the folder does not exist, or is not a preset with a card.
    """
    scheme = paths.scheme(uri)
    if scheme not in SCHEMES:
        raise InputError(
            "not an address to which a preset can be uploaded",
            Place(str(uri)),
            "give hf://USER/MODEL or kaggle://USER/MODEL/keras/VARIATION",
        )
    folder = preset_copies.of(str(preset)) if paths.is_remote(preset) else os.fspath(preset)
    preset_folders.check_folder(folder)
    for name in ("config.json", checksums.CARD):
        if not os.path.isfile(os.path.join(folder, name)):
            remedy = "give the preset/ of a run, or a folder written by save_to_preset"
            raise MissingInputError(f"no {name} in the preset", Place(str(preset)), remedy)
    checksums.check(folder)
    name = str(uri).partition("://")[2]
    with hub.one_line(uri):
        if scheme == "hf":
            import huggingface_hub

            api = huggingface_hub.HfApi()
            api.create_repo(name, exist_ok=True)
            api.upload_folder(
                repo_id=name, folder_path=folder, ignore_patterns=[checksums.EARLIER_CARD]
            )
        else:
            import kagglehub

            kagglehub.model_upload(name, folder, ignore_patterns=[checksums.EARLIER_CARD])
