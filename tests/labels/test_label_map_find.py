"""Look-ups that tell an unknown namespace from one without labels."""

from kmproxy.config.label_rules import LabelRule
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import RETENTION, LabelMap


def test_find():
    """An unknown namespace is None; one without labels has the defaults; a deleted one stays."""
    labels = LabelMap([LabelRule("label", "team", "team", "none")])
    assert labels.find(b"web") is None
    assert labels.unknown == labels.lookup(b"web") == b',team="none"'
    labels.put(ObjectMeta("web"))
    assert labels.find(b"web") == b',team="none"'
    labels.delete("web", 0.0)
    assert labels.find(b"web") == b',team="none"'
    labels.expire(RETENTION)
    assert labels.find(b"web") is None
