"""All kinds of signs by name, and a sign as a picture."""

from __future__ import annotations

from PIL import Image

from sampan.samplers import noise
from sampan.synthetic.signs.drawing import FINER, Canvas
from sampan.synthetic.signs.objects import OBJECTS
from sampan.synthetic.signs.outdoors import OUTDOORS
from sampan.synthetic.signs.scenes import SCENES
from sampan.synthetic.signs.sign import Sign

LAYOUTS = OUTDOORS | OBJECTS


def paint(sign: Sign, size_px: int) -> Image.Image:
    """Return the RGB picture (size_px, size_px) of a sign."""
    canvas = Canvas(size_px * FINER)
    if sign.scene in SCENES:  # some layouts are a scene themselves
        SCENES[sign.scene][0](canvas, noise.generator(sign.variant, "signs/scene"))
    layout = LAYOUTS[sign.layout]
    layout.paint(canvas, sign, noise.generator(sign.variant, "signs/layout"))
    if layout.write:
        layout.write(canvas, sign, layout.places(sign))
    return canvas.finish()
