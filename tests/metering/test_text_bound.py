"""How many tokens a text can make: never fewer than any tokenizer made of it, and not as many as it has bytes.

The numbers of tokens were counted with cl100k, o200k, the published tokenizers of Claude and DeepSeek, and Mistral's one of
32,000; each is the highest of the five.
"""

import sys
import unicodedata

import pytest
from hypothesis import given, strategies as st

from metering.hold_bound.text import text_tokens

COUNTED = {
    "English": (
        "The committee agreed that the report should be published before the end of the month, and that nobody would be quoted in it by name.",
        27,
    ),
    "German": (
        "Die Donaudampfschifffahrtsgesellschaft veröffentlichte am Mittwoch überraschend günstige Geschäftszahlen für das vergangene Jahr.",
        40,
    ),
    "Finnish": (
        "Epäjärjestelmällisyydestään huolimatta hän sai väitöskirjansa valmiiksi juhannukseen mennessä, vaikka kukaan ei enää uskonut siihen.",
        61,
    ),
    "Welsh": (
        "Mae pob hawl wedi ei chadw, ac ni chaniateir atgynhyrchu unrhyw ran o'r cyhoeddiad hwn heb ganiatad ysgrifenedig ymlaen llaw.",
        61,
    ),
    "Swahili": (
        "Tafadhali hakikisha kwamba umejaza sehemu zote zinazohitajika kabla ya kuwasilisha fomu hii kwa ofisi yetu.",
        48,
    ),
    "Russian": ("Комитет согласился с тем, что отчёт должен быть опубликован до конца месяца.", 38),
    "Armenian": ("Ուղարկեք ճիշտ պատկեր։ Ուղարկված ֆայլը պատկեր չէ, կամ վնասված է։", 116),
    "Chinese": ("委员会同意在月底之前公布这份报告，并且不在其中点名引用任何人的话。", 35),
    "rare characters": ("𠀀𠀁𠀂龘靐齾㐀㐁", 28),
    "Khmer": ("សូមបញ្ចូលតម្លៃត្រឹមត្រូវ។", 75),
    "emoji": (
        "👩\u200d👩\u200d👧\u200d👦🇰🇭🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f🧑🏿\u200d🚀",
        66,
    ),
    "code": (
        "def add(x1, y2):\n    return {\"a\": x1 + y2, 'b': [i ** 2 for i in range(10) if i % 3 != 1]}\n",
        47,
    ),
    "JSON": ('{"id":12345,"ok":true,"tags":["a","b"],"pi":3.14159,"nested":{"k":null}}', 38),
    "base64": ("OLTmUuRNp/I3DZ4mDicTZVCko6bQf1wMMy+LEiQIP9IrkC+JEegYGPjJnV1dmDGVdQTZDpRd4uj1TueB", 67),
    "hexadecimal": ("cc75f636d85099095aa300165a67036f9b540d6b8f0be21124179c3dd9f73817ce6e118d264aad6c", 74),
    "digits": ("31415926535897932384626433832795028841971693993751", 51),
    "punctuation": ("!?#$%&()*+,-./:;<=>@[]^_`{|}~!!..??", 27),
    "capitals": ("QXZJ KVWQ ZXJQ BQKZ PLQX", 19),
    "random letters": (
        "bsdhuusbssmbhbrejnerdsjrvfdssugldrwcsbtgpvrnykosoljhzfwyhcsjqpkxojtcdqnfykepnbvcyrszkkwltpszoccipwvcbxwjusvojwmvlaolftdp",
        69,
    ),
    "random words": (
        "g exh mpcf mrie riwn vmh cf hv ap fijae rlts ewq uvxbo zrmmmm p mbgcgo dk bdase dltac tm ui tlp d oppj e",
        52,
    ),
    "single letters": ("a b c d e f g h i j k l m n o p q r s t u v w x y z", 26),
    "assignments": ("x=1;y=2;z=3;a=b;c=d;e=f;g=h", 27),
    "white space": ("a\n\n\n   b\t\t\tc  \r\n d", 14),
    "ligatures": ("ﷺ ﷻ ㍿ ㌖ ⑽ ﬃ", 39),
    "accents": ("ÀÉÎÕÜ àéîõü ñ ç ß ø", 20),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_no_tokenizer_makes_more_of_it(kind: str) -> None:
    text, most = COUNTED[kind]
    assert text_tokens(text.encode()) >= most


@pytest.mark.parametrize(("kind", "share"), [("English", 0.70), ("German", 0.78), ("code", 0.94)])
def test_it_is_less_than_the_bytes_for_what_people_write(kind: str, share: float) -> None:
    text = COUNTED[kind][0].encode()
    assert text_tokens(text) <= share * len(text)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 1),
        ("abc", 1 + 3),  # (2 × 3 + 3) / 3
        ("abcdef", 1 + 5),  # (2 × 6 + 3) / 3
        ("a" * 300, 1 + 201),  # (2 × 300 + 3) / 3
        ("a" * 300 + "1", 1 + 202),  # (2 × 301 + 2 + 3) / 3, rounded down
        ("1234", 1 + 4),  # never more than bytes
        ("ж", 1 + 2),
        ("\ufdfa", 1 + 3 + (33 - 3)),  # three bytes that stand for 33
    ],
)
def test_the_rule_as_arithmetic(text: str, tokens: int) -> None:
    assert text_tokens(text.encode()) == tokens


