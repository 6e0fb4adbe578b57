"""All kinds of signs by name, and a sign as a picture."""

from __future__ import annotations

from PIL import Image

from sampan.samplers import noise
from sampan.synthetic.signs import objects, outdoors
from sampan.synthetic.signs.drawing import FINER, Canvas
from sampan.synthetic.signs.scenes import SCENES
from sampan.synthetic.signs.sign import Sign, SignLayout

LAYOUTS: dict[str, SignLayout] = {
    "board": outdoors.BOARD,
    "placard": outdoors.PLACARD,
    "plaque": outdoors.PLAQUE,
    "octagon": outdoors.OCTAGON,
    "diamond": outdoors.DIAMOND,
    "arrow": outdoors.ARROW,
    "shop": outdoors.SHOP,
    "neon": outdoors.NEON,
    "hanging": outdoors.HANGING,
    "upright": outdoors.UPRIGHT,
    "number-plate": outdoors.NUMBER_PLATE,
    "banner": outdoors.BANNER,
    "poster": objects.POSTER,
    "tag": objects.TAG,
    "blackboard": objects.BLACKBOARD,
    "book": objects.BOOK,
    "ticket": objects.TICKET,
    "ribbon": objects.RIBBON,
    "badge": objects.BADGE,
    "bubble": objects.BUBBLE,
    "screen": objects.SCREEN,
    "shirt": objects.SHIRT,
}


def paint(sign: Sign, size_px: int) -> Image.Image:
    """Return the RGB picture (size_px, size_px) of a sign."""
    canvas = Canvas(size_px * FINER)
    if sign.scene in SCENES:  # some layouts are a scene themselves
        SCENES[sign.scene][0](canvas, noise.generator(sign.variant, "signs/scene"))
    LAYOUTS[sign.layout].paint(canvas, sign, noise.generator(sign.variant, "signs/layout"))
    return canvas.finished()
