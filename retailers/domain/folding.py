"""Text as a reader sees it: look-alike letters resolved, invisible marks gone, offsets kept."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

# Cyrillic, Greek and other letters that pass for Latin ones (a reader's eye, after Unicode TR 39)
ALIKE = dict(
    zip(
        "аеорсухкмтнвАЕОРСУХКМТНВіІјЈѕЅԁԛԝһԌΑΒΕΖΗΙΚΜΝΟΡΤΥΧαονρυιτκχεɑɡıℓоꞵƖǀ",
        "aeopcyxkmthbAEOPCYXKMTHBiIjJsSdqwhGABEZHIKMNOPTYXaovpuitkxeagilobIl",
        strict=False,
    )
)
# letters drawn small, turned over or in a box, which no plain form is known for
ALIKE |= dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢǝɐʇʌʍɥɯɹɔ", "abcdefghijklmnoprstuvwyzeatvwhmrc", strict=True))
ALIKE |= {chr(first + n): chr(97 + n) for first in (0x1F150, 0x1F170) for n in range(26)}
ALIKE |= dict(zip("օսոհցզѵԝᎪᏴᏟᎬᎢᏃᎡᎳᎻᎷᏢᏦᏞ", "ouuhgqvwABCETZRWHMPKL", strict=True))
STRUCK = {*range(0x0334, 0x0339), *range(0x20D0, 0x20F0)}  # strokes laid over a letter
SCRIPTS = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC")
INVISIBLE = {*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF, 0x00AD, 0x034F, 0x180E}
KEPT = set("™®©℠°№½¼¾²³")  # compatible with plain letters, and meant as they are
LEET = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "@": "a", "$": "s", "!": "i"}
DOTTED = re.compile(r"(?<![\w.])(?:[A-Za-z][.\-_*·•]){2,}[A-Za-z](?![\w])[.]?|(?<!\w)(?:[A-Za-z] ){3,}[A-Za-z](?!\w)")
LETTERS = {"u.s.a", "u.s", "u.k", "e.u", "a.m", "p.m", "d.i.y", "b.b.q", "r.s.v.p", "u.s.d.a", "f.d.a", "i.e", "e.g"}
LEET_WORD = re.compile(r"(?<![\w$€£.,])(?=[\w@$!]*[A-Za-z])[A-Za-z0-9@$!]{3,}(?!\w)")
UNIT = re.compile(
    r"\d+(?:\.\d+)?(?:oz|ml|cl|l|lb|lbs|g|kg|mg|ct|pk|pc|in|ft|cm|mm|m|w|v|k|x|d|st|nd|rd|th|s|hr|hrs|mah|gb|tb|mp|fps|hz|am|pm|day|pack|count|inch|ply|tier|way|piece|sheet|load|roll|person|min|mins|year|yr|mo|qt|gal|pt|%|p)s?",
    re.IGNORECASE,
)
MODEL = re.compile(r"[A-Z]{1,4}\d+[A-Z]?|\d[A-Z]|(?i:mp\d|md\d|4k|8k|h2o|co2|b2b|b12|d3|k2|3d|2d|5g|omega3)")


@dataclass(frozen=True)
class Folded:
    """A text without disguise.

    Attributes:
        text: what the eye reads.
        place: for each character of ``text``, where it stands in the original; one more for the end.
        disguises: (start, end) in the original of what was disguised.
    """

    text: str
    place: tuple[int, ...]
    disguises: tuple[tuple[int, int], ...] = field(default=())

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A span of ``text`` in the original."""
        return self.place[start], (self.place[end - 1] + 1 if end > start else self.place[start])


def visible_length(text: str) -> int:
    """Characters a reader sees: invisible marks and combining marks do not count."""
    composed = unicodedata.normalize("NFC", text)
    return sum(ord(c) not in INVISIBLE and not unicodedata.combining(c) for c in composed)


