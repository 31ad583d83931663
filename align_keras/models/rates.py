"""Learning-rate factors for a model's weights, by tower and depth."""

from align_keras.models.backbone import AlignBackbone


def factors_by_path(
    backbone: AlignBackbone, image: float = 1.0, text: float = 1.0, layer_decay: float = 1.0
) -> dict[str, float]:
    """The learning-rate factor of each weight of the towers.

    In a tower with N blocks, block i (from 1) has the factor ``layer_decay ** (N + 1 - i)``. Layers
    before the blocks have ``layer_decay ** (N + 1)``, as in BEiT (Bao et al., 2022). The
    projections have factor 1. The blocks of EfficientNet are its stages.

    Args:
        backbone: a backbone whose towers have ``stages``.
        image: factor of the image tower.
        text: factor of the text tower.
        layer_decay: factor from each block to the block before it.

    Returns:
        The factors by the paths of the weights, without factors of 1.
    """
    factors: dict[str, float] = {}
    for tower, factor in ((backbone.image_encoder, image), (backbone.text_encoder, text)):
        stages = tower.stages
        for index, variables in enumerate(stages):
            found = factor * layer_decay ** (len(stages) - index)
            factors |= {variable.path: found for variable in variables}
    return {path: factor for path, factor in factors.items() if factor != 1.0}
