"""The index of a folder: only names of log files are believed."""

from kmproxy.logs.listing import Listing, Rotated


def index(*names):
    """A folder's index as Go's file server writes it."""
    links = "".join(f'<a href="{name}">{name}</a>\n' for name in names)
    return f'<!doctype html>\n<meta name="viewport">\n<pre>\n{links}</pre>\n'.encode()


def test_names():
    """Instances in the order of their numbers, files in the order of their times."""
    listing = Listing(
        index(
            "10.log",
            "2.log",
            "2.log.20261130-030910",
            "2.log.20261130-030810.gz",
            "9.log.20261130-000000",
        )
    )
    assert listing.instances == [2, 9, 10]
    assert [listing.has_current(each) for each in (2, 9, 10, 11)] == [True, False, True, False]
    assert listing.rotated(2) == [
        Rotated("20261130-030810", is_packed=True), Rotated("20261130-030910", is_packed=False),
    ]  # fmt: skip
    assert listing.rotated(2)[0].name(2) == "2.log.20261130-030810.gz"
    assert listing.rotated(11) == []
    assert listing.has_rotated(2, "20261130-030810")
    assert not listing.has_rotated(2, "")


def test_a_file_that_is_being_packed_is_read_plain():
    """While both are there."""
    both = ["0.log.20261130-030810", "0.log.20261130-030810.gz"]
    for names in (both, both[::-1]):
        assert Listing(index(*names)).rotated(0) == [Rotated("20261130-030810", is_packed=False)]


def test_other_names():
    """A link elsewhere, an unfinished file, a name that only looks like one: all are nothing."""
    odd = ["../0.log", "/0.log", "0.log/", "0.log.tmp", "0.log.20261130-030810.tmp", "x0.log", "0.log.20261130-030810.gz.gz",
           "-1.log", "00000000000000001.log", "0.log?x=1", "0.log#x", "%30.log", "0.log.20261130", "http://other/0.log"]  # fmt: skip
    listing = Listing(index(*odd))
    assert listing.instances == []
    assert Listing(b"\xff<a href=").instances == []


def test_an_endless_index():
    """At most 10,000 names are looked at."""
    assert len(Listing(index(*(f"{number}.log" for number in range(20_000)))).instances) == 10_000
