"""Which items of a job have a result, when its Done names some failures alone."""

from schemas.jobs import JobRef, Key
from schemas.media import Item, MediaInfo
from schemas.parts import PartMeta
from workers.item_results import ItemResults

JOB = JobRef(id="j", pipeline="p", revision="0" * 16)


def part(*items: Item) -> PartMeta:
    return PartMeta(key=Key(job=JOB, segment=0), media=MediaInfo(kind="image", timed=False), items=items)


def test_an_item_has_a_result_if_a_part_has_it_without_an_error() -> None:
    items = ItemResults()
    items.part(part(Item(name="a.png"), Item(name="b: c.png", error="broken")))
    items.part(part(Item(name="two", piece_of=1, more=True), Item(name="two", piece_of=1, error="too long")))
    assert [items.has(name) for name in ("a.png", "b: c.png", "two", "lost.png")] == [True, False, False, False]
    failures = ("b: c.png: broken", "infer: out of memory")
    assert items.reason("b: c.png", failures) == "broken"
    assert items.reason("lost.png", failures) == "infer: out of memory", "of the part that failed as a whole"
    assert items.reason("lost.png", failures[:1]) == "it has no result"


def test_names_are_found_as_messages_have_them() -> None:
    items = ItemResults()
    name = "a\n" + "b" * 300
    items.part(part(Item(name=name)))
    assert items.has(name)
