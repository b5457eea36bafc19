"""The tokenizer of the built-in demo models: small, documented, and the same on every machine.

A text is cut, from left to right and without loss, into tokens of three kinds:

1. a word piece: up to 6 letters, digits or underscores, together with one space in front of it if there is one;
2. a mark: up to 4 other visible characters, together with one space in front of it if there is one;
3. white space: a run of it, where the rule above did not take it.

`"".join(tokens(text)) == text`, and every token count that a demo model reports is the length of such a list. Some
counts: `"Hello world"` 2 (`Hello`, ` world`), `"tokenizer"` 2 (`tokeni`, `zer`), `"a, b"` 3 (`a`, `,`, ` b`), `""` 0.
"""

import re

_TOKEN = re.compile(r" ?\w{1,6}| ?[^\w\s]{1,4}|\s+(?= [^\s])|\s+")


def tokens(text: str) -> list[str]:
    """The tokens of `text`, in order; joined they are `text` again."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """How many tokens `text` has; 0 for an empty text."""
    return len(_TOKEN.findall(text))
