"""kmproxy: namespace labels on every kubelet sample."""

__version__ = "0.1.0"
