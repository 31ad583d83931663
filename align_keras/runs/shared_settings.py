"""Settings that pretraining and the training of a classifier share."""

import dataclasses
from typing import Annotated

from tyro.conf import Fixed, Suppress

from align_keras.runs import trackers
from align_keras.runs.setting_values import check_license
from align_keras.runs.settings import FREE_ON_RESUME, Part


@dataclasses.dataclass(frozen=True)
class SharedSettings(Part):
    """The name of an experiment, and where a run sends its results."""

    # The recipes read this flag before all others.
    experiment: Annotated[str, FREE_ON_RESUME, Fixed, Suppress] = ""
    """Name of the experiment that sets the defaults."""
    tracker: Annotated[str, FREE_ON_RESUME] = ""
    """Also sends the settings and the lines of the log to mlflow, wandb or trackio; several are
    joined by commas. TensorBoard's logs/ are always written."""
    license: Annotated[str, FREE_ON_RESUME] = ""
    """License of the model, for its card: an identifier of Hugging Face's hub, such as apache-2.0.
    Empty: the card states that there is none.
    """

    def check_shared(self) -> None:
        """Raises InputError if a tracker is unknown or the license is not an identifier."""
        check_license(self.license)
        trackers.names_of(self.tracker)
