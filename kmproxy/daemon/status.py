"""The facts of the status page, read from the daemon's objects for each request."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kmproxy import __version__
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.namespaces import NamespaceWatcher
from kmproxy.scrape.status_page import Status, status_page
from kmproxy.sources.kubelet import Kubelet
from kmproxy.web.health import Readiness


@dataclass(frozen=True, slots=True, eq=False)
class StatusSource:
    """The objects whose state the status page shows."""

    watcher: NamespaceWatcher
    readiness: Readiness
    labels: LabelMap
    kubelet: Kubelet
    on_conflict: str

    def page(self, paths: list[str]) -> str:
        """The status page as HTML. `paths` are the served paths."""
        age = self.watcher.sync_age
        return status_page(
            Status(
                version=__version__,
                ready=self.readiness.problem() is None,
                trouble=self.watcher.trouble,
                namespaces=len(self.labels),
                sync_age=age if math.isfinite(age) else None,
                restored=self.watcher.restored,
                rules=self.labels.rules,
                on_conflict=self.on_conflict,
                paths=paths,
                source=self.kubelet.source,
            )
        )
