"""Benign frames for analysers: noise, gradients, shapes and a drawn face, the same ones on every machine."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fediwarden.model import Frame


def frame_of(image: Image.Image, index: int = 0, source: str = "") -> Frame:
    """An image as a frame that came out of the cage."""
    rgb = image.convert("RGB")
    return Frame(rgb.tobytes(), rgb.width, rgb.height, index=index, source=source)


def noise(width: int, height: int, seed: int = 0, grain: int = 1) -> Image.Image:
    """Random colours in squares of `grain` pixels."""
    random = np.random.Generator(np.random.PCG64(seed))
    size = (max(1, height // grain), max(1, width // grain), 3)
    dots = Image.fromarray((random.random(size) * 255).astype(np.uint8))
    return dots.resize((width, height), Image.Resampling.NEAREST)


def gradient(width: int, height: int) -> Image.Image:
    """Red to the right, green downwards, blue diagonally."""
    x = np.linspace(0, 255, width)[np.newaxis, :]
    y = np.linspace(0, 255, height)[:, np.newaxis]
    return Image.fromarray(np.stack(np.broadcast_arrays(x, y, (x + y) / 2), axis=2).astype(np.uint8))


def shapes(width: int, height: int, seed: int = 0) -> Image.Image:
    """Plain rectangles and ellipses."""
    random = np.random.Generator(np.random.PCG64(seed))
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    for number in range(12):
        x, y = random.random(2) * (width, height)
        box = (x, y, x + width * 0.2, y + height * 0.2)
        colour = tuple(int(value) for value in random.random(3) * 255)
        (draw.ellipse if number % 2 else draw.rectangle)(box, fill=colour)
    return picture


def drawn_face(size: int = 400, turned: float = 0.0) -> Image.Image:
    """A crude drawing of a face on grey, soft enough for a detector trained on photographs to take it for one."""
    picture = Image.new("RGB", (size, size), (110, 130, 150))
    draw = ImageDraw.Draw(picture)

    def oval(x: float, y: float, w: float, h: float, colour: tuple[int, int, int]) -> None:
        draw.ellipse(((x - w) * size, (y - h) * size, (x + w) * size, (y + h) * size), fill=colour)

    oval(0.5, 0.46, 0.33, 0.42, (60, 42, 30))  # hair
    oval(0.5, 0.52, 0.27, 0.36, (214, 168, 138))
    for eye in (0.39, 0.61):
        oval(eye, 0.44, 0.055, 0.026, (245, 242, 240))
        oval(eye, 0.44, 0.024, 0.024, (50, 36, 28))
        draw.arc(((eye - 0.07) * size, 0.36 * size, (eye + 0.07) * size, 0.43 * size), 190, 350, (70, 48, 36), size // 60)
    draw.polygon([(0.5 * size, 0.46 * size), (0.46 * size, 0.6 * size), (0.54 * size, 0.6 * size)], fill=(196, 146, 118))
    oval(0.5, 0.72, 0.09, 0.025, (176, 84, 84))
    soft = picture.filter(ImageFilter.GaussianBlur(size / 130))
    return soft.rotate(turned, Image.Resampling.BICUBIC, fillcolor=(110, 130, 150))
