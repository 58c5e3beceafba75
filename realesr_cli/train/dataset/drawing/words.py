"""Words, numbers and sentences to draw: from a short list, or made of syllables and letters."""

from __future__ import annotations

from realesr_cli.train.dataset.drawing.dice import Rng, between, chance, pick, weighted, whole
from realesr_cli.train.dataset.drawing.fonts import SAMPLES


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COMMON = _words(
    "the of and to in is that for it was on are as with his they at be this from have or by one "
    "had not but what all were when we there can an your which their said if do will each about "
    "how up out them then she many some so these would other into has more her two like him see "
    "time could no make than first been its who now people my made over did down only way find "
    "use may water long little very after words called just where most know"
)
NOUNS = _words(
    "Market Station Harbour Garden Library Museum Winter Summer Morning Paper River Mountain "
    "Bridge Letter Window Kitchen Journal Report Chapter Table Figure Volume Theory Method Result "
    "Measure Coffee Bakery Hotel Exit Entrance Parking Ticket Office Open Closed Private Caution "
    "Danger Notice Welcome Street Avenue North South East West Price Total Sale Fresh Energy "
    "Signal Image Model Sample Value Average Temperature Pressure Distance Speed Number Account"
)
_ONSETS = _words("b c d f g h j k l m n p r s t v w z br cr dr fl gr pl pr sh st th tr")
_VOWELS = _words("a e i o u ai ea io ou a e i o")
_CODAS = ["", "", "", "n", "r", "s", "t", "l", "nd", "st", "rm", "ck"]
_VOWELLED = {
    "accents": ("bcdfghklmnprstvzčžšłçñß", "aeiouyäöüéèêáíóúøåőűæ"),
    "greek": ("βγδζθκλμνξπρστφχψ", "αεηιουωάέήίόύώ"),
    "cyrillic": ("бвгджзйклмнпрстфхцчшщ", "аеёиоуыэюяі"),
}
_NAMES = _words("North South Alpha Beta Gamma Delta Low High Mean Group Type Series Run Case")


def word(rng: Rng, script: str = "latin") -> str:
    """One word of a script of `SAMPLES`."""
    if script in ("kana", "han"):
        return "".join(pick(rng, SAMPLES[script]) for _ in range(whole(rng, 2, 6)))
    if script in _VOWELLED:
        return _made(rng, *_VOWELLED[script])
    return weighted(rng, ((_common, 0.6), (_syllables, 0.3), (pick_noun, 0.1)))(rng)


def _made(rng: Rng, consonants: str, vowels: str) -> str:
    parts = [pick(rng, consonants) + pick(rng, vowels) for _ in range(whole(rng, 1, 4))]
    return "".join(parts) + (pick(rng, consonants) if chance(rng, 0.5) else "")


def _common(rng: Rng) -> str:
    return pick(rng, COMMON)


def pick_noun(rng: Rng) -> str:
    """A noun as it stands on signs and in headings."""
    return pick(rng, NOUNS)


def _syllables(rng: Rng) -> str:
    count = weighted(rng, ((1, 0.3), (2, 0.4), (3, 0.3)))
    return "".join(
        pick(rng, _ONSETS) + pick(rng, _VOWELS) + pick(rng, _CODAS) for _ in range(count)
    )


def number(rng: Rng) -> str:
    """A number as tables and texts have it: 42, 3.14, 1,250, 12 %, $9.99, -0.5, a date, a time."""
    kind = whole(rng, 0, 8)
    value = between(rng, 0, 10 ** whole(rng, 1, 5))
    shown = (
        f"{value:.0f}",
        f"{value:.2f}",
        f"{value:,.0f}",
        f"{min(value, 100):.0f}%",
        f"${value:,.2f}",
        f"-{value:.1f}",
        f"{whole(rng, 1, 31):02d}.{whole(rng, 1, 12):02d}.{whole(rng, 1950, 2030)}",
        f"{whole(rng, 0, 23)}:{whole(rng, 0, 59):02d}",
        f"+{whole(rng, 10, 99)} {whole(rng, 100, 999)} {whole(rng, 1000, 9999)}",
    )
    return shown[kind]


def token(rng: Rng) -> str:
    """Something without meaning: a plate, a code, an address."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    plate = "".join(pick(rng, letters) for _ in range(3))
    site = pick(rng, COMMON) + _syllables(rng)
    shown = (
        f"{plate}-{whole(rng, 100, 9999)}",
        f"{whole(rng, 0, 0xFFFFFF):06x}",
        f"www.{site}.com",
        f"{pick(rng, COMMON)}@{site}.org",
        f"#{whole(rng, 1, 999)}",
        f"({plate.lower()})",
    )
    return pick(rng, shown)


def phrase(rng: Rng, count: int, script: str = "latin") -> str:
    """`count` words that begin with a capital letter, now and then all in capitals."""
    text = " ".join(word(rng, script) for _ in range(count))
    return text.upper() if chance(rng, 0.15) else text[:1].upper() + text[1:]


def sentence(rng: Rng, script: str = "latin") -> list[str]:
    """The words of a sentence, with numbers and marks among them, and its stop."""
    words = [word(rng, script) for _ in range(whole(rng, 4, 16))]
    for at in range(len(words)):
        if chance(rng, 0.04):
            words[at] = number(rng) if chance(rng, 0.75) else token(rng)
        elif chance(rng, 0.07):
            words[at] += pick(rng, (",", ",", ",", ";", ":"))
        elif chance(rng, 0.02):
            words[at] = pick(rng, ('"{}"', "({})", "'{}'")).format(words[at])
    words[0] = words[0][:1].upper() + words[0][1:]
    words[-1] += pick(rng, (".", ".", ".", ".", "?", "!"))
    return words


def label(rng: Rng) -> str:
    """A short name, as of an axis, a series or a button."""
    if chance(rng, 0.3):
        return pick(rng, _NAMES) + (f" {whole(rng, 1, 9)}" if chance(rng, 0.5) else "")
    return pick_noun(rng) + (
        f" ({pick(rng, ('m', 's', 'kg', '%', 'GB'))})" if chance(rng, 0.2) else ""
    )
