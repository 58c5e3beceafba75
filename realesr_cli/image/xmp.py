"""XMP packets: orientation and sizes corrected, and the record of what made a result.

Source: XMP specification part 1 (packets, RDF) and part 2 (the tiff: and exif: namespaces). Packets
are edited as text, so that everything else in them stays byte for byte.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, unescape

NAMESPACE = b"https://pypi.org/project/realesr-cli/ns/1.0/"

_RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_HEAD = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s">' % _RDF
_TAIL = b"</rdf:RDF></x:xmpmeta>"
_RECORD = (
    b'<rdf:Description rdf:about="" xmlns:realesr="%s">'
    b"<realesr:madeBy>%%s</realesr:madeBy></rdf:Description>" % NAMESPACE
)
_OWN = re.compile(re.escape(_RECORD).replace(b"%s", rb"[^<]*"))
# As an element, which we write, and as an attribute, into which some editors turn it.
_MADE_BY = re.compile(
    rb"<realesr:madeBy>([^<]*)<|\brealesr:madeBy\s*=\s*(?:\"([^\"]*)\"|'([^']*)')"
)
_QUOTES = {"&quot;": '"', "&apos;": "'"}


def orientation_of(xmp: bytes | None) -> int:
    """Return the orientation that the packet states; 0 if it states none."""
    match = _pattern(b"tiff:Orientation").search(xmp) if xmp else None
    return int(match[2]) if match else 0


def make_upright(xmp: bytes) -> bytes:
    """Return the packet with orientation 1 if it states one."""
    return _pattern(b"tiff:Orientation").sub(rb"\g<1>1", xmp)


def resize(xmp: bytes, height: int, width: int) -> bytes:
    """Return the packet with the sizes that it states set to these."""
    for names, value in (
        ((b"tiff:ImageWidth", b"exif:PixelXDimension"), width),
        ((b"tiff:ImageLength", b"exif:PixelYDimension"), height),
    ):
        for name in names:
            xmp = _pattern(name).sub(rb"\g<1>%d" % value, xmp)
    return xmp


def replace_made_by(xmp: bytes | None, record: str | None) -> bytes | None:
    """Return the packet with this record of what made the image instead of any other.

    `xmp` None makes a new packet; `record` None removes the record, and with it a packet that
    contains nothing else. A packet without a place for the record (in UTF-16) is left unchanged.
    """
    if xmp is not None:
        rest = _OWN.sub(b"", xmp)
        xmp = None if rest == _HEAD + _TAIL else rest
    if record is None:
        return xmp
    added = _RECORD % escape(record).encode()
    if xmp is None:
        return _HEAD + added + _TAIL
    place = xmp.rfind(b"</rdf:RDF>")
    return xmp if place < 0 else xmp[:place] + added + xmp[place:]


def find_made_by(data: bytes) -> str | None:
    """Return the record in any bytes that contain a packet; None if there is none."""
    match = _MADE_BY.search(data)
    if match is None:
        return None
    found = match[1] or match[2] or match[3] or b""
    return unescape(found.decode("utf-8", "replace"), _QUOTES)


def _pattern(name: bytes) -> re.Pattern[bytes]:
    # As an attribute (name="6") and as an element (<name>6<).
    return re.compile(rb"(" + name + rb"""(?:\s*=\s*["']|>\s*))(\d{1,9})(?!\d)""")
