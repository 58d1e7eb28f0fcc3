"""Ids of texts with CLIP's own vocabulary, held against those of open_clip's tokenizer; behind `make test-models`."""

import gzip
import hashlib

import numpy as np
import pytest

from engines.models.text import token_ids
from schemas.model_files import TextSpec
from tests.clip_tokens import clip_tokenizer
from tests.weights import VOCABULARY, weights

pytestmark = pytest.mark.models
TEXTS = [
    "",
    " ",
    "a dog on a beach",
    "A DOG",
    "Straße",
    "Äpfel und Öl über München",
    "naïve café",
    "日本語のテキスト",
    "한국어 문장",
    "🐶",
    "🐶🏖️ dog",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "e\u0301clair",
    "éclair",
    "\u212b ngstrom",
    "don't we'll they've I'm",
    "1234567890",
    "3.14159",
    "#hashtag @user",
    "http://example.org/a?b=c&d=e",
    "new\nline",
    "tab\tin",
    "  many   spaces  ",
    "\xa0nbsp\xa0",
    "\u200bzero width",
    "\u202eright to left",
    "עברית",
    "العربية",
    "हिन्दी",
    "ไทย",
    "русский текст",
    "Ελληνικά",
    "ß",
    "İstanbul",
    "ı dotless",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "𐍈",
    "💯%",
    "$100 \u20ac50 \xa33",
    "C++ C# F#",
    "a/b\\c",
    "_under_score_",
    "--dashes\u2014em\u2013en",
    "...",
    "\u2026",
    "?!",
    "'",
    "''",
    "'s",
    "''s",
    "'sdog",
    "</w>",
    "a</w>b",
    "x" * 300,
    "word " * 200,
    "猫" * 100,
    "🐱" * 90,
    "�",
    "½ ¼ ²",
    "№ ™ ©",
    "①②③",
    "Ⅷ",
    "a\u0308",
    "o\u0308 u\u0308",
    "Å",
    "K",
    "™",
    "ﷺ",
    "test\r\nwindows",
    "\x0b\x0c",
    "end ",
    "photo of a {label}",
    "😀😃😄😁",
    "🇩🇪🇫🇷",
    "👍🏽",
    "☃ snow",
    "♥",
    "🧿",
    "ẞ",
    "CamelCaseWord",
    "ALL CAPS 100X",
    "mixed日本and英語",
]
# what SimpleTokenizer of open_clip 3.3.0 made of these texts, `[82, 77]` int32
SHA256 = "cb3d2392596af4b84107cc6e9590f5b8184ba5c57ccd3c3a05a0170b4d22de8f"
KNOWN = {
    "a dog on a beach": [49406, 320, 1929, 525, 320, 2117, 49407],
    "Straße": [49406, 1894, 127, 253, 324, 49407],
    "日本語のテキスト": [49406, 39121, 44353, 34002, 252, 21575, 2429, 228, 47121, 32421, 486, 49407],
    "🐶🏖️ dog": [49406, 14466, 1109, 28877, 1929, 49407],
}


def test_ids_are_those_of_open_clip() -> None:
    """Texts that open_clip repairs by ftfy are left out: the tokenizer.json of such models does not."""
    merges = gzip.decompress(weights(VOCABULARY).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    tokenizer = clip_tokenizer([(first, second) for first, second in map(str.split, merges)])
    text = TextSpec(graph="g", tokenizer="t", length=77, pad=0)
    for each, expected in KNOWN.items():
        ids, mask = token_ids(tokenizer, text, [each])
        assert ids[0][: mask.sum()].tolist() == expected
    ids, _ = token_ids(tokenizer, text, TEXTS)
    assert hashlib.sha256(np.ascontiguousarray(ids, "<i4").tobytes()).hexdigest() == SHA256
