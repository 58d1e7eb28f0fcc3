"""The 80 classes of COCO (https://cocodataset.org), in the order of every model trained on them."""

from collections.abc import Mapping

_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
_UNUSED = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # numbers of COCO's categories, from 1 on, that have no class
COCO = tuple(_NAMES.split(","))


def _by_category() -> tuple[str, ...]:
    names = iter(COCO)
    return tuple("N/A" if number in _UNUSED else next(names) for number in range(len(COCO) + len(_UNUSED)))


LABELS: Mapping[str, tuple[str, ...]] = {"coco": COCO, "coco by category": _by_category()}
"""The lists that cards of rigflow name as their `labels`: classes from 0 to 79, and the numbers of categories."""
