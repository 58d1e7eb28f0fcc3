"""Contact sheets: the words on them in any alphabet, and where pictures lie."""

import hashlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from engines.outputs.sheet import BLANK, BRIGHT, DIM, MARK, PAPER, Layout, Section, Tile, draw_sheet
from engines.outputs.text import font, one_line, text_width
from engines.part import Array

FONT = Path(str(files("paperang_p2_fonts_cjk"))) / "fonts" / "wqy-microhei.ttc"
GREY = np.full((90, 160, 3), 99, np.uint8)


def drawn(text: str, colour: tuple[int, int, int], size: int, paper: tuple[int, int, int] = PAPER) -> Array:
    """The text on a strip of paper, drawn by Pillow alone."""
    reference = ImageFont.truetype(str(FONT), size, layout_engine=ImageFont.Layout.BASIC)
    strip = Image.new("RGB", (round(reference.getlength(text)), size + 2), paper)
    ImageDraw.Draw(strip).text((0, 0), text, colour, reference)
    return np.asarray(strip)


def test_the_font_is_the_one_that_the_pixels_were_made_with() -> None:
    assert hashlib.sha256(FONT.read_bytes()).hexdigest() == (
        "2420e8078af796b19a3f6ef13de527a1a91c1e7171eea115926c614ced1009b3"
    )


@pytest.mark.parametrize("text", ["Größe Äöü", "łódź çñ", "汉字字幕", "漢字", "ひらカタ", "한국어", "Ελλάς", "Русский"])
def test_every_letter_has_a_shape_of_its_own(text: str) -> None:
    letters = text.replace(" ", "")
    shapes = [drawn(letter, BRIGHT, 13).tobytes() for letter in (*letters, "\U0010ffff", "?")]
    assert len(set(shapes)) == len(set(letters)) + 2


def test_words_lie_where_the_sheet_says_in_any_alphabet() -> None:
    tile = Tile(GREY, ((("böse 影片", BRIGHT), ("  2.0", DIM)), (("= 한국", MARK),)))
    sheet = draw_sheet("Größe 片", "two", [Section([tile], (("7 ", BRIGHT), ("media", DIM)))], Layout(3, (90, 160), 2))
    assert sheet.shape == (24 + 48 + 24 + 90 + 6 + 36 + 24, 24 + 3 * 174 - 14 + 24, 3)
    for text, colour, size, top, left in (
        ("Größe 片", BRIGHT, 19, 19, 24),
        ("two", DIM, 13, 45, 24),
        ("7 ", BRIGHT, 17, 68, 24),
        ("media", DIM, 17, 68, 24 + text_width("7 ", 17)),
        ("böse 影片", BRIGHT, 13, 192, 24),
        ("= 한국", MARK, 13, 210, 24),
    ):
        strip = drawn(text, colour, size)
        height, width = strip.shape[:2]
        np.testing.assert_array_equal(sheet[top : top + height, left : left + width], strip, err_msg=text)
    np.testing.assert_array_equal(sheet[96:186, 24:184], GREY)
    assert (sheet[96:186, 184:] == PAPER).all()


def test_a_small_picture_lies_in_the_middle_of_its_box_and_a_missing_one_is_said() -> None:
    small = Tile(np.full((30, 40, 3), 200, np.uint8), ())
    sheet = draw_sheet("t", "", [Section([small, Tile(None, ())])], Layout(2, (90, 160), 0))
    box, blank = sheet[72:162, 24:184], sheet[72:162, 198:358]
    assert (box[30:60, 60:100] == 200).all()
    assert (box == BLANK).all(axis=-1).sum() == 90 * 160 - 30 * 40
    assert (blank == DIM).all(axis=-1).any()


def test_a_line_is_cut_where_its_room_ends_and_nothing_in_it_breaks_the_sheet() -> None:
    assert one_line("short", 13, 200) == "short"
    cut = one_line("0123456789" * 50, 13, 100)
    assert cut.endswith("...")
    assert 90 < text_width(cut, 13) <= 100
    assert text_width(one_line("汉" * 50, 13, 100), 13) <= 100
    assert one_line("two\nlines\udcff", 13, 500) == "two\\nlines\\xff"
    assert one_line("u\u0308", 13, 500) == "ü"
    sheet = draw_sheet("\udcff\n" + "long " * 900, "", [], Layout(1, (90, 160), 1))
    assert sheet.shape == (82, 208, 3)
    assert (sheet[:, 185:] == PAPER).all()
    assert font(13).getmetrics()[0] < 18
