"""The look-up of a pod's labels, as the engine uses it.

Knows what a look-up returns and raises. Must not know where the pods come from.
"""

from __future__ import annotations

from collections.abc import Callable

PodLookup = Callable[[bytes, bytes], bytes | None]
"""Maps a namespace and a pod, both unescaped and not empty, to the pairs to add.

The pairs, such as `,workload="web"`, stand right after the `pod` pair. `b""` adds none. None
stands for a pod that is not known: its sample is left out. The look-up may raise PodsNeededError.
"""


class PodsNeededError(Exception):
    """The list of pods must be fetched first.

    Nothing was lost, and nothing was counted. After the list was fetched the caller calls
    `Pipeline.feed` with no bytes, or `Pipeline.finish` again. A look-up raises it only while no
    list was fetched that was asked for after the exposition began.
    """
