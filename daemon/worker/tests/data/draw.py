"""Draws the tiles of this folder; the same seeds give the same tiles. Needs numpy and Pillow."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 256
GLASS, NORMAL, TUMOUR = (244, 241, 245), (226, 176, 208), (205, 140, 190)
NUCLEUS = (98, 62, 140)


def as_image(values):
    return Image.fromarray(values.clip(0, 255).astype("u1"))


def glass(rng):
    return as_image(np.full((SIDE, SIDE, 3), GLASS, float) + rng.normal(0, 1.5, (SIDE, SIDE, 1)))


def tissue(rng, colour, count, radii, lumens):
    """Ground of uneven stain, nuclei as ellipses, lumens as holes to the glass, then blur and noise."""
    waves = np.array(as_image(rng.random((32, 32)) * 255).resize((SIDE, SIDE), Image.BICUBIC), float) / 255 - 0.5
    image = as_image(np.array(colour, float) + waves[..., None] * np.array((40, 60, 40)))
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        x, y = rng.random(2) * SIDE
        r, e = rng.uniform(*radii), rng.uniform(0.7, 1.3)
        fill = tuple(int(v) for v in np.array(NUCLEUS) + rng.normal(0, 12, 3))
        draw.ellipse([x - r * e, y - r / e, x + r * e, y + r / e], fill=fill)
    for _ in range(lumens):
        x, y = rng.random(2) * SIDE
        r = rng.uniform(25, 45)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=GLASS)
    blurred = np.array(image.filter(ImageFilter.GaussianBlur(0.8)), float)
    return as_image(blurred + rng.normal(0, 4, (SIDE, SIDE, 3)))


def main():
    kinds = {
        "glass-0": glass,
        "normal-1": lambda rng: tissue(rng, NORMAL, 40, (3.5, 6), 3),
        "normal-2": lambda rng: tissue(rng, NORMAL, 40, (3.5, 6), 3),
        "tumour-3": lambda rng: tissue(rng, TUMOUR, 110, (5, 10), 0),
        "tumour-4": lambda rng: tissue(rng, TUMOUR, 110, (5, 10), 0),
    }
    for name, draw in kinds.items():
        image = draw(np.random.default_rng(int(name[-1])))
        image.save(Path(__file__).with_name(f"{name}.jpg"), quality=85, subsampling="4:2:2")


main()
