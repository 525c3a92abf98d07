"""Words of languages written with spaces: the splits of spaCy's blank pipelines, without spaCy."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Final

from pretune.data.lexicon import known
from pretune.data.samples import Span

VERSION: Final = "1"  # to be raised when any split changes: it dates token files
LONGEST: Final = 1000  # a longer run without a space is no language; it is cut there, so that time is linear
KEPT: Final = 2**17  # distinct runs whose splits are remembered,
LONGEST_KEPT: Final = 40  # if no longer than this
ELISION: Final = ("fr", "it", "ca")  # l'homme, dell'arte: split after the apostrophe

RUN = re.compile(rf"\S{{1,{LONGEST}}}")

PUNCTUATION: Final = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
QUOTES: Final = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧"
SINGLE: Final = frozenset(PUNCTUATION + QUOTES + "—–")  # what is always cut off an end, one by one
CURRENCY: Final = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
UNITS: Final = """
km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg
t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % км км²
км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч кПа Па мбар Кб
КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тб كم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ غرام
جرام جم كغ ملغ كوب اكواب
"""
DOLLARS: Final = r"US\$|C\$|A\$"


@dataclass(frozen=True)
class Rules:
    """What is peeled off a run's ends, where its middle is cut, and what is known by heart."""

    prefix: re.Pattern[str]
    suffix: re.Pattern[str]
    infix: re.Pattern[str]
    url: re.Pattern[str]
    known: dict[str, tuple[str, ...]]  # a run -> its words
    phrases: dict[tuple[str, ...], tuple[str, ...]]  # what the patterns make of a known run -> its words
    longest_phrase: int


class Words:
    """Runs of text between spaces, peeled and cut by rule; a run's words never depend on its neighbours."""

    by_run = True

    def __init__(self, language: str) -> None:
        self.name = "words"
        self.version = VERSION
        self.described = f"words by built-in {'English' if language == 'en' else 'European'} rules"
        self.rules = rules(language)
        self._seen: dict[str, tuple[tuple[int, int], ...]] = {}

    def __call__(self, text: str) -> list[Span]:
        spans = []
        for run in RUN.finditer(text):
            at = run.start()
            spans += [Span(at + start, at + end) for start, end in self.of_run(run.group())]
        return spans

    def of_run(self, run: str) -> tuple[tuple[int, int], ...]:
        """Where the words of a run of at most LONGEST characters without a space start and end."""
        found = self._seen.get(run)
        if found is None:
            places, at = [], 0
            for word in _words(run, self.rules):
                places.append((at, at + len(word)))
                at += len(word)
            found = tuple(places)
            if len(run) <= LONGEST_KEPT:
                if len(self._seen) >= KEPT:
                    self._seen.clear()
                self._seen[run] = found
        return found


def _words(run: str, rules: Rules) -> list[str]:
    """spaCy's algorithm: known runs; else ends are peeled off, then the middle is cut at infixes."""
    if run in rules.known:
        return list(rules.known[run])
    if run.isalpha():
        return [run]
    return _merged(_peeled(run, rules, rules.known), rules)


def _peeled(run: str, rules: Rules, known: dict[str, tuple[str, ...]]) -> list[str]:
    head: list[str] = []
    tail: list[str] = []  # from the right
    while run and run not in known and not run.isalpha():
        before = _prefix(run, rules)
        if before and run[before:] in known:
            head.append(run[:before])
            run = run[before:]
            break
        after = _suffix(run[before:], rules)
        if after and run[:-after] in known:
            tail.append(run[-after:])
            run = run[:-after]
            break
        if not before and not after:
            break
        if before:
            head.append(run[:before])
        if after:
            tail.append(run[-after:])
        run = run[before : len(run) - after]
    if run in known:
        middle = list(known[run])
    elif run.isalpha() or ("." in run and rules.url.match(run)):
        middle = [run]
    else:
        middle = _cut(run, rules)
    return head + middle + tail[::-1]


def _prefix(run: str, rules: Rules) -> int:
    match = rules.prefix.match(run)
    return match.end() if match else 0


def _suffix(run: str, rules: Rules) -> int:
    if run.endswith(".."):
        return len(run) - len(run.rstrip("."))
    if run[-1:] in SINGLE and not run.endswith("……"):
        return 1
    tail = run[-8:]  # longer than any suffix and what it must follow
    match = rules.suffix.search(tail)
    return len(tail) - match.start() if match else 0


