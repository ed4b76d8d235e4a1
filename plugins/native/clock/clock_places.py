"""From the name of a place to its time zone, by the IANA database and a table of other cities."""

from __future__ import annotations

import unicodedata
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

# Large cities and well-known regions that name no zone; the database has one city per zone.
_OTHERS = """
America/New_York: new york city, nyc, manhattan, brooklyn, boston, washington, washington dc,
  philadelphia, miami, atlanta, orlando, baltimore, cleveland, pittsburgh, charlotte, florida,
  the east coast, east coast, eastern time, est
America/Chicago: dallas, houston, austin, san antonio, new orleans, minneapolis, memphis,
  nashville, st louis, kansas city, milwaukee, texas, central time
America/Denver: salt lake city, albuquerque, colorado, mountain time
America/Los_Angeles: san francisco, san diego, seattle, portland, las vegas, california, oakland,
  san jose, hollywood, the west coast, west coast, pacific time, pst, la
America/Toronto: ottawa, montreal, quebec
America/Vancouver: british columbia
America/Edmonton: calgary
America/Sao_Paulo: rio, rio de janeiro, brasilia, brazil
America/Argentina/Buenos_Aires: buenos aires
America/Mexico_City: guadalajara, mexico
Pacific/Honolulu: hawaii
Europe/London: uk, the uk, england, scotland, wales, britain, great britain, edinburgh, glasgow,
  manchester, liverpool, birmingham, leeds, bristol, cardiff, oxford, cambridge
Europe/Paris: lyon, marseille, nice, toulouse, bordeaux, strasbourg
Europe/Berlin: munich, hamburg, frankfurt, cologne, stuttgart, dresden, leipzig, hanover, bonn
Europe/Madrid: barcelona, valencia, seville, malaga, bilbao
Europe/Lisbon: porto
Europe/Rome: milan, naples, turin, florence, venice, bologna, palermo
Europe/Zurich: geneva, basel, bern, lausanne
Europe/Amsterdam: rotterdam, the hague, utrecht, holland
Europe/Brussels: antwerp, ghent, bruges
Europe/Vienna: salzburg, graz, innsbruck
Europe/Warsaw: krakow, cracow, gdansk, wroclaw
Europe/Kyiv: kiev, odessa, lviv
Europe/Stockholm: gothenburg, malmo
Europe/Oslo: bergen
Europe/Moscow: saint petersburg, st petersburg, russia
Europe/Istanbul: ankara, izmir
Asia/Kolkata: mumbai, delhi, new delhi, bangalore, bengaluru, chennai, hyderabad, pune, calcutta
Asia/Shanghai: beijing, shenzhen, guangzhou, china, chengdu, wuhan
Asia/Tokyo: osaka, kyoto, yokohama, nagoya, sapporo
Asia/Seoul: busan
Asia/Ho_Chi_Minh: hanoi, saigon
Asia/Dubai: abu dhabi, the emirates, emirates
Asia/Riyadh: mecca, jeddah
Asia/Jerusalem: tel aviv, haifa
Asia/Karachi: lahore, islamabad
Asia/Jakarta: indonesia
Asia/Makassar: bali
Africa/Johannesburg: cape town, durban, pretoria
Africa/Cairo: alexandria
Africa/Lagos: abuja
Africa/Casablanca: marrakesh, marrakech, rabat
Australia/Sydney: canberra, australia
Australia/Brisbane: gold coast
Pacific/Auckland: wellington, christchurch
UTC: utc, universal time, zulu
Etc/GMT: gmt, greenwich mean time
Europe/Brussels: cet, central european time
"""
# The zone where most people of a country with several zones live.
_MAIN = {"US": "America/New_York", "CA": "America/Toronto", "ES": "Europe/Madrid",
         "PT": "Europe/Lisbon", "CL": "America/Santiago", "NZ": "Pacific/Auckland",
         "EC": "America/Guayaquil", "UA": "Europe/Kyiv", "KZ": "Asia/Almaty"}  # fmt: skip


def zone_of(place: str) -> str:
    """IANA name of the zone of a city, country or zone; empty where none is known."""
    wanted = plain(place)
    if wanted in _names():
        return _names()[wanted]
    # "Paris, France" and "London England": what stands first, then the whole country.
    for part in place.split(","):
        if plain(part) in _names():
            return _names()[plain(part)]
    words = wanted.split()
    for count in range(len(words) - 1, 0, -1):
        if (name := " ".join(words[:count])) in _names():
            return _names()[name]
    return ""


def zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def plain(name: str) -> str:
    """Lower case, without accents and marks: the form that names are compared in."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    kept = "".join(c if c.isalnum() else " " for c in letters if not unicodedata.combining(c))
    return " ".join(kept.split())


@cache
def _names() -> dict[str, str]:
    """Plain name to zone; a later source wins over an earlier one."""
    found: dict[str, str] = {}
    for key in sorted(available_timezones()):
        if "/" in key:
            found.setdefault(plain(key.rpartition("/")[2]), key)
        found[plain(key)] = key
    found |= _countries()
    for line in _OTHERS.replace("\n  ", " ").strip().splitlines():
        key, _, names = line.partition(":")
        found |= {plain(name): key for name in names.split(",")}
    return found


@cache
def _countries() -> dict[str, str]:
    """From the tables of the package tzdata; without it countries are not known."""
    from importlib import resources

    try:
        folder = resources.files("tzdata") / "zoneinfo"
        codes = _rows((folder / "iso3166.tab").read_text(encoding="utf-8"))
        zones = _rows((folder / "zone.tab").read_text(encoding="utf-8"))
    except (ModuleNotFoundError, OSError):
        return {}
    first: dict[str, str] = {}
    for code, _, key, *_ in zones:
        first.setdefault(code, key)
    main = first | _MAIN
    names = {plain(name): main[code] for code, name in codes if code in main}
    names |= {"usa": main["US"], "america": main["US"], "the us": main["US"]}
    return names | {"south korea": "Asia/Seoul", "united states of america": main["US"]}


def _rows(table: str) -> list[list[str]]:
    return [line.split("\t") for line in table.splitlines() if line and line[0] != "#"]
