"""Personal data in free text: found, and masked by tags that are the same for the same value of one brand.

Retail text is full of numbers that are nobody's: GTINs, campaign and order ids, prices, counts. So a
number is personal only with a checksum, a written form that nothing else has, or a word beside it; a
name only with a title, a given name or a word that introduces people. Brands named after people stay.
What a plug-in (a language model for names, say) finds on top is added, never taken away.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import itertools
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

INVISIBLE = {*range(0x200B, 0x2010), *range(0x2060, 0x2065), 0xFEFF, 0x00AD}
DASHES, SPACES = "\u2010\u2011\u2012\u2013\u2212", "\u00a0\u202f\u2009"
ODD = re.compile(
    f"[{''.join(map(chr, sorted(INVISIBLE)))}\uff00-\uffef{DASHES}{SPACES}]|%40|%2[bB](?=\\d)|%20(?=[\\w(+])"
)
IN_ADDRESSES = {"%40": "@", "%20": " ", "%2B": "+", "%2b": "+"}  # as addresses of the web spell them
DIGIT_WORDS = {
    w: str(n) for n, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
} | {"oh": "0"}
GIVEN = frozenset(["aaron", "abdul", "abigail", "adam", "adrian", "agnes", "ahmed", "aisha", "alan", "albert", "alejandro", "alessandra", "alex", "alexander", "alexandra", "alexis", "ali", "alice", "alicia", "alison", "amanda", "amber", "amelia", "amina", "amir", "amit", "amy", "ana", "andrea", "andreas", "andrew", "andy", "angela", "anita", "anja", "anna", "anne", "annie", "antonio", "antonia", "anthony", "ann", "arjun", "arthur", "ashley", "astrid", "barbara", "beatrice", "ben", "benjamin", "bernard", "beth", "betty", "bianca", "bill", "billy", "bjorn", "bob", "bobby", "brandon", "brenda", "brian", "bridget", "bruno", "bryan", "caleb", "camila", "carl", "carla", "carlos", "carmen", "carol", "caroline", "catherine", "cathy", "cecilia", "chantal", "charles", "chen", "chloe", "chris", "christian", "christina", "christine", "christopher", "claire", "clara", "claudia", "colin", "connor", "craig", "cristina", "cynthia", "dan", "dana", "daniel", "daniela", "danielle", "david", "dawn", "deborah", "denise", "dennis", "derek", "diana", "diane", "diego", "dmitri", "dolores", "donald", "donna", "dorothy", "douglas", "dylan", "edith", "eduardo", "edward", "eileen", "elaine", "elena", "eleanor", "elias", "elizabeth", "ella", "ellen", "elsa", "emil", "emily", "emma", "enrique", "eric", "erica", "erik", "erin", "esther", "ethan", "eugene", "eva", "evelyn", "fatima", "felix", "fernando", "fiona", "florence", "frances", "francesca", "francis", "francisco", "frank", "franz", "fred", "freya", "gabriel", "gabriela", "gary", "gavin", "george", "georgia", "gerald", "gina", "giovanni", "gloria", "gonzalo", "grace", "graham", "greg", "gregory", "greta", "guillermo", "gunther", "gustav", "hamza", "hannah", "hans", "harold", "harriet", "harry", "hassan", "heather", "heidi", "helen", "helena", "henry", "hiroshi", "holly", "howard", "hugo", "hussein", "ian", "ibrahim", "ida", "igor", "ines", "ingrid", "irene", "iris", "isaac", "isabel", "isabella", "ivan", "jack", "jackie", "jacob", "jacqueline", "jake", "james", "jamie", "jan", "jane", "janet", "janice", "jason", "javier", "jean", "jeff", "jeffrey", "jenna", "jennifer", "jenny", "jeremy", "jessica", "jesus", "jill", "jim", "jimmy", "jin", "joan", "joanna", "joao", "joe", "johan", "johanna", "john", "johnny", "jonathan", "jorge", "jose", "joseph", "josh", "joshua", "joyce", "juan", "juanita", "judith", "judy", "julia", "julian", "julie", "justin", "karen", "karin", "karl", "kate", "katherine", "kathleen", "kathryn", "katie", "kayla", "keith", "kelly", "ken", "kenneth", "kevin", "khalid", "kim", "kimberly", "kofi", "kristen", "kristin", "kumar", "kyle", "lara", "larissa", "larry", "laura", "lauren", "laurence", "leah", "lena", "leo", "leon", "leonard", "leroy", "leslie", "lewis", "li", "liam", "lillian", "linda", "lindsay", "lisa", "liu", "logan", "lorenzo", "louis", "louise", "luca", "lucas", "lucia", "lucy", "luis", "luise", "luke", "lydia", "madison", "magdalena", "malcolm", "manuel", "marc", "marcel", "marco", "marcus", "margaret", "maria", "mariana", "marie", "marina", "mario", "marion", "marjorie", "mark", "markus", "marta", "martha", "martin", "mary", "mateo", "matthew", "matthias", "maureen", "maurice", "max", "maximilian", "maya", "megan", "mehmet", "mei", "melanie", "melissa", "meredith", "michael", "michaela", "michelle", "miguel", "mike", "mila", "ming", "miriam", "mohamed", "mohammed", "molly", "monica", "monika", "morgan", "muhammad", "nadia", "nancy", "naomi", "natalia", "natalie", "nathan", "neil", "nguyen", "nguyễn", "nia", "nicholas", "nicola", "nicole", "nigel", "nina", "noah", "nora", "norma", "oleg", "oliver", "olivia", "omar", "oscar", "otto", "pablo", "pamela", "patricia", "patrick", "paul", "paula", "pauline", "pedro", "peggy", "peter", "petra", "philip", "philippe", "phyllis", "pierre", "priya", "rachel", "rafael", "rahul", "raj", "rajesh", "ralph", "ramon", "randy", "raul", "ravi", "raymond", "rebecca", "regina", "renate", "ricardo", "richard", "rita", "robert", "roberta", "roberto", "robin", "rodrigo", "roger", "roland", "ronald", "rosa", "rosemary", "roy", "rudolf", "russell", "ruth", "ryan", "sabine", "sally", "sam", "samantha", "samir", "samuel", "sandra", "sanjay", "sara", "sarah", "scott", "sean", "sebastian", "sergei", "sergio", "shannon", "sharon", "shaun", "sheila", "shirley", "siddharth", "silvia", "simon", "simone", "sofia", "sonia", "sophia", "sophie", "stacy", "stanley", "stefan", "stella", "stephanie", "stephen", "steve", "steven", "stuart", "sue", "sunita", "susan", "suzanne", "svetlana", "sven", "sylvia", "tamara", "tanya", "tara", "tatiana", "ted", "teresa", "terry", "thea", "theodore", "theresa", "thomas", "tiffany", "tim", "timothy", "tina", "tobias", "todd", "tom", "tomas", "tony", "tracy", "travis", "trevor", "tyler", "ulrich", "ulrike", "ursula", "valentina", "valeria", "valerie", "vanessa", "vera", "veronica", "vicki", "victor", "victoria", "vijay", "viktor", "vincent", "virginia", "vivian", "vladimir", "walter", "wanda", "wayne", "wei", "wendy", "werner", "wilhelm", "william", "winston", "wolfgang", "xavier", "yan", "yasmin", "yolanda", "yosef", "yuki", "yusuf", "yvonne", "zachary", "zainab", "zara", "zhang", "zoe"])  # fmt: skip
BRANDS = frozenset("""
paul mitchell|jack daniel|ralph lauren|calvin klein|tommy hilfiger|michael kors|estee lauder|jimmy choo|jo malone|marc jacobs|betty crocker|sara lee|mary kay|jim beam|johnnie walker|johnny walker|duncan hines|orville redenbacher|stella artois|trader joe|bob evans|jimmy dean|marie callender|oscar mayer|captain morgan|kenneth cole|donna karan|vera wang|dr martens|dr. martens|dr pepper|dr. pepper|dr bronner|dr. bronner|mrs meyer|mrs. meyer|mrs butterworth|mrs. butterworth|mrs fields|mrs. fields|mr clean|mr. clean|mr coffee|mr. coffee|mr muscle|mr. muscle|mr kipling|mr. kipling|aunt jemima|uncle ben|little debbie|ben jerry|peter thomas roth|laura mercier|bobbi brown|charlotte tilbury|tom ford|tom collins|helena rubinstein|elizabeth arden|hugo boss|karl lagerfeld|victoria beckham|kate spade|martha stewart|rachael ray|jamie oliver|gordon ramsay|paula deen|bob mill|amy kitchen|annie homegrown|newman own|smith wesson|black decker|johnson johnson|procter gamble|dr scholl|dr. scholl|dr oetker|dr. oetker|dr teal|dr. teal|mary jane|jack link|harry david|laura ashley|ann taylor|tony chachere|frank redhot|simply orange|stanley cup|victoria secret|justin boots|wendy burger
""".strip().split("|"))  # fmt: skip
STREET = r"(?:street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|court|ct|place|pl|square|sq|terrace|ter|way|parkway|pkwy|circle|cir|highway|hwy|close|crescent|cres|grove|gardens|row|mews|hill|park|walk|green|trail|trl|loop|plaza|alley|route|pike|bypass|quay|rise|vale|view)"  # fmt: skip
CITY = r"[A-ZÀ-Ž][a-zà-ž'’.-]{1,40}(?: (?:[A-ZÀ-Ž][a-zà-ž'’.-]{1,40}|am|an|der|upon|on|de|la|le|sur)){0,5}"
UK_CODE = r"[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}"
STATES = "AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|DC|PR"  # fmt: skip
MONTH = r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
DATE = rf"(?:\d{{1,2}}(?:st|nd|rd|th)?[ .-]{MONTH}[ .,-]+\d{{2,4}}|{MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}|\d{{1,2}}[./-]\d{{1,2}}[./-]\d{{2,4}}|\d{{4}}-\d{{2}}-\d{{2}})"
NAME = r"[A-ZÀ-Ž][\w'’À-ž]{0,40}(?:-[A-ZÀ-Ž][\w'’À-ž]{1,40}){0,3}"
PEOPLE = r"(?:customer|shopper|buyer|reviewer|owner|client|user|member|patient|recipient|payee|payer|cardholder|contact|attn|attention|dear|thx|thanks|thank you|regards|sincerely|cheers|signed|ship(?:ped)?(?: samples)? to|deliver(?:ed)? to|sold to|bill(?:ed)? to|mail(?:ed)? to|sent to|spoke (?:to|with)|talk(?:ed)? to|call(?:ed)? by|asked by|per|from|hi|hello|name(?: is)?|i am|i'm|my name is|mr|mrs|ms|miss|mx|dr|prof|sir|herr|frau|señor|señora|monsieur|madame|winner|applicant|employee|colleague|manager|author|lieferung|an|cc|by)"  # fmt: skip
NOT_NAMES = frozenset(["he", "she", "it", "they", "we", "i", "you", "who", "what", "there", "here", "nobody", "everyone", "someone", "people", "data", "agency", "company", "group", "inc", "llc", "ltd", "department", "nation", "road", "street", "the", "a", "an", "our", "your", "their", "his", "her", "this", "that", "these", "those", "brand", "team", "store", "stores", "amazon", "walmart", "target", "kroger", "instacart", "criteo", "google", "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "north", "south", "east", "west", "new", "best", "free", "order", "orders", "item", "items", "sku", "gtin", "campaign", "feed", "page", "mobile", "phone", "email", "mail", "call", "the", "shop", "customer", "service", "support", "all", "any", "each", "every", "price", "sale"])  # fmt: skip

# Given names that are as often a food, a plant, a month, a place, a brand or a plain word: alone they name nobody.
UNSURE = frozenset(["alexa", "alexis", "amber", "amy", "angel", "angela", "annie", "april", "art", "ash", "ashley", "august", "austin", "basil", "ben", "betty", "bill", "bianca", "bob", "bobby", "bruno", "buddy", "calvin", "carmen", "carter", "charlotte", "chase", "chelsea", "chen", "cherry", "chuck", "claire", "clementine", "cliff", "colby", "dale", "dallas", "dan", "dawn", "dean", "diesel", "dijon", "dill", "dolores", "dove", "drew", "earl", "elsa", "emmental", "eva", "faith", "fern", "fiona", "florence", "ford", "frank", "gene", "georgia", "ginger", "gloria", "grace", "grant", "guy", "harry", "harvey", "hazel", "heath", "heather", "holly", "hope", "hugo", "hunter", "ida", "iris", "israel", "ivory", "ivy", "jack", "jade", "jan", "jasmine", "jean", "jesus", "jin", "jordan", "joy", "june", "kelly", "ken", "kim", "kit", "kitty", "kumar", "lance", "lara", "li", "lily", "liu", "london", "lucky", "madeleine", "madison", "mango", "marc", "margarita", "maria", "marina", "marina", "mark", "mary", "mason", "max", "may", "maya", "melba", "mercedes", "mila", "miles", "ming", "misty", "morgan", "nick", "nina", "nora", "olive", "oliver", "oscar", "otto", "paris", "parker", "pat", "paul", "pearl", "penny", "pepper", "philly", "pierre", "porter", "ralph", "ray", "reed", "regina", "rich", "rita", "rob", "robin", "rose", "rosemary", "roy", "ruby", "sage", "sandy", "sara", "savannah", "saffron", "shell", "sky", "stella", "sterling", "sue", "summer", "sunny", "sydney", "tara", "terry", "thea", "tiffany", "tim", "tina", "tom", "tommy", "tony", "victor", "victoria", "viola", "violet", "virginia", "wade", "wanda", "wei", "wendy", "will", "woody", "yan", "zara", "zoe"])  # fmt: skip
KIN = "kid|child|son|daughter|wife|husband|partner|brother|sister|friend|mother|father|mom|mum|dad|boss|colleague|neighbou?r|cousin|uncle|aunt|niece|nephew|grand(?:mother|father|son|daughter)|roommate|girlfriend|boyfriend|fiancée?|doctor|lawyer"
LETTERED = frozenset(["vitamin", "type", "class", "grade", "series", "size", "plan", "model", "group", "tier", "test", "option", "variant", "version", "segment", "zone", "phase", "part", "usb", "cell", "arm", "cohort", "formula", "appendix", "section", "hepatitis", "team", "unit", "level", "generation", "gen", "schedule", "exhibit", "brand", "store", "line", "product"])  # fmt: skip
NAMED_THINGS = "campaign|brand|product|ad ?group|audience|segment|file|store|item|keyword|column|retailer|company|feed|list|creative|placement|report"
GOES_ON = r"(?=$|[.,;:!?)\n\"”]|['’]s (?!\w+ (?:\w+ )?(?:soap|sauce|rice|boots))(?:phone|email|address|order|account|card|name|number)|\s(?:and|or|is|was|are|were|has|had|have|said|says|asked|told|lives|lived|to|for|in|on|at|with|from|about|as|who|whom|will|would|can|could|did|does|he|she|they|i|you|we|so|when|if|but|because|called|wrote|works|worked|went|came|really|just|again|today|yesterday|please)(?!\w))"


@dataclass(frozen=True)
class Entity:
    """A span of personal data in the original text, in code points."""

    type: str
    start: int
    end: int
    score: float  # 1: a checksum or an unmistakable form; under .7: by a word beside it

    def row(self) -> dict[str, Any]:
        return {"type": self.type, "start": self.start, "end": self.end, "score": self.score}


@dataclass(frozen=True)
class Masked:
    text: str
    entities: tuple[Entity, ...]


Plugin = Callable[[str], Iterable[Entity]]
plugins: list[Plugin] = []  # further detectors, such as a language model's


@dataclass(frozen=True)
class _Plain:
    """The text without invisible marks and full-width forms, and where each character stood."""

    text: str
    place: Sequence[int]

    def entity(self, kind: str, start: int, end: int, score: float) -> Entity:
        return Entity(kind, self.place[start], self.place[end - 1] + 1, score)


def _plain(text: str) -> _Plain:
    if not ODD.search(text):
        return _Plain(text, range(len(text) + 1))
    letters, place = [], []
    skip = 0
    for at, char in enumerate(text):
        if at < skip or ord(char) in INVISIBLE:
            continue
        if char == "%" and text[at : at + 3] in IN_ADDRESSES and ODD.match(text, at):
            letters.append(IN_ADDRESSES[text[at : at + 3]])
            place.append(at)
            skip = at + 3
            continue
        wide = unicodedata.normalize("NFKC", char) if "\uff00" <= char <= "\uffef" else char
        if char in DASHES:
            wide = "-"
        if char in SPACES:
            wide = " "
        for letter in wide:
            letters.append(letter)
            place.append(at)
    return _Plain("".join(letters), (*place, len(text)))


def detect(text: str, known_ids: Collection[str] = (), *, prose: bool = True) -> list[Entity]:
    """Personal data in a text, in order, no two overlapping.

    Args:
        known_ids: ids of the brand's own things (campaigns, SKUs, orders): never personal.
        prose: look for people, postal addresses and web addresses too; without it for what has a checksum,
            a form or a word beside it, as in logs and in columns of names, where words are those of things.
    """
    plain = _plain(text)
    found: list[Entity] = []
    structured = (_emails, _cards, _ibans, _national, _addresses_ip, _hashed, _devices, _phones, _births, _places, _loyalty)  # fmt: skip
    for finder in (*structured, _urls, _streets, _people) if prose else structured:
        for kind, start, end, score in finder(plain.text):
            if plain.text[start:end] not in known_ids:
                found.append(plain.entity(kind, start, end, score))
    if prose:
        found.extend(plain.entity(*hit) for hit in _letterheads(plain.text, found, plain.place))
        for plugin in plugins:
            found.extend(plugin(text))
    return _disjoint(found)


def _disjoint(found: Iterable[Entity]) -> list[Entity]:
    """The surest first, then the longest; what overlaps one that is kept goes."""
    starts: list[int] = []
    kept: list[Entity] = []  # in order of their starts
    for one in sorted(dict.fromkeys(found), key=lambda e: (-e.score, e.start - e.end, e.start)):
        place = bisect_left(starts, one.end)  # those from here on start behind it
        if place and kept[place - 1].end > one.start:
            continue
        starts.insert(place, one.start)
        kept.insert(place, one)
    return kept


TAG = r"\[([A-Z][A-Z_]{1,30})_[0-9a-f]{4}\]"


def mask(text: str, key: str, known_ids: Collection[str] = (), *, prose: bool = True) -> Masked:
    """The text with tags such as ``[EMAIL_7f3a]`` in place of personal data.

    Args:
        key: of the brand; the same value under the same key has the same tag, under another one another.
        known_ids: as ``detect``.
        prose: as ``detect``.
    """
    entities = detect(text, known_ids, prose=prose)
    parts, at = [], 0
    for one in entities:
        value = re.sub(r"[\W_]+", "", _plain(text[one.start : one.end]).text).casefold()
        tag = hmac.new(key.encode(), f"{one.type}\n{value}".encode(), hashlib.sha256).hexdigest()[:4]
        short = one.type.removesuffix("_ADDRESS").removesuffix("_NUMBER").removesuffix("_CODE")
        parts += [text[at : one.start], f"[{short}_{tag}]"]
        at = one.end
    return Masked("".join([*parts, text[at:]]), tuple(entities))


Hit = tuple[str, int, int, float]


WINDOW, STEP = 4096, 3584  # a match that starts within a step has at least the rest of the window
SHOWN = 48  # characters beside a match that tell what it is


def _all(pattern: str, text: str, need: str = "", words: Collection[str] = ()) -> Iterator[re.Match[str]]:
    """All matches, window by window: what a hostile text costs grows with its length and no faster.

    Args:
        need: a cheap expression without which there is no match; windows without it are passed over.
        words: in small letters; windows without any of them are passed over.
    """
    found = _compiled(pattern, 0)
    needed = _compiled(need, 0) if need else None
    if len(text) <= WINDOW:
        if (needed is None or needed.search(text)) and _holds(text, words):
            yield from found.finditer(text)
        return
    done = 0
    for start in range(0, len(text), STEP):
        last = start + WINDOW >= len(text)
        if needed is not None and not needed.search(text, start, start + WINDOW):
            continue
        if words and not _holds(text[start : start + WINDOW], words):
            continue
        for match in found.finditer(text, max(start, done), start + WINDOW):
            if match.start() >= start + STEP and not last:
                break
            done = match.end()
            yield match
        if last:
            return


def _holds(text: str, words: Collection[str]) -> bool:
    if not words:
        return True
    small = text.casefold()
    return any(word in small for word in words)


def _before(text: str, start: int) -> str:
    return text[max(0, start - SHOWN) : start]


def _after(text: str, end: int) -> str:
    return text[end : end + SHOWN]


@lru_cache(maxsize=256)
def _compiled(pattern: str, flags: int) -> re.Pattern[str]:
    return re.compile(pattern, flags)


@lru_cache(maxsize=64)
def _whole(words: str) -> re.Pattern[str]:
    letter = "" if words.startswith(r"\w") else r"(?=[^\W\d])"  # tells at once that a number is none of the words
    return re.compile(rf"(?i)(?<!\w){letter}(?:{words})(?!\w)")


def _near(text: str, start: int, words: str, reach: int = 30) -> bool:
    return bool(_whole(words).search(text, max(0, start - reach), start))


def _keyed(text: str, start: int, keys: str) -> bool:
    """Whether a key such as ``phone=`` or ``"phone": `` stands before the value."""
    before = _before(text, start)
    return before.rstrip("\"' ").endswith(("=", ":")) and bool(re.search(rf"(?i)(?:{keys})[\"']?[=:][\"' ]*$", before))


def _emails(text: str) -> Iterator[Hit]:
    for m in _all(r"(?<![\w.+-])[\w.+'-]{1,80}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}(?<![.-])", text, need="@"):
        yield "EMAIL_ADDRESS", m.start(), m.end(), 1.0
    spelled = r"(?i)(?<![\w-])[\w-]{1,64}(?: ?(?:dot|\(dot\)|\[dot\]|\.) ?[\w-]{1,64}){0,4} ?(?: at |\(at\)|\[at\]) ?[\w-]{1,64}(?: ?(?: dot |\(dot\)|\[dot\]|\.) ?(?:[\w-]{1,64})){1,4}"
    for m in _all(spelled, text, words=(" at ", "(at)", "[at]")):
        if re.search(r"(?i)(?: dot |\(dot\)|\[dot\]|\(at\)|\[at\]|\.(?:com|net|org|de|uk|example)\b)", m[0]):
            yield "EMAIL_ADDRESS", m.start(), m.end(), 0.9


def _urls(text: str) -> Iterator[Hit]:
    for m in _all(r"(?i)(?<![\w@])(?:https?://|www\.)[^\s<>\"']+[^\s<>\"'.,;:!?)]", text, words=("://", "www")):
        yield "URL", m.start(), m.end(), 0.6


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _cards(text: str) -> Iterator[Hit]:
    for m in _all(r"(?<![\w.-])\d{4}(?:[ .\n-]?\d){8,15}(?![\w-])", text):
        digits = re.sub(r"\D", "", m[0])
        shaped = re.match(r"(?:4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}|35\d{14}|(?:2131|1800)\d{11}|3(?:0[0-5]|[68]\d)\d{11}|(?:5[06-9]|6\d)\d{10,17})$", digits)  # fmt: skip
        if not shaped or not _luhn(digits):
            continue
        grouped = bool(
            re.fullmatch(r"\d{4}(?:[ .\n-]\d{4}){2,3}(?:[ .\n-]\d{1,4})?|\d{4}[ .\n-]\d{6}[ .\n-]\d{4,5}", m[0])
        )
        said = _near(text, m.start(), r"card|cc|visa|amex|mastercard|master ?card|credit|debit|discover|maestro|jcb|diners|payment|paid|charge[ds]?|pan|number", 40)  # fmt: skip
        thing = _near(text, m.start(), r"gtin|ean|upc|order|campaign\w*|ad ?group\w*|keyword\w*|line item|creative\w*|sku|tracking|item|id|ids|asin|lot|parcel", 24)  # fmt: skip
        if not thing and (
            grouped or said or (len(digits) in (15, 16) and not _near(text, m.start(), r"\w*_?id=?|ts", 12))
        ):
            yield "CREDIT_CARD", m.start(), m.end(), 1.0


LETTER_NUMBERS = {ord(letter): str(int(letter, 36)) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def _mod97(code: str) -> bool:
    return int((code[4:] + code[:4]).translate(LETTER_NUMBERS)) % 97 == 1


def _ibans(text: str) -> Iterator[Hit]:
    from stdnum import iban

    for m in _all(
        r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
        text,
        need=r"[A-Z]{2}\d{2}",
    ):
        words = m[0]
        while words:
            if _mod97(words.replace(" ", "")) and iban.is_valid(words.replace(" ", ""), check_country=False):
                yield "IBAN_CODE", m.start(), m.start() + len(words), 1.0
                break
            words = words.rpartition(" ")[0]


def _national(text: str) -> Iterator[Hit]:
    for m in _all(
        r"(?<![\w-])(?!000|666|9\d\d)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])", text, need=r"\d{3}[- ]\d\d[- ]"
    ):
        said = _near(text, m.start(), r"ssn|social(?: security)?(?: number| no)?|ss#|tax id|tin", 40)
        thing = _near(text, m.start(), r"dpci|ndc|sku|part|item|upc|lot|planogram|order|po|model|style", 20)
        if said or (m[1] == "-" and not thing):
            yield "US_SSN", m.start(), m.end(), 1.0 if said else 0.8
    for m in _all(
        r"(?<!\w)(?!BG|GB|NK|KN|TN|NT|ZZ)[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)", text, need=r"[A-Z]{2} ?\d\d"
    ):
        if m[0][1] != "O":
            yield "UK_NINO", m.start(), m.end(), 0.95
    for m in _all(
        r"(?i)(?:driver'?s? licen[cs]e|dl)(?: (?:number|no\.?|#))?(?: is|:)? ?#? ?([A-Z]?\d[\d-]{5,12})",
        text,
        words=("licen", "dl"),
    ):
        yield "US_DRIVER_LICENSE", m.start(1), m.end(1), 0.8
    for m in _all(
        r"(?i)passport(?: (?:number|no\.?|#))?(?: is|:)? ?#? ?([A-Z]{0,2}\d{6,9})", text, words=("passport",)
    ):
        yield "PASSPORT", m.start(1), m.end(1), 0.8


def _addresses_ip(text: str) -> Iterator[Hit]:
    for m in _all(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)", text, need=r"\d\.\d"):
        numbers = m[0].split(".")
        if any(int(n) > 255 or (n[0] == "0" and n != "0") for n in numbers) or not m[0].isascii():
            continue
        if not _near(text, m.start(), r"version|v|release|reach", 12):
            yield "IP_ADDRESS", m.start(), m.end(), 0.95
    for m in _all(r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])", text, need=r"[0-9a-fA-F]:|::"):
        if m[0].count(":") >= 2 and len(m[0]) > 5 and re.search(r"[0-9a-fA-F]", m[0]) and _is_ip(m[0]):
            yield "IP_ADDRESS", m.start(), m.end(), 0.95


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _hashed(text: str) -> Iterator[Hit]:
    """Hashed addresses are personal; digests of files and commits are not."""
    for m in _all(
        r"(?<![\w-])[0-9a-fA-F]{32}(?:[0-9a-fA-F]{8})?(?:[0-9a-fA-F]{24})?(?![\w-])", text, need=r"[0-9a-fA-F]{32}"
    ):
        said = r"e-?mails?|hashed|hem|hash|em|ph|phone|user_data|sha256_email|external_id|customer\w*|shopper\w*|audience|user|uid2?|maid|match(?:ed)?"  # fmt: skip
        thing = r"adapter|git|commit|file|weights|model|build|trace|digest|checksum|image|etag|deployed|row_key|version"
        if _near(text, m.start(), said, 28) and not _near(text, m.start(), thing, 28):
            yield "HASHED_ID", m.start(), m.end(), 0.9


def _devices(text: str) -> Iterator[Hit]:
    said = r"idfa|idfv|gaid|aaid|adid|maid|device(?:_| )?(?:id|identifier)?|advertising id|ad id|android id|roku id|rida|tifa|afai|lgudid|idfa=|ifa|tv id|mac(?: address)?"  # fmt: skip
    uuid = r"(?<![\w-])[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}(?![\w-])"
    for m in _all(uuid, text, need=r"[0-9a-fA-F]{8}-"):
        if _near(text, m.start(), said, 24) or _keyed(text, m.start(), r"idfa|gaid|aaid|ifa|device\w*"):
            yield "DEVICE_ID", m.start(), m.end(), 0.95
    for m in _all(
        r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])",
        text,
        need=r"[0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-]",
    ):
        yield "DEVICE_ID", m.start(), m.end(), 0.9
    for m in _all(r"(?i)imei[: =#]*(\d{15})(?!\d)", text, words=("imei",)):
        yield "DEVICE_ID", m.start(1), m.end(1), 0.95


PHONE_WORDS = r"registered(?: (?:number|on|at))?|(?:my|his|her|their|your|our|new|old|home|office|cell) (?:number|no\.?)(?: is)?|desk|direct(?: line)?|call(?:ed|ing)?|phone|ph|tel(?:ephone)?|telefon|mobile|mob|cell|ring|text|sms|whatsapp|fax|dial|reach(?: (?:me|him|her|us|them))?(?: at| on)?|contact|number is|hotline|landline|back on|handy"  # fmt: skip
THINGS = r"sku|gtin(?:-14)?|upc|ean|part|order|campaign\w*|impressions?|clicks?|item|line item|id|ids|cid|tracking|parcel|po|lot|model|style|dpci|ndc|isbn|planogram|ts|timestamp|store|stores|ref|invoice|ticket|batch|asin|qty|quantity|price|utm_\w+|zip|week|keyword\w*|creative\w*|version"  # fmt: skip


AMERICAN = r"(?:(?:00)?1[ .-])?(?:\([2-9]\d{2}\)[ .-]{0,2}|[2-9]\d{2}[ .-]{1,2})\d{3}[ .-]\d{4}(?:\s?(?:ext|x|extension)\.? ?\d+)?"
LABELS = r"[ ,]{0,2}[-:(]?\s?(?:office|fax|mobile|cell|home|work|desk|direct|tel|phone|main|landline|handy|whatsapp)(?![a-z])"
BRITISH = r"0(?:7\d{3} ?\d{3} ?\d{3}|[12]\d{2,4} ?\d{3,4} ?\d{3,4})"
REGIONS = ("US", "GB", "DE", "FR", "IT", "AU", "IN", "SE")  # whose ways of writing numbers differ most
MOST_PARSES = 500  # of one text; after so many numbers beside a telephone's word the word alone decides


def _is_phone(text: str, start: int, end: int) -> bool:
    if _compiled(LABELS, re.IGNORECASE).match(_after(text, end)):
        return True
    return _near(text, start, PHONE_WORDS, 32) or _keyed(text, start, r"(?:phone|tel|mobile|cell)\w*")


PHONE_WORD_LAST = re.compile(rf"(?i)(?<!\w)(?=[^\W\d])(?:{PHONE_WORDS})\W{{0,4}}$")


def _is_thing(text: str, start: int) -> bool:
    if PHONE_WORD_LAST.search(text, max(0, start - 20), start):
        return False  # the nearest word tells
    return _near(text, start, THINGS, 20) or _keyed(text, start, "id|cid|sku|gtin")


def _possible(raw: str, region: str) -> bool:
    import phonenumbers

    try:
        return bool(phonenumbers.is_possible_number(phonenumbers.parse(raw, region)))
    except phonenumbers.NumberParseException:
        return False


def _phones(text: str) -> Iterator[Hit]:
    parses = 0
    for m in _all(
        r"(?<![\w./$€£-])(?<!\d,)(?:\+|00)?\(?\d(?:[\d]|[ ().-]{1,2}(?=[\d(])){6,18}(?:\s?(?:ext|x|extension)\.? ?\d{1,6})?(?!\w|-(?![A-Za-z])|[.,]\d)",
        text,
        need=r"\d[\d ().-]{6}",
    ):
        raw = m[0].rstrip(" .-(")
        start, end = m.start(), m.start() + len(raw)
        digits = "".join(filter(str.isdecimal, raw.partition("ext")[0].partition("x")[0]))
        if not 7 <= len(digits) <= 15 or _compiled(r"\d{1,3}(?:[.,]\d{3})+", 0).fullmatch(raw):
            continue
        if (raw[0] == "+" or (raw.startswith("00") and raw != digits)) and len(digits) >= 9:
            yield "PHONE_NUMBER", start, end, 0.95
            continue
        american = _compiled(AMERICAN, 0).fullmatch(raw)
        british = " " in raw and _compiled(BRITISH, 0).fullmatch(raw)
        if american or british:
            if not _is_thing(text, start):
                yield "PHONE_NUMBER", start, end, 0.9
        elif (len(digits) >= 9 or _compiled(r"[ .()-]", 0).search(raw)) and _is_phone(text, start, end):
            if _is_thing(text, start):
                continue
            parses += 1
            labelled = _compiled(LABELS, re.IGNORECASE).match(_after(text, end))
            if labelled or parses > MOST_PARSES or any(_possible(raw, region) for region in REGIONS):
                yield "PHONE_NUMBER", start, end, 0.8
    for m in _all(r"(?i)(?<!\w)\+\d{7,15}(?!\d)", text, need=r"\+\d"):
        yield "PHONE_NUMBER", m.start(), m.end(), 0.95
    one = rf"(?:{'|'.join(DIGIT_WORDS)}|\d)"
    for m in _all(
        rf"(?i)(?<!\w)(?=\w){one}(?:[ ,-]+{one}){{6,14}}(?!\w)",
        text,
        words=DIGIT_WORDS,
    ):
        words = re.findall(r"(?i)[a-z]+", m[0])
        if len(words) >= 4:
            yield "PHONE_NUMBER", m.start(), m.end(), 0.8


def _births(text: str) -> Iterator[Hit]:
    for m in _all(
        rf"(?i)(?:born(?: on| in)?|d\.?o\.?b\.?|date of birth|birth ?(?:day|date)(?: is| on)?|geboren(?: am)?|birthdate)[: =]*({DATE})",
        text,
        words=("born", "dob", "d.ob", "do.b", "d.o.b", "birth", "geboren"),
    ):
        yield "DATE_OF_BIRTH", m.start(1), m.end(1), 0.95


def _places(text: str) -> Iterator[Hit]:
    for m in _all(r"(?<![\w.-])-?\d{1,2}\.\d{4,},? ?-?\d{1,3}\.\d{4,}(?![\w.])", text, need=r"\.\d{4}"):
        yield "LAT_LONG", m.start(), m.end(), 0.9


WORD = r"[^\W\d_][\w'’.-]{0,40}"
HEAD = r"(?:[A-ZÀ-ÞĀ-ŽΑ-ΩА-Я](?:[^\W\d_]|['’.-]){0,40}(?!\w)|\d{1,3}(?:st|nd|rd|th)(?!\w))"  # a word with a capital
BETWEEN = r"(?:am|an|der|upon|on|de|del|della|dei|des|du|da|do|dos|la|le|les|el|las|los|sur|i|u|von|van|ten|ter|den|of|and|&|y|e)"
UNIT = r"(?i:apt|apartment|suite|ste|unit|flat|floor|fl|top|piętro|lgh|bajo|no)\.? ?#?\d[\w-]{0,6}|#\d{1,5}"
TAIL = rf"(?:(?:(?:, ?|,?[ \t]*\n)[ \t>?,]*|[ ])(?:(?:{HEAD}|{BETWEEN})(?: (?:{HEAD}|{BETWEEN})){{0,4}}(?:,? \d{{3,6}}(?:-\d{{3,4}})?\b)?|\d{{3,6}}(?:-\d{{3,4}})?\b|{UK_CODE}(?!\w))){{0,5}}"
HERE = r"(?:address(?:es)?(?: (?:is|to|as|with|here|at|the same))*[:,]?(?: to)?|(?:live[sd]?|living|resid(?:e[sd]?|ing)|stay(?:s|ed|ing)?|located|situated|based|house|home|office|offices|restaurant|shop|store|place|hotel|station|stop|meeting|it'?s?|is|are) (?:is |are |located )?(?:at|on|in|near)(?: the (?:north|south|east|west)(?:ern)? (?:side|end) of)?|meet(?:ing)?(?: \w+){0,2} (?:at|on)|(?:sen[dt]|ship(?:ped)?|mail(?:ed)?|deliver(?:ed)?|post(?:ed)?|return(?:ed)?|forward(?:ed)?|mov(?:e|ed|ing)|new one|arrived|deliver(?:y|ies)|lieferung)(?: (?:it|them|me|back|this|that|samples?|the \w+|everything))?(?: to| at| an|:)|(?:driver|him|her|them) to stop at|arrived at|refers to)"
NO_PLACE = re.compile(
    r"(?i)^(?:the )?(?:\d+ )?(?:stores?|aisles?|week|bay|shelf|campaign|zone|dcs?|warehouses?|orders?|item|sku|gtin|upc|q[1-4]|step|line|page|version|level|phase|slot|position|pack|cases?|pallets?|units?|unit|lot|batch|january|february|march|april|may|june|july|august|september|october|november|december|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|monday|tuesday|wednesday|thursday|friday|saturday|sunday|usd|eur|gbp|roas|acos|ctr|cpc|day|days|year|top|grade|stage|dma|fips|msa|chapter|tier|group|section|cell|arm|test|iphone|galaxy|windows|model|size|no|rank|place)\b"
)
BESIDE = r"(?:gade|vej|vejen|vænget|stræde|plads|torv|vegen|veien|vegur|gata|gaten|gatan|vägen|stigen|stien|gränd|katu|kuja|ntie|polku|straße|strasse|str\.|weg|gasse|platz|ufer|damm|allee|steig|hof|chaussee|straat|laan|dreef|plein|kade|gracht|dijk|singel|steenweg|plaats|baan|utca|götu|braut|stígur|bakken|alle|backe|backen|torget|kroken|svingen)"
BEFORE = r"(?i:rue|avenue|av\.|allée|impasse|chemin|quai|cours|boulevard|bd\.?|via|viale|vicolo|corso|piazza|largo|strada|calle|c/|carrer|avenida|avda\.?|paseo|plaza|camino|camiño|rúa|rua|praça|travessa|ulica|ul\.|ulice|náměstí|trg|calea|bulevardul|aleja|al\.|os\.|plac|pl\.)"
AFTER = r"(?i:utca|út|útja|tér|u\.|köz|krt\.?|ulica|ulice|třída|náměstí|nábřeží|tänav|mnt|pst|iela|gatvė|terrasse|plads|allé|vej|väg|gate|sokak|caddesi|streets|street|weg|platz|straße|strasse)"


STREETS = (frozenset(re.findall(r"[^\W\d_]+", f"{STREET} {BEFORE} {AFTER}")) - {"i", "c"}) | {
    "apt", "apartment", "suite", "ste", "box", "corner", "apo", "fpo", "dpo",
}  # fmt: skip
ENDINGS = tuple(re.findall(r"[^\W\d_]{3,}", BESIDE))
INTRODUCING = frozenset(re.findall(r"[a-z]{4,}", HERE)) | {
    "lives",
    "lived",
    "address",
    "sent",
    "send",
    "ships",
    "stays",
    "at",
}
NEAR = 160  # characters of an address on each side of the word that tells it
MOST_PLACES = 40


def _nearby(text: str, words: Collection[str], endings: tuple[str, ...] = ()) -> Iterator[tuple[int, int]]:
    """Stretches of the text around the words looked for, and around lines that begin with a number; near ones are one."""
    first = last = -1
    for m in _compiled(r"[^\W\d_]+|^[>?\s]{0,6}\d{1,6} (?=[^\W\d_])", re.MULTILINE).finditer(text):
        word = m[0].lower()
        if word not in words and not (endings and (word.endswith(endings) or word[0] < "a")):
            continue
        a, b = max(0, m.start() - NEAR), min(len(text), m.end() + NEAR)
        if first >= 0 and a <= last and b - first <= WINDOW // 2:
            last = b
            continue
        if first >= 0:
            yield first, last
        first, last = a, b
    if first >= 0:
        yield first, last


def _streets(text: str) -> Iterator[Hit]:
    """Postal addresses: a street by its words, a flat or box, or what follows the words that introduce one."""
    if not re.search(r"\d", text):
        return
    small = re.IGNORECASE if text == text.lower() else 0
    number = r"\d{1,5}[A-Za-z]?(?:-\d{1,4})?"
    words = rf"{WORD}(?: (?:{HEAD}|{BETWEEN}|{WORD})){{0,5}}?"
    shapes = (
        # 14 North Mill Lane
        (rf"(?<![\w.,$€£/-])(?:\d{{1,6}},? )?{number} (?:[NSEW]\.? )?(?:(?:{HEAD}|{number}|{BETWEEN}) ){{1,5}}(?i:{STREET})\b\.?(?:,? ?(?:{UNIT}))?{TAIL}", 0.85),
        # Hauptstraße 12
        (rf"(?<![\w.-])(?:\d{{1,6}},? )?(?:{HEAD} ){{0,3}}[^\W\d_][\w'’.-]{{1,40}}(?i:{BESIDE}) {number}\b\.?(?:,? ?(?:{UNIT}))?{TAIL}", 0.85),
        (rf"(?<![\w.-])[A-ZÄÖÜ][\wäöüß.-]{{0,40}}(?:straße|strasse|str\.|weg|gasse|platz|allee|ufer|damm)\d{{1,4}}{TAIL}", 0.85),
        # 12 rue de la Paix, Calle Mayor 5
        (rf"(?<!\w)(?:{number},? )?{BEFORE} (?:(?:{BETWEEN}|{HEAD}|l') ?){{1,7}}(?:,? ?{number})?(?:,? ?(?:{UNIT}))?{TAIL}", 0.8),
        # Erzsébet tér 19.
        (rf"(?<![\w.-])(?:\d{{1,6}},? )?(?:{HEAD} ){{1,3}}{AFTER} {number}\b\.?(?:,? ?(?:{UNIT}))?{TAIL}", 0.85),
        # 233 Harjukuja 54 Apt. 705
        (rf"(?<![\w.$€£/-])(?:\d{{1,6}},? )?(?:(?:{WORD}|{number}) ){{1,6}}?(?:{number}\.?)?[,\s>?]{{0,8}}(?i:apt|apartment|suite|ste)\.? ?#?\d[\w-]{{0,6}}{TAIL}", 0.8),
        (rf"(?<!\w)(?i:apt|apartment)\.? ?#?\d[\w-]{{0,6}}(?: \d{{1,6}})+ {words}(?: \d{{1,5}})?{TAIL}", 0.8),
        # 233 Harjukuja 54, alone on its line
        (rf"(?m)^[>?\s]{{0,6}}\d{{1,6}} {words} {number}$(?:{TAIL})", 0.75),
        (rf"(?<!\w)(?i:(?:psc|cmr|unit) \d{{1,6}},? box \d{{1,6}}|us[nc]?[svg]?c? {WORD})[\s,]{{1,4}}(?i:[afd]po,? a[aep],? \d{{5}})", 0.9),
        (rf"(?<!\w)(?:\d{{1,5}} )?(?i:p\.? ?o\.? box) \d{{1,6}}(?:,? ?(?:{UNIT}))?{TAIL}", 0.85),
        (rf"(?<!\w)(?i:the corner of) (?:{HEAD}|{BETWEEN}|{number}\.?)(?: (?:{HEAD}|{BETWEEN}|{number}\.?)){{1,9}}", 0.8),
    )  # fmt: skip
    number_near = 0
    for first, last in _nearby(text, STREETS, ENDINGS):
        number_near += 1
        if number_near > MOST_PLACES:  # in a text that is nothing but addresses the word alone decides
            yield "ADDRESS", first, last, 0.7
            continue
        around = text[first:last]
        for shape, score in shapes:
            for m in _compiled(shape, small).finditer(around):
                if re.search(r"\d", m[0]) and not NO_PLACE.match(m[0].lstrip(" >?\n")):
                    start = first + m.start() + len(m[0]) - len(m[0].lstrip(" >?\n"))
                    yield "ADDRESS", start, first + m.start() + len(m[0].rstrip(" ,.\n>?")), score
    told = rf"(?<!\w)(?i:{HERE})[:\s>]{{1,6}}((?i:the corner of )?(?:\d{{1,6}},? ){{0,2}}(?:{HEAD}|{BETWEEN})(?: (?:{HEAD}|{BETWEEN}|{number})){{0,7}} {number}\b\.?|(?:\d{{1,6}},? ){{1,2}}{HEAD}(?: (?:{HEAD}|{BETWEEN})){{0,5}})((?:,? ?(?:{UNIT}))?{TAIL})"
    for first, last in itertools.islice(
        _nearby(text, INTRODUCING) if len(text) > WINDOW else [(0, len(text))], MOST_PLACES
    ):
        for m in _compiled(told, small).finditer(text, first, last):
            if re.search(r"\d", m[1]) and not NO_PLACE.match(m[1]) and not re.match(r"\d+ [a-z]", m[1]):
                yield "ADDRESS", m.start(1), m.start(1) + len((m[1] + m[2]).rstrip(" ,.\n>?")), 0.78
    for m in _all(rf"(?<!\w){UK_CODE}(?!\w)", text):
        if " " in m[0] or _near(text, m.start(), "postcode|address|lives?|delivery", 24):
            yield "ADDRESS", m.start(), m.end(), 0.7
    for m in _all(rf"(?<!\w){CITY},? (?:{STATES}),? \d{{5}}(?:-\d{{4}})?(?!\d)", text):
        yield "ADDRESS", m.start(), m.end(), 0.75
    code = r"(?i)(?<!\w)(?:(?:my|your|his|her|our|their|home|billing|shipping) )?(?:zip(?: ?code)?|post(?:al)? ?code)(?: is|:) ?(\d{4,6}(?:-\d{4})?)(?![\w,]| ?\d)"
    for m in _all(code, text):
        yield "ADDRESS", m.start(1), m.end(1), 0.7


def _loyalty(text: str) -> Iterator[Hit]:
    said = r"(?i)(?:loyalty|rewards?|member(?:ship)?|club ?card|shopper ?card|frequent shopper|plus card|bonus card|household|hshd)(?:[ _](?:id|card|number|no\.?|key))*[\"']?[ :=#]+(?:is )?[\"']?([A-Z]{0,4}[- ]?\d[\d -]{4,20}\d)"
    for m in _all(said, text, words=("loyal", "reward", "member", "club", "shopper", "plus", "bonus", "house", "hshd")):
        yield "LOYALTY_ID", m.start(1), m.end(1), 0.8


def _letterheads(text: str, found: Collection[Entity], place: Sequence[int]) -> Iterator[Hit]:
    """Two or three words alone on a line, with capitals or a given name, and an address, a telephone or an e-mail below."""
    below = sorted(one.start for one in found if one.type in ("ADDRESS", "PHONE_NUMBER", "EMAIL_ADDRESS"))
    if "\n" not in text or not below:
        return
    word = r"[^\W\d_][\w'’À-ž-]{0,40}"
    for m in _all(rf"(?m)^[>?\s]{{0,6}}({word}(?: (?:[A-Za-z]\.? )?{word}){{1,2}})[ ,]{{0,3}}$", text, need="\n"):
        at = bisect_left(below, place[m.end()])
        if at == len(below) or below[at] - place[m.end()] > 120 or _no_name(m[1], ""):
            continue
        named = m[1].split()
        if all(one[0].isupper() for one in named) or named[0].casefold() in GIVEN:
            yield "PERSON", m.start(1), m.end(1), 0.65


def _no_name(words: str, after: str) -> bool:
    return is_brand(words, after) or any(word.casefold() in NOT_NAMES for word in words.split())


@lru_cache(maxsize=4096)
def is_brand(name: str, after: str) -> bool:
    plain = re.sub(r"['’]s\b", "", name).casefold().replace("'", "").replace("’", "")
    words = plain.split(" ")
    if any(" ".join(words[:count]) in BRANDS for count in range(1, len(words) + 1)):
        return True
    return bool(re.search(r"['’]s$", name) and re.match(r" [a-z]", after)) and not re.match(
        r" (?:phone|email|address|order|account|card|name)", after
    )


def _people(text: str) -> Iterator[Hit]:
    for m in _all(
        rf"(?<!\w)(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Sir|Herr|Frau|Señora?|Mme|M\.)\.? ({NAME}(?:,? {NAME}){{0,2}})",
        text,
        words=("mr", "ms", "miss", "mx", "dr", "prof", "sir", "herr", "frau", "señor", "mme", "m."),
    ):
        name, start = m[1], m.start(1)
        if not is_brand(f"{m[0].split(' ')[0].lower()} {name}", _after(text, m.end())) and not is_brand(
            name, _after(text, m.end())
        ):
            end = start + len(re.sub(r"['’]s$", "", name))
            yield "PERSON", start, end, 0.85
    for m in _all(rf"(?<!\w)({NAME}) ((?:[A-Z]\.? )?{NAME}(?: {NAME})?)(?!\w)", text, need=r"[A-ZÀ-Ž]\w+ [A-ZÀ-Ž]"):
        first = m[1].casefold()
        rest = m[2].split()
        if first in GIVEN and rest[-1].casefold() not in NOT_NAMES and not is_brand(m[0], _after(text, m.end())):
            words = m[0]
            for last in reversed(rest):
                if last.casefold() in NOT_NAMES and len(rest) > 1:
                    words = words[: words.rindex(last)].rstrip()
                else:
                    break
            yield "PERSON", m.start(), m.start() + len(re.sub(r"['’]s$", "", words)), 0.75
    for m in _all(
        r"(?<![\w'’-])([A-ZÀ-Ž][A-ZÀ-Ž'’-]{2,40}), ([A-ZÀ-Ž][A-ZÀ-Ž'’-]{2,40})(?=[:;.,]|\s|$)",
        text,
        need=", [A-ZÀ-Ž]{2}",
    ):
        if m[2].casefold() in GIVEN or _near(text, m.start(), PEOPLE, 12):
            yield "PERSON", m.start(), m.end(), 0.7
    introduced = rf"(?<!\w)(?=\w)(?i:{PEOPLE})[:.,]? ((?:{NAME})(?: {NAME}){{1,2}})(?!\w)"
    for m in _all(introduced, text, need=r"[A-ZÀ-Ž]\w+ [A-ZÀ-Ž]"):
        if m[0][:4].casefold() == "name" and _near(text, m.start(), NAMED_THINGS, 16):
            continue
        named = m[1].split()
        known = any(word.casefold() in GIVEN for word in named)
        sure = re.match(
            r"(?i)(?:customer|shopper|buyer|reviewer|owner|client|dear|contact|attn|name|recipient|winner|cardholder|payee|patient|employee|applicant|ship|lieferung|my|i)",
            m[0],
        )
        if (
            (known or sure)
            and not any(w.casefold() in NOT_NAMES for w in named)
            and not is_brand(m[1], _after(text, m.end()))
        ):
            yield "PERSON", m.start(1), m.start(1) + len(re.sub(r"['’]s$", "", m[1])), 0.7
    for m in _all(
        r"(?i)(?:reviewer|customer|shopper|contact|full|first|last|user|buyer)? ?name(?:d| is)?[:=] ?([^\W\d_]+(?:[ '-][^\W\d_]+){0,3})(?=[,;.\n]|$)",
        text,
        words=("name",),
    ):
        if (
            not any(w.casefold() in NOT_NAMES for w in m[1].split())
            and len(m[1]) > 3
            and re.search(r"(?i)reviewer|customer|shopper|contact|full|first|last|buyer", m[0][: -len(m[1])])
        ):
            yield "PERSON", m.start(1), m.end(1), 0.7
    for m in _all(
        r"(?i)(?:thx|thanks|thank you|cheers|regards|hi|hello|dear),? ([^\W\d_]+(?: [^\W\d_]+){0,2})(?=[,.!\n]|$)",
        text,
        words=("thx", "thank", "cheers", "regards", "hi", "hello", "dear"),
    ):
        if m[1].split()[0].casefold() in GIVEN:
            yield "PERSON", m.start(1), m.end(1), 0.7
    several = rf"{NAME}(?: (?:[A-Z]\.? )?{NAME}){{0,2}}"
    role = "beneficiary|recipient|payee|guest|nominee"
    acts = "lives|lived|resides|was born|shouted|whispered|(?:had given|gave) (?:him|her|them|\\w+ (?:his|her))|will be talking"
    for shape, gate in (
        (rf"(?<!\w)(?i:(?:my|his|her|our|their|the) (?:{KIN})),? ({several})(?!\w)", ("my", "his", "her", "our", "their", "the",)),
        (rf"(?<!\w)(?i:user:|(?:named|called) (?:him|her)|(?:{KIN}) (?:was|is) called) ({several})(?!\w)", ("user:", "named", "called",)),
        (rf"(?<!\w)(?i:(?:directed|written|painted|photographed|sung) by:?)[ ]{{1,6}}({several})(?!\w)", ("directed", "written", "painted", "photographed", "sung",)),
        (rf"(?m)^[>\s]{{0,6}}(?i:name):[ ]{{1,6}}({several})(?!\w)", ("name:",)),
        (rf"(?i:(?<!\w)(?:starring|a tribute to|calls? me|(?:first|last|maiden|my) name is|please (?:change|correct) it to|on the account is|between (?:him|her|them) and|said)|\(not by) (?:(?:Mr|Mrs|Ms|Dr|Prof)\.? )?({several})(?!\w)", ("starring", "tribute", "call", "name is", "change it", "correct it", "account is", "between", "said", "not by",)),
        (rf"(?<!\w)({several}) (?:{acts})(?!\w)", ("live", "resid", "born", "shouted", "whispered", "gave", "given", "talking",)),
        (rf"(?<!\w)({NAME} {several}) as an? (?:{role})(?!\w)", ("beneficiary", "recipient", "payee", "guest", "nominee",)),
        (rf"(?<!\w)({NAME} {several}),? (?:the [\w ]{{3,30}}, )?(?:said|says|asked|replied)(?!\w)", ("said", "says", "asked", "replied",)),
        (rf"(?<!\w)(?:gave|given) ({several}) (?:his|her|their|my|an?)(?!\w)", ("gave", "given",)),
        (rf"(?<!\w)({several})['’]s (?:home |postal |e-?mail |phone )?(?:address|phone|e-?mail|birthday|password)(?!\w)", ("address", "phone", "mail", "birthday", "password",)),
    ):  # fmt: skip
        for m in _all(shape, text, need=r"[A-ZÀ-Ž]\w", words=gate):
            if not _no_name(m[1], _after(text, m.end(1))):
                yield "PERSON", m.start(1), m.start(1) + len(re.sub(r"['’]s$", "", m[1])), 0.6
    spoken = r"(?i)(?<!\w)(?:my name is|i am called|named (?:him|her)|calls? me|(?:first|last|maiden|full) name is|mr\.?|mrs\.?|ms\.?) ([^\W\d_]{3,30})(?=[.,!?;:\n]|$)"
    for m in _all(spoken, text, words=("name", "call", "mr", "ms")):
        if m[1].casefold() not in NOT_NAMES:
            yield "PERSON", m.start(1), m.end(1), 0.6
    small = (
        r"(?<![\w'’-])([^\W\d_]{3,20})((?: [^\W\d_]{2,20})?)(?:['’]s (?:address|phone|e-?mail)| lives (?:at|on|in)) "
    )
    for m in _all(small, text, words=("lives", "s address", "s phone", "s e")):
        if m[1].casefold() in GIVEN and m[2].strip().casefold() not in NOT_NAMES:
            yield "PERSON", m.start(1), m.end(2), 0.6
    for m in _all(rf"(?<!\w)({NAME}) [A-Z]\.? ({NAME})(?!\w)", text, need=r"\w [A-Z]\.? [A-ZÀ-Ž]"):
        if m[1].casefold() not in LETTERED and len(m[1]) > 2 < len(m[2]) and not _no_name(m[0], _after(text, m.end())):
            yield "PERSON", m.start(), m.start() + len(re.sub(r"['’]s$", "", m[0])), 0.65
    for m in _all(
        rf"(?<![\w'’-])(?<![A-ZÀ-Ž][a-z] )([A-ZÀ-Ž][a-zà-ž]{{2,20}}){GOES_ON}", text, need=r"[A-ZÀ-Ž][a-zà-ž]{2}"
    ):
        name = m[1].casefold()
        if name in GIVEN and name not in UNSURE and not re.search(r"[A-ZÀ-Ž]\w+ $", _before(text, m.start())):
            yield "PERSON", m.start(), m.end(1), 0.6
