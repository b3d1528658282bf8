"""The end of a log: what is read of a pod that is gone, and what is counted if nobody can know."""

import pytest

from kmproxy.logs.positions import FilePosition, Point
from tests.support.log_site import Site, line

STAMP = "20261130-030910"
HERE = FilePosition(0, Point("", 500, 29, 7))


def leave(site, *, latest=0):
    """Take the pod off the list."""
    site.reader.observe(latest, site.now, is_ended=True, is_deleted=True)


def read(site):
    """All was read, and the container runs."""
    assert site.read(5.0) == [b"x"]


def ended(site):
    """It was read after the status had shown its end."""
    read(site)
    site.reader.observe(0, site.now, is_ended=True, is_final=True)
    site.read(0.3)


def over(site):
    """It was read to its end. Another instance may follow."""
    read(site)
    site.reader.observe(0, site.now, is_ended=True)
    site.read(5.0)


def over_for_ever(site):
    """It was read to its end, and none follows."""
    ended(site)
    site.read(5.0)


def half_read(site):
    """More bytes are there than were read."""
    while not site.ask(room=len(line(1))):
        pass
    assert site.reader.lag


def rotated(site):
    """The file was renamed, and nobody has seen the next one."""
    read(site)
    site.files[f"0.log.{STAMP}"] = site.files.pop("0.log")
    site.files["0.log"] = line(2) + line(3)
    while site.names[-1] != "":
        site.ask()
        site.now += 0.1


def renamed(site):
    """The file was renamed and read, and there is no other one yet."""
    read(site)
    site.files[f"0.log.{STAMP}"] = site.files.pop("0.log")
    site.read(5.0)


def followed(site):
    """The same, and another one was seen, but not read."""
    renamed(site)
    site.files["0.log"] = line(2)
    site.asked.clear()
    while "" not in site.names:
        site.ask()
        site.now += 0.1


def begun_anew(site):
    """The next instance runs, and nobody has read it."""
    over(site)
    site.reader.observe(1, site.now, is_ended=False)


def nothing(site):
    """Nobody has looked."""


@pytest.mark.parametrize(
    ("before", "lost"),
    [
        (read, {"unseen": 1}), (ended, {}), (over, {"unseen": 1}), (over_for_ever, {}),
        (half_read, {"deleted": 1}), (rotated, {"deleted": 1}), (renamed, {"unseen": 1}),
        (followed, {"deleted": 1}), (begun_anew, {"deleted": 1}), (nothing, {"deleted": 1}),
    ],
)  # fmt: skip
def test_the_folder_of_a_deleted_pod(before, lost):
    """If it is gone, it counts as `deleted` only if something is known that was not read."""
    site = Site({"0.log": line(1) + (line(2) if before is half_read else b"")})
    before(site)
    site.files.clear()
    leave(site, latest=before is begun_anew)
    site.read(10.0)
    assert site.reader.finished
    assert site.tally.lost == lost


@pytest.mark.parametrize("is_behind", [False, True])
def test_a_pod_that_went_while_nobody_read(is_behind):
    """A new process finds nothing: the saved state tells which of the two it is."""
    site = Site({}, HERE, is_behind=is_behind)
    leave(site)
    site.read(10.0)
    assert site.reader.finished
    assert site.tally.lost == {"deleted" if is_behind else "unseen": 1}


def test_a_container_that_runs_on():
    """As after a deletion by force. It is read until nothing comes for half a minute."""
    site = Site({"0.log": line(1)})
    read(site)
    leave(site)
    for number in range(2, 6):
        site.read(20.0)
        site.files["0.log"] += line(number, b"late")
    assert site.read(25.0) == [b"late"]
    assert not site.reader.finished
    site.read(10.0)
    assert site.reader.finished
    assert site.tally.lost == {}


def test_a_container_that_may_run_on_is_seldom_looked_at():
    """After two seconds the files are as good as those of one that runs."""
    site = Site({"0.log": line(1)})
    read(site)
    leave(site)
    site.asked.clear()
    site.read(2.0)
    assert len(site.asked) >= 8
    site.asked.clear()
    site.read(25.0)
    assert len(site.asked) <= 10
    assert not site.reader.finished


def test_a_container_whose_end_was_shown():
    """Its pod is gone, too: there is nothing to wait for."""
    site = Site({"0.log": line(1)})
    read(site)
    site.reader.observe(0, site.now, is_ended=True)
    leave(site)
    site.read(3.0)
    assert site.reader.finished


def test_the_folder_of_a_container_that_ran_on():
    """It went some time after the last look, and the container may have written until then."""
    site = Site({"0.log": line(1)})
    read(site)
    leave(site)
    site.read(5.0)
    site.files["0.log"] += line(2, b"late")
    assert site.read(10.0) == [b"late"]
    site.files.clear()
    site.read(20.0)
    assert site.reader.finished
    assert site.tally.lost == {"unseen": 1}


@pytest.mark.parametrize("before", [read, ended, over])
def test_an_instance_that_no_status_has_shown(before):
    """It began after the last list with the pod. The folder has its file."""
    site = Site({"0.log": line(1)})
    before(site)
    site.files["1.log"] = line(2, b"two")
    site.files["2.log"] = line(3, b"three")
    found = []
    for _ in range(50):
        leave(site)  # with each list
        found += site.read(2.0)
    assert found == [b"two", b"three"]
    assert site.reader.finished
    assert site.tally.lost == {}


def test_a_pod_that_comes_back():
    """As after a restart of the kubelet: the file is read on, and the next instance after it."""
    site = Site({"0.log": line(1)})
    read(site)
    leave(site)
    site.read(29.0)
    site.files["0.log"] += line(2, b"two")
    site.files["1.log"] = line(3, b"three")
    site.reader.observe(1, site.now, is_ended=False)
    assert site.read(20.0) == [b"two", b"three"]
    assert not site.reader.finished
    assert site.tally.lost == {}


def test_a_static_pod_that_was_put_back():
    """It has the same UID, a new folder, and its instances begin anew."""
    site = Site({"3.log": line(1)}, FilePosition(3, Point()), is_behind=False)
    site.reader.observe(3, site.now, is_ended=False)
    read(site)
    site.files.clear()
    site.files["0.log"] = line(2, b"two")
    site.reader.observe(0, site.now, is_ended=False)
    assert site.read(20.0) == [b"two"]
    site.reader.acknowledge(site.lines[-1][1])
    assert site.reader.position.instance == 0
    assert site.tally.lost == {"unseen": 1}


def test_a_status_that_is_late():
    """After a restart of the kubelet it may show an older number. The file is still there."""
    site = Site({"3.log": line(1)}, FilePosition(3, Point()), is_behind=False)
    site.reader.observe(3, site.now, is_ended=False)
    read(site)
    site.reader.observe(2, site.now, is_ended=False)
    site.files["3.log"] += line(2, b"two")
    assert site.read(20.0) == [b"two"]
    site.files[f"3.log.{STAMP}"] = site.files.pop("3.log")
    site.reader.observe(3, site.now, is_ended=False)
    site.files["3.log"] = line(3, b"three")
    assert site.read(20.0) == [b"three"]
    assert site.tally.lost == {}


def test_a_status_that_is_late_while_there_is_no_file_to_write_to():
    """The file before is there, and is not read again."""
    site = Site({f"3.log.{STAMP}": line(1)}, FilePosition(3, Point(STAMP)), is_behind=False)
    site.reader.observe(2, site.now, is_ended=False)
    assert site.read(20.0) == []
    site.files["3.log"] = line(2, b"two")
    assert site.read(20.0) == [b"two"]
    assert site.tally.lost == {}
