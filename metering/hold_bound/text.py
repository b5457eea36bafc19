"""How many tokens a text can make at the most, without asking the provider's tokenizer.

A tokenizer that falls back to bytes never makes more tokens than the text has bytes, so that is where we begin. English runs
at four to five bytes a token, so it is also far too much. What can be said of all tokenizers at once is this:

* *Small letters and spaces* make at most two tokens for three of them, and one for a single one. A pair of small letters
  that is a token is never left as two, and nearly all pairs are one. Measured with cl100k, o200k, the published tokenizers
  of Claude and DeepSeek, and Mistral's one of 32,000: letters drawn at random 0.52 to 0.59 tokens each; the texts of
  ninety languages, after all else is counted in full, 0.43 at the most. So a tokenizer that makes a third more tokens than
  these, as Claude's newer ones do, still stays below.
* *Digits, capitals, punctuation, control characters*: one each (there are tokenizers with one token a digit), and a third
  for the letters that may follow: a run of them that is no multiple of three makes that much more.
* *Other scripts*: one a byte. Rare characters do fall back to their bytes.
* *Compatibility characters* (a ligature such as U+FDFA, which is four words): some tokenizers write them out first (NFKC),
  and then they make more tokens than bytes, so they count as what they stand for.

It can be beaten on purpose: `bqbqbq` has no pair in any of those tokenizers, and makes one token a letter. That is nobody's
text, and costs half as much again on the side of the bill that is cheap; the rest of such a call is written off, visibly.
"""

import unicodedata
from collections import Counter

_PLAIN = b"abcdefghijklmnopqrstuvwxyz "
_PIECE = 65_536  # characters looked at in one go: another thread can run in between

# Where the characters stand that a tokenizer may write out longer than they are. Outside of these there is none.
_GROWING = (
    (0xA8, 0x386), (0x587, 0x679), (0x958, 0xB5E), (0xE33, 0xFBA), (0x1FC1, 0x2231), (0x247D, 0x2488), (0x2A0C, 0x2ADD),
    (0x309B, 0x33FF), (0xFA6C, 0xFEFD), (0x1D15E, 0x1D1C1), (0x1F12A, 0x1F249),
)  # fmt: skip


def text_tokens(text: bytes) -> int:
    """The most tokens that `text` (UTF-8, or JSON that holds it) can make."""
    size = len(text)
    others = len(text.translate(None, _PLAIN))
    # 2/3 for each plain byte, 4/3 for each other one, 1/3 for a run at the beginning; and never more than bytes. One more
    # for the space that some tokenizers put in front.
    tokens = 1 + min(size, (2 * size + 2 * others + 3) // 3)
    return tokens if text.isascii() else tokens + _growth(text.decode("utf-8", "replace"))


def _growth(text: str) -> int:
    """The bytes that characters gain which a tokenizer may write out: one pass, whatever the text is."""
    return sum(_growth_of(text[start : start + _PIECE]) for start in range(0, len(text), _PIECE))


def _growth_of(piece: str) -> int:
    if unicodedata.is_normalized("NFKC", piece):
        return 0
    counts = Counter(piece)
    return sum(_GAINS[character] * counts[character] for character in _GAINS.keys() & counts.keys())


def _gain(character: str) -> int:
    return len(unicodedata.normalize("NFKC", character).encode()) - len(character.encode())


_GAINS = {
    character: gain
    for first, end in _GROWING
    for character in map(chr, range(first, end))
    if (gain := _gain(character)) > 0
}
