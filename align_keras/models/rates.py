"""Learning-rate factors of a model's weights, by tower and by depth."""

from align_keras.models.backbone import AlignBackbone


def factors_by_path(
    backbone: AlignBackbone, image: float = 1.0, text: float = 1.0, layer_decay: float = 1.0
) -> dict[str, float]:
    """The factor on the learning rate of each weight of the towers.

    In a tower with N blocks, block i (from 1) has ``layer_decay ** (N + 1 - i)``; what comes before
    the blocks has ``layer_decay ** (N + 1)``. So has BEiT (Bao et al., 2022). The projections have
    1. The blocks of EfficientNet are its stages.

    Args:
        backbone: its towers have ``stages``.
        image: factor of the image tower.
        text: factor of the text tower.
        layer_decay: factor from each block to the one before.

    Returns:
        The factors by the paths of the weights, those of 1 left out.
    """
    factors: dict[str, float] = {}
    for tower, factor in ((backbone.image_encoder, image), (backbone.text_encoder, text)):
        stages = tower.stages
        for index, variables in enumerate(stages):
            found = factor * layer_decay ** (len(stages) - index)
            factors |= {variable.path: found for variable in variables}
    return {path: factor for path, factor in factors.items() if factor != 1.0}