def _cut(run: str, rules: Rules) -> list[str]:
    words, at = [], 0
    for match in rules.infix.finditer(run):
        if match.start() == 0:
            continue
        words += [run[at : match.start()], match.group()]
        at = match.end()
    return [word for word in (*words, run[at:]) if word]


def _merged(words: list[str], rules: Rules) -> list[str]:
    """Known runs found again in what was cut, longest first: ( : ) becomes ( :) where it stood so."""
    places = [
        (start, start + size)
        for size in range(min(rules.longest_phrase, len(words)), 0, -1)
        for start in range(len(words) - size + 1)
        if tuple(words[start : start + size]) in rules.phrases
    ]
    seen: set[int] = set()
    taken: dict[int, int] = {}
    for start, end in places:
        if start not in seen and end - 1 not in seen:
            taken[start] = end
        seen.update(range(start, end))
    merged: list[str] = []
    at = 0
    while at < len(words):
        end = taken.get(at, at + 1)
        merged += rules.phrases[tuple(words[at:end])] if at in taken else words[at:end]
        at = end
    return merged


@cache
def rules(language: str) -> Rules:
    """The rules of a language. English has its own contractions and abbreviations."""
    lower, upper, uncased, icons = _letters()
    letter, ends = f"{lower}{upper}{uncased}", re.escape(PUNCTUATION + QUOTES)
    small, capital, quotes = lower + uncased, upper + uncased, re.escape(QUOTES)
    signs = re.escape(CURRENCY)
    units = "|".join(sorted(map(re.escape, UNITS.split()), key=len, reverse=True))
    prefix = rf"[§%=—–{ends}{signs}{icons}]|\+(?![0-9])|\.\.+|{DOLLARS}"
    suffix = (
        rf"(?:……|[{ends}{icons}—–]|['’][sS]|(?<=[0-9])(?:\+|[{signs}]|{DOLLARS}|{units})|(?<=°[FfCcKk])\."
        rf"|(?<=[0-9{small}%²\-+|(:)…{ends}])\.|(?<=[{capital}][{capital}])\.)\Z"
    )
    before_hyphen = letter + ("0-9" if language == "en" else "")
    infix = (
        rf"\.\.+|…|[{icons}]|(?<=[0-9])[+\-*^](?=[0-9-])|(?<=[{small}{quotes}])\.(?=[{capital}{quotes}])"
        rf"|(?<=[{letter}]),(?=[{letter}])|(?<=[{before_hyphen}])(?:---?|-|–|——|—|~)(?=[{letter}])"
        rf"|(?<=[{letter}0-9])[:<>=/](?=[{letter}])"
    )
    if language in ELISION:
        infix += rf"|(?<=[{letter}]['’])(?=[{letter}])"
    host = r"A-Za-z0-9\u00a1-\uffff"
    url = (  # after D. Perini's pattern (MIT licence), as spaCy narrows it
        rf"(?:[\w+\-.]{{2,}}://)?(?:\S+@)?(?:\d{{1,3}}(?:\.\d{{1,3}}){{3}}"
        rf"|(?:(?:[{host}][{host}_-]{{0,62}})?[{host}]\.)+[{small}]{{2,63}})(?::\d{{2,5}})?(?:[/?#]\S*)?\Z"
    )
    bare = Rules(re.compile(prefix), re.compile(suffix), re.compile(infix), re.compile(url), {}, {}, 0)
    by_heart = known(language)
    phrases = {
        tuple(_peeled(run, bare, {})): words
        for run, words in by_heart.items()
        if bare.prefix.match(run) or _suffix(run, bare) or bare.infix.search(run)
    }
    return Rules(bare.prefix, bare.suffix, bare.infix, bare.url, by_heart, phrases, max(map(len, phrases)))


@cache
def _letters() -> tuple[str, str, str, str]:
    """Small letters, capitals, letters without case, and symbols such as emoji, as ranges of a class."""
    classes: dict[str, list[int]] = {"Ll": [], "Lu": [], "Lo": [], "So": []}
    for point in range(0x20000):
        category = unicodedata.category(chr(point))
        if category[0] in "LM" and not 0x300 <= point < 0x370:  # accents on their own are no letters to spaCy
            classes[category if category in classes else "Lo"].append(point)
        elif category == "So":
            classes["So"].append(point)
    classes["Lo"] += [*range(0x3000, 0x3040), *range(0x20000, 0x32000)]  # Chinese signs, rare characters
    return (_ranges(classes["Ll"]), _ranges(classes["Lu"]), _ranges(classes["Lo"]), _ranges(classes["So"]))


def _ranges(points: list[int]) -> str:
    ranges: list[list[int]] = []
    for point in points:
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
