"""A PDF with its objects in an order of their own: the same bytes for the same drawing."""

import re

_REFERENCE = re.compile(rb"\b(\d+) 0 R\b")
# Entries of one list of fonts, opacities and the like, one in a line.
_LIST = re.compile(rb"(?:^ +/[^\s/]+ \d+ 0 R\n){2,}", re.MULTILINE)


def in_order(made: bytes) -> bytes:
    """Number and place the objects of a file as they are reached from its root.

    svg2pdf lists and places fonts and opacities by chance.

    Args:
      made: a file with one table of cross-references, and no compressed objects.
    """
    start = int(made.rpartition(b"startxref")[2].split()[0])
    table, trailer = re.match(rb"(.*?)(trailer.*?)startxref", made[start:], re.DOTALL).groups()
    ends = re.findall(rb"^(\d{10}) \d{5} ([nf])", table, re.MULTILINE)
    offset = {i: int(at) for i, (at, kind) in enumerate(ends) if kind == b"n"}
    following = dict(
        zip(sorted(offset.values()), [*sorted(offset.values())[1:], start], strict=True)
    )
    objects = {}
    for number, at in offset.items():
        body = made[at : following[at]].partition(b" obj\n")[2]
        head, mark, stream = body.partition(b"\nstream\n")
        listed = lambda found: b"".join(sorted(found[0].splitlines(keepends=True)))
        objects[number] = _LIST.sub(listed, head), mark + stream
    places: dict[int, int] = {}
    waiting = [int(x) for x in _REFERENCE.findall(trailer)][::-1]
    while waiting:
        number = waiting.pop()
        if number not in places:
            places[number] = len(places) + 1
            waiting += [int(x) for x in _REFERENCE.findall(objects[number][0])][::-1]
    placed = lambda text: _REFERENCE.sub(lambda x: b"%d 0 R" % places[int(x[1])], text)
    out = made[: min(offset.values())]
    lines = [b"0000000000 65535 f \n"]
    for number, place in places.items():
        head, stream = objects[number]
        lines.append(b"%010d 00000 n \n" % len(out))
        out += b"%d 0 obj\n" % place + placed(head) + stream
    trailer = re.sub(rb"/Size \d+", b"/Size %d" % len(lines), placed(trailer))
    at = len(out)
    out += b"xref\n0 %d\n" % len(lines) + b"".join(lines)
    return out + trailer + b"startxref\n%d\n%%%%EOF" % at
