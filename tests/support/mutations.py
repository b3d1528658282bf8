"""Random lines of expositions, and lines changed at random."""

from __future__ import annotations

# Pieces that lines are made of at random: good ones, odd ones and bad ones.
NAMES = [b"m", b"a:b_total", b"_x9", b"m1", b"", b"1m", b"m-x", b"namespace"]


KEYS = [b"namespace", b"team", b"tier", b"a", b"exported_namespace", b"le", b'"namespace"', b'"team"',
        b'"x y"', b"a-b", b"", b"namespac"]  # fmt: skip


VALUES = [b"payments", b"web", b"", b"bare", b"x", b'o\\"dd', b"a,b", b"}", b'",namespace="web', b"\\\\",
          b"\\n", b"\\", b"# {", b"team=", b"\xff", b"\x00", b"\r", b"x\ny", b"\n"]  # fmt: skip


NUMBERS = [
    b"1",
    b"0",
    b"1.5e+07",
    b"+Inf",
    b"NaN",
    b"-.5",
    b"1.",
    b"x",
    b"",
    b"0x1",
    b"1e",
    b"1795208082328",
]


BLANKS = [b"", b"", b"", b" ", b"\t", b"  "]


ENDS = [b"\n", b"\n", b"\n", b"\r\n", b" \n", b"\n\n", b""]


TAILS = [b"", b"", b"", b' # {a="b"} 1', b' # {namespace="web"} 1 2', b" #", b" # {} 1", b" 5"]  # fmt: skip


def random_line(rng):
    """A line that is mostly a sample, and mostly almost right."""
    pick = rng.choice
    if rng.random() < 0.1:
        return pick(
            [b"# HELP m text\n", b"# EOF\n", b"\n", b"#", b"<html>\n", b'# {namespace="web"}\n']
        )
    if rng.random() < 0.5:  # as cAdvisor writes it
        good = b",".join(
            b'%b="%b"' % (pick(KEYS[:6]), pick(VALUES if rng.random() < 0.1 else VALUES[:5]))
            for _ in range(rng.randrange(5))
        )
        return b"m{%b} %b\n" % (good, pick(NUMBERS[:6]))
    pairs = [
        pick(BLANKS)
        + pick(KEYS)
        + pick(BLANKS)
        + b"="
        + pick(BLANKS)
        + b'"'
        + pick(VALUES)
        + b'"'
        + pick(BLANKS)
        for _ in range(rng.randrange(4))
    ]
    if rng.random() < 0.2:
        pairs.insert(0, b'"my.metric"')
    labels = b"{" + b",".join(pairs) + pick([b"", b"", b","]) + b"}" if rng.random() < 0.9 else b""
    stamp = b" " + pick(NUMBERS) if rng.random() < 0.5 else b""
    return (
        pick(BLANKS)
        + pick(NAMES)
        + pick(BLANKS)
        + labels
        + b" "
        + pick(NUMBERS)
        + stamp
        + pick(TAILS)
        + pick(ENDS)
    )


def mutate(text, rng):
    """Flip, drop, double or insert single bytes."""
    text = bytearray(text)
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(3):
            case 0:
                del text[at : at + 1]
            case 1:
                text[at:at] = bytes([rng.choice(b'{}="\\,# \t\n\rn0')])
            case _:
                text[at:at] = text[at : at + 1]
    return bytes(text)
