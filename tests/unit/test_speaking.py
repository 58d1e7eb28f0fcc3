"""From text to symbols: sentences, phonemes, and the numbers that a model takes."""

import importlib.util

import pytest

from engines.sentences import MOST, sentences
from engines.speaking.phonemes import spell, symbols_of, voice_weights
from schemas.errors import ModelError, PluginMissing, UsageError
from schemas.speech import SpeechSpec

LETTERS = SpeechSpec(
    rate=16000,
    alphabet="letters",
    symbols={each: (n + 10,) for n, each in enumerate("abc .e\u0301ç")},
    begin=(1, 0),
    after=(0,),
    end=(2,),
    most=13,
)
ESPEAK = importlib.util.find_spec("espeakng_loader") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        (
            "Dr. Smith met J. R. R. Tolkien in the U.S. Navy. Ok.",
            ["Dr. Smith met J. R. R. Tolkien in the U.S. Navy.", "Ok."],
        ),
        ("It costs 3.50 dollars. Then... he paid.", ["It costs 3.50 dollars.", "Then... he paid."]),
        ('"Really?" she said. "Yes." He left.', ['"Really?" she said.', '"Yes."', "He left."]),
        ("So am I. You too.", ["So am I.", "You too."]),
        ("Fig. 5 shows No. 7. Say no. Then go.", ["Fig. 5 shows No. 7.", "Say no.", "Then go."]),
        ("Am 12. März kam er. Z.B. Hans, bzw. Franz.", ["Am 12.", "März kam er.", "Z.B. Hans, bzw. Franz."]),
        ("wrapped\nline\r\n\r\nparagraph\n \n  next", ["wrapped line", "paragraph", "next"]),
        ("# Title\n- one\n- two\n1. first\n2. second", ["Title", "one", "two", "1. first", "2. second"]),
        ("これは文です。次の文です！終わり", ["これは文です。", "次の文です！", "終わり"]),
        ("One. *** --- Two.", ["One.", "*** --- Two."]),
        ("Wait ... what?! OK", ["Wait ... what?!", "OK"]),
        ("", []),
        (" \n\t ", []),
        ("... !? — *", []),
        ("🙂 🎉", []),
        ("🙂 smile", ["🙂 smile"]),
        ("مرحبا بالعالم", ["مرحبا بالعالم"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_long_sentences_are_cut_at_clauses_words_or_anywhere() -> None:
    clauses = "one two three, " * 60
    for text, end in ((clauses, ","), ("word " * 300, "d"), ("x" * 1000, "x"), ("長い、" * 400, "、")):
        found = sentences(text)
        assert len(found) > 1
        assert all(len(each) <= MOST and each.endswith(end) for each in found)
        assert "".join("".join(found).split()) == "".join(text.split())


def test_large_and_odd_texts_take_a_moment() -> None:
    """What is quadratic takes minutes here."""
    assert len(sentences("This is a sentence, and it has a number 3.5 in it. " * 1_000)) == 1_000
    assert len(sentences("a" * (1 << 20))) == -(-(1 << 20) // MOST)
    for text in (".", ". ", ".'", "\n", "\n ", "- ", "1. ", ",", "\u3002"):
        assert sentences(text * (30_000 // len(text)) + "a")[-1].endswith("a")


def test_letters_become_symbols_of_at_most_so_many() -> None:
    assert symbols_of("Abc.", LETTERS, "") == [[1, 0, 10, 0, 11, 0, 12, 0, 14, 0, 2]]
    assert symbols_of("xyz", LETTERS, "") == []
    assert symbols_of("abcab cab", LETTERS, "") == [
        [1, 0, 10, 0, 11, 0, 12, 0, 10, 0, 11, 0, 2],
        [1, 0, 13, 0, 12, 0, 10, 0, 11, 0, 2],
    ]
    # decomposed where the parts are known, composed where it is; a letter that is not known is left out
    assert symbols_of("éçñ", LETTERS, "") == [[1, 0, 15, 0, 16, 0, 17, 0, 2]]


def test_voices_blend_or_are_refused() -> None:
    speech = LETTERS.model_copy(update={"voices": ("a", "b", "c"), "blends": True})
    assert voice_weights("", speech) == [1, 0, 0]
    assert voice_weights("b", speech) == [0, 1, 0]
    assert voice_weights({"a": 1, "c": 3}, speech) == [0.25, 0, 0.75]
    with pytest.raises(ModelError, match="the model has no voice d: it has a, b, c"):
        voice_weights("d", speech)
    with pytest.raises(ModelError, match="the weights of voices are not above 0"):
        voice_weights({"a": 0.0}, speech)
    with pytest.raises(ModelError, match="the model does not blend voices"):
        voice_weights({"a": 1, "b": 1}, speech.model_copy(update={"blends": False}))


@pytest.mark.skipif(ESPEAK, reason="espeak-ng is installed")
def test_without_espeak_a_line_says_what_to_install() -> None:
    with pytest.raises(PluginMissing, match=r"espeak-ng, which is not installed here: install the extra phonemes"):
        spell("hello", "ipa", "en-us")


@pytest.mark.skipif(not ESPEAK, reason="espeak-ng is not installed")
def test_phonemes_keep_the_punctuation_of_the_sentence() -> None:
    assert spell('Hello, "world" — it is fine!', "ipa", "en-us") == "həlˈoʊ, wˈɜːld— ɪɾ ɪz fˈaɪn!"
    assert spell("Mr. Smith (who) met Dr. Jones.", "misaki", "en-us") == "mˈɪstəɹ smˈɪθ hˌu mˈɛt dˈɑktəɹ ʤˈOnz."
    assert spell("Ça va garçon?", "ipa", "fr") == "sa vˈa ɡaʁsˈɔ̃?"
    assert spell("...", "ipa", "en-us") == "…"
    again = [
        spell(text, "ipa", language) for text, language in (("Guten Tag", "de"), ("a 🙂 ☃", "en-us"), ("漢", "ja"))
    ]
    assert again == [spell(t, "ipa", lang) for t, lang in (("Guten Tag", "de"), ("a 🙂 ☃", "en-us"), ("漢", "ja"))]
    with pytest.raises(UsageError, match="espeak-ng has no language xx-yy"):
        spell("a", "ipa", "xx-yy")
    odd = ["x\0y", "\ud800", "<b>t</b> [[h@l'oU]]", "a" * 5000, "\u202e\u0301", "1" * 500, "%s%n", "\x1b[0m"]
    assert all(isinstance(spell(text, "ipa", "en-us"), str) for text in odd)
