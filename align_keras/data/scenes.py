"""Rendered scenes with noisy alt-text, for the quickstart and the tests.

A scene is one shape of one colour on a background. Some combinations of colour and shape appear
only in evaluation. Training captions resemble alt-text on the web: their phrasing varies, and some
are wrong or useless.
"""

import io
import random
from pathlib import Path

from PIL import Image, ImageDraw

from align_keras import progress
from align_keras.data import records
from align_keras.data.shard_writer import ShardWriter

COLOURS = {
    "red": (214, 40, 40),
    "orange": (247, 127, 0),
    "yellow": (252, 220, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 210),
    "purple": (130, 50, 170),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond")
SIZES = {"small": 0.24, "medium": 0.3, "large": 0.36}
# No left or right, since training flips images.
POSITIONS = {"top": 0.33, "middle": 0.5, "bottom": 0.67}
GROUNDS = {
    "grey": (140, 140, 140),
    "brown": (120, 80, 50),
    "pink": (245, 170, 190),
    "turquoise": (60, 190, 190),
    "beige": (225, 205, 165),
}
PATTERNS = ("plain", "striped", "dotted")

# One combination for each colour and each shape that training never shows.
UNSEEN = frozenset(zip(COLOURS, SHAPES, strict=True))

WRONG_RATE = 0.05
USELESS_RATE = 0.05
_PIXELS = 80
_OVERSAMPLING = 2


def write_scenes(
    directory: str | Path, num_train: int, num_eval: int, seed: int = 0, shard_size: int = 2_000
) -> tuple[str, str]:
    """Renders scenes and writes them as shards ``train-*`` and ``eval-*``.

    Three in ten evaluation scenes show combinations that training never does. All evaluation
    captions are true.

    Args:
        directory: folder for the shards.
        num_train: number of training pairs.
        num_eval: number of evaluation pairs.
        seed: decides every random choice.
        shard_size: pairs per shard.

    Returns:
        ``(train_pattern, eval_pattern)``.
    """
    rng = random.Random(seed)
    seen = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in UNSEEN]
    unseen = sorted(UNSEEN)
    with ShardWriter(f"{directory}/train", shard_size) as writer:
        for i in progress.watch(range(num_train), "rendering scenes", "pair", num_train):
            scene = _draw_lot(rng, seen)
            writer.write(_record(rng, scene, f"train-{i:06d}", _noisy_caption(rng, scene, seen)))
    with ShardWriter(f"{directory}/eval", shard_size) as writer:
        for i in range(num_eval):
            # Combinations take turns, so that no class is missing by chance.
            combinations = unseen if i % 10 < 3 else seen
            scene = _draw_lot(rng, [combinations[i // 2 % len(combinations)]])
            writer.write(_record(rng, scene, f"eval-{i:06d}", _true_caption(rng, scene)))
    return f"{directory}/train-*.tfrecord", f"{directory}/eval-*.tfrecord"


def _draw_lot(rng: random.Random, combinations: list[tuple[str, str]]) -> dict[str, str]:
    colour, shape = rng.choice(combinations)
    return {
        "colour": colour,
        "shape": shape,
        "size": rng.choice(list(SIZES)),
        "position": rng.choice(list(POSITIONS)),
        "ground": rng.choice(list(GROUNDS)),
        "pattern": rng.choice(PATTERNS),
    }


def _record(rng: random.Random, scene: dict[str, str], key: str, caption: str) -> bytes:
    combination = (scene["colour"], scene["shape"])
    return records.make_record(
        _render(rng, scene),
        caption,
        key,
        image_id=key,
        class_name=" ".join(combination),
        unseen_class=int(combination in UNSEEN),
    )


def _true_caption(rng: random.Random, scene: dict[str, str]) -> str:
    size = "" if scene["size"] == "medium" else scene["size"] + " "
    thing = f"{size}{scene['colour']} {scene['shape']}"
    pattern = "" if scene["pattern"] == "plain" else scene["pattern"] + " "
    ground = f"{pattern}{scene['ground']} background"
    place = {"top": "at the top", "middle": "in the middle", "bottom": "at the bottom"}
    where = place[scene["position"]]
    return rng.choice(
        (
            f"a {thing} {where} of a {ground}",
            f"{thing} {where}, {ground}",
            f"{thing} on a {ground}",
            f"picture of a {thing} {where} on a {ground}",
            f"{ground} with a {thing} {where}",
            f"Clipart: {thing} ({where}) - {ground}",
            f"{scene['shape']}, {scene['colour']}, {size}{where}, {ground}",
            f"a {thing}",
            f"{scene['colour']} {scene['shape']}",
            f"photo of a {thing}",
        )
    )


def _noisy_caption(
    rng: random.Random, scene: dict[str, str], combinations: list[tuple[str, str]]
) -> str:
    lot = rng.random()
    if lot < WRONG_RATE:
        return _true_caption(rng, _draw_lot(rng, combinations))
    if lot < WRONG_RATE + USELESS_RATE:
        number = rng.randrange(10_000)
        useless = (
            f"IMG_{number:04d}.jpg",
            "image",
            "click to enlarge",
            "untitled",
            f"{number}",
        )
        return rng.choice(useless)
    caption = _true_caption(rng, scene)
    clutter = rng.random()
    if clutter < 0.1:
        return f"{caption} | free download"
    if clutter < 0.2:
        return f"{caption.upper()} {rng.randrange(1000)}"
    return caption


def _render(rng: random.Random, scene: dict[str, str]) -> bytes:
    """Draws a scene; returns the bytes of an 80 x 80 JPEG."""
    side = _PIXELS * _OVERSAMPLING
    ground = tuple(min(255, max(0, c + rng.randint(-15, 15))) for c in GROUNDS[scene["ground"]])
    image = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(image)
    darker = tuple(int(c * 0.8) for c in ground)
    if scene["pattern"] == "striped":
        for x in range(rng.randrange(16), side, 24):
            draw.line((x, 0, x, side), fill=darker, width=8)
    elif scene["pattern"] == "dotted":
        for x in range(rng.randrange(16), side, 24):
            for y in range(8, side, 24):
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=darker)
    radius = side * SIZES[scene["size"]] * rng.uniform(0.9, 1.1)
    centre = (
        side * rng.uniform(0.4, 0.6),
        side * (POSITIONS[scene["position"]] + rng.uniform(-0.04, 0.04)),
    )
    colour = tuple(min(255, max(0, c + rng.randint(-15, 15))) for c in COLOURS[scene["colour"]])
    _draw_shape(draw, scene["shape"], *centre, radius, colour, ground)
    image = image.resize((_PIXELS, _PIXELS), Image.Resampling.BOX)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=92)
    return encoded.getvalue()


# Corners as (x, y) on a circle of radius 1; y points downwards.
_POLYGONS = {
    "square": ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
    "triangle": ((0, -1), (0.95, 0.75), (-0.95, 0.75)),
    "diamond": ((0, -1), (0.65, 0), (0, 1), (-0.65, 0)),
    "star": (
        (0, -1),
        (0.24, -0.32),
        (0.95, -0.31),
        (0.38, 0.12),
        (0.59, 0.81),
        (0, 0.4),
        (-0.59, 0.81),
        (-0.38, 0.12),
        (-0.95, -0.31),
        (-0.24, -0.32),
    ),
}


def _draw_shape(draw, shape, x, y, radius, colour, ground):
    def box(left, top, right, bottom):
        return (x + left * radius, y + top * radius, x + right * radius, y + bottom * radius)

    if shape in _POLYGONS:
        corners = [(x + a * radius, y + b * radius) for a, b in _POLYGONS[shape]]
        draw.polygon(corners, fill=colour)
    elif shape == "cross":
        draw.rectangle(box(-0.3, -0.95, 0.3, 0.95), fill=colour)
        draw.rectangle(box(-0.95, -0.3, 0.95, 0.3), fill=colour)
    elif shape == "heart":
        draw.ellipse(box(-1, -0.85, 0.05, 0.2), fill=colour)
        draw.ellipse(box(-0.05, -0.85, 1, 0.2), fill=colour)
        corners = ((-0.93, -0.07), (0.93, -0.07), (0, 1))
        draw.polygon([(x + a * radius, y + b * radius) for a, b in corners], fill=colour)
    else:
        draw.ellipse(box(-1, -1, 1, 1), fill=colour)
        if shape == "ring":
            draw.ellipse(box(-0.55, -0.55, 0.55, 0.55), fill=ground)