@given(st.text(), st.text())
def test_more_text_never_makes_less(text: str, more: str) -> None:
    assert text_tokens(text.encode()) <= text_tokens((text + more).encode())


@given(st.text())
def test_it_stays_between_two_thirds_of_the_bytes_and_what_they_may_stand_for(text: str) -> None:
    size = len(text.encode())
    assert 2 * size / 3 <= text_tokens(text.encode()) <= 1 + 11 * size  # U+FDFA is the worst: 33 bytes of 3


@given(st.binary())
def test_bytes_that_are_no_text_are_survived(data: bytes) -> None:
    assert text_tokens(data) >= 0


def _written_out(text: str) -> bytes:
    return unicodedata.normalize("NFKC", text).encode("utf-8", "surrogatepass")


GROWING = [
    character
    for character in map(chr, [*range(0xD800), *range(0xE000, 0x110000)])
    if len(_written_out(character)) > len(character.encode())
]


@pytest.mark.parametrize("start", range(0, len(GROWING), 100))
def test_every_character_counts_as_what_it_may_be_written_out_as(start: int) -> None:
    for character in GROWING[start : start + 100]:
        assert text_tokens(character.encode()) >= 1 + len(_written_out(character))


@given(st.text(st.sampled_from(GROWING) | st.characters(min_codepoint=0x80, exclude_categories=["Cs"])))
def test_text_of_other_scripts_counts_at_least_one_a_byte_even_if_it_is_written_out_first(text: str) -> None:
    assert text_tokens(text.encode()) >= max(len(text.encode()), len(_written_out(text)))


def test_long_text_is_the_sum_of_its_pieces() -> None:
    text = "".join(GROWING) * 200  # over the edges of the pieces that are looked at in one go
    gain = sum(len(_written_out(character)) - len(character.encode()) for character in GROWING)
    assert text_tokens(text.encode()) == 1 + len(text.encode()) + 200 * gain


def test_many_kinds_of_growing_characters_take_no_more_looks_at_the_text_than_one() -> None:
    """A look through the whole text for each kind of character held up the event loop for seconds."""
    every, one = "".join(GROWING) * 200, GROWING[0] * (200 * len(GROWING))
    assert _calls_into_c(every) == _calls_into_c(one)


def _calls_into_c(text: str) -> int:
    data, calls = text.encode(), 0
    text_tokens(data)  # what is worked out once is not counted

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "c_call"

    sys.setprofile(count)
    try:
        text_tokens(data)
    finally:
        sys.setprofile(None)
    return calls
