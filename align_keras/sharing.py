"""Uploads presets with their cards; keras-hub's own upload writes a card of its own over them."""

import os

from align_keras import checksums, hub, paths, preset_copies, preset_folders
from align_keras.errors import InputError, MissingInputError, Place

#: Hubs that take a preset.
SCHEMES = ("hf", "kaggle")


def upload_preset(uri: str, preset: str | os.PathLike[str]) -> None:
    """Uploads a preset to a hub.

    All files go there, also the card, ``README.md``. Log in first: ``hf auth login``, or Kaggle's
    ``kaggle.json``.

    Args:
        uri: ``hf://USER/MODEL``, which is made if it is not there; or
            ``kaggle://USER/MODEL/keras/VARIATION``.
        preset: a folder, as ``save_to_preset`` or a run writes it; also ``gs://...``.

    Raises:
        InputError: if a file is not as it was written, or the hub cannot be reached or refuses.
        MissingInputError: if there is no such folder, or it is no preset with a card.
    """
    scheme = paths.scheme(uri)
    if scheme not in SCHEMES:
        raise InputError(
            "no address to upload to",
            Place(str(uri)),
            "give hf://USER/MODEL or kaggle://USER/MODEL/keras/VARIATION",
        )
    folder = preset_copies.of(str(preset)) if paths.is_remote(preset) else os.fspath(preset)
    preset_folders.check_folder(folder)
    for name in ("config.json", checksums.CARD):
        if not os.path.isfile(os.path.join(folder, name)):
            remedy = "give the preset/ of a run, or what save_to_preset wrote"
            raise MissingInputError(f"no {name} in it", Place(str(preset)), remedy)
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