def fold(text: str) -> Folded:
    """Resolve disguises; a plain text comes back as it is."""
    letters: list[str] = []
    place: list[int] = []
    disguised: list[tuple[int, int]] = []
    for at, char in enumerate(text):
        if ord(char) in INVISIBLE:
            if _inside_word(text, at) or ord(char) in (0x202D, 0x202E):
                disguised.append((at, at + 1))
            continue
        if ord(char) in STRUCK or (
            unicodedata.combining(char) and at > 1 and all(map(unicodedata.combining, text[at - 2 : at]))
        ):
            disguised.append((max(at - 1, 0), at + 1))
            continue
        plain = char
        if char not in KEPT:
            compatible = unicodedata.normalize("NFKC", char)
            if compatible != char and compatible.isascii() and compatible.strip():
                plain = compatible
                if char.isalnum():
                    disguised.append((at, at + 1))
            if (char in ALIKE or _is_foreign(char)) and _in_mixed_word(text, at):
                plain = ALIKE.get(char, char)
                disguised.append((at, at + 1))
        if char == "\u2019" or char == "\u2018":
            plain = "'"
        for letter in plain:
            letters.append(letter)
            place.append(at)
    folded = Folded("".join(letters), (*place, len(text)), tuple(disguised))
    return _without_leet(_without_dots(folded))


def _inside_word(text: str, at: int) -> bool:
    before = text[at - 1] if at else " "
    after = next((c for c in text[at + 1 :] if ord(c) not in INVISIBLE), " ")
    # a joiner between emoji is how emoji are spelt
    return before.isalnum() and after.isalnum()


def _is_foreign(char: str) -> bool:
    return ord(char) > 0x36F and char.isalpha() and unicodedata.name(char, "").startswith(SCRIPTS)


def _in_mixed_word(text: str, at: int) -> bool:
    start, end = at, at
    while start and (text[start - 1].isalpha() or text[start - 1] in ALIKE):
        start -= 1
    while end < len(text) and (text[end].isalpha() or text[end] in ALIKE):
        end += 1
    word = text[start:end]
    if len(word) < 3 and any(c.isascii() for c in word):  # a unit such as a Greek mu before an m
        return False
    return any(c.isascii() for c in word) or all(c in ALIKE for c in word)


def _replaced(folded: Folded, changes: list[tuple[int, int, str, bool]]) -> Folded:
    if not changes:
        return folded
    letters: list[str] = []
    place: list[int] = []
    disguised = list(folded.disguises)
    at = 0
    for start, end, new, told in changes:
        letters.extend(folded.text[at:start])
        place.extend(folded.place[at:start])
        old = [i for i in range(start, end) if folded.text[i].isalnum() or folded.text[i] in LEET] if told else []
        for number, letter in enumerate(new):
            letters.append(letter)
            place.append(folded.place[old[number] if number < len(old) else end - 1])
        disguised.append(folded.span(start, end))
        at = end
    letters.extend(folded.text[at:])
    place.extend(folded.place[at:])
    return Folded("".join(letters), tuple(place), tuple(disguised))


def _without_dots(folded: Folded) -> Folded:
    """ "B.E.S.T" and "B E S T" as "BEST"; real abbreviations stay."""
    changes = []
    for match in DOTTED.finditer(folded.text):
        if match[0].lower().rstrip(".") in LETTERS:
            continue
        word = re.sub(r"[^A-Za-z]", "", match[0])
        changes.append((match.start(), match.end(), word, True))
    return _replaced(folded, changes)


def _without_leet(folded: Folded) -> Folded:
    """ "B3st" as "Best": digits between letters, and where one such word stands, at a word's start too."""
    sure, maybe = [], []
    for match in LEET_WORD.finditer(folded.text):
        word = match[0]
        if (
            "@" in word[1:]
            and folded.text[match.end() : match.end() + 1] == "."
            and folded.text[match.end() + 1 : match.end() + 2].isalpha()
        ):
            continue  # an address
        core = word.rstrip("!")
        digits = [c for c in core if not c.isalpha()]
        if not digits or any(c not in LEET for c in digits) or UNIT.fullmatch(core) or MODEL.fullmatch(core):
            continue
        change = (match.start(), match.start() + len(core), "".join(LEET.get(c, c) for c in core), True)
        inside = re.search(r"[A-Za-z][0134578@$!][A-Za-z]", core)
        if inside and len(digits) <= len(core) / 2:
            sure.append(change)
        elif core[0] in "0134578@$" and core[1:].isalpha():
            maybe.append(change)
    shop = [c for c in maybe if folded.text[c[0]] == "$"]  # "$ave": never a count; "@" may be a handle
    return _replaced(folded, sorted({*sure, *(maybe if sure else shop)}))
