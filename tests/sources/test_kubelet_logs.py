"""The paths of log files that a kubelet is ever asked for."""

import pytest

from kmproxy.config.sections import KubeletConfig
from kmproxy.sources.kubelet import Kubelet


@pytest.mark.parametrize(
    "path",
    [
        *("/logs/", "/logs/syslog", "/exec/a/b/c", "/logs/pods/../syslog", "/logs/pods/a/.."),
        *("/logs/pods/a?b", "/logs/pods/a%2e", "/logs/pods/a b", "/logs/pods/a\r\nb", "logs/pods/"),
        *("/logs/pods/a#b", "/logs/pods/..", "/logs/pods/a\\b", "/logs/pods/ä"),
    ],
)
async def test_a_path_that_is_none(path):
    """Nothing beside the folder of pods' logs is asked for, and no other endpoint."""
    kubelet = Kubelet(KubeletConfig(), None)
    with pytest.raises(ValueError, match=r"logs|exec"):
        await kubelet.log(kubelet.configured, path)
