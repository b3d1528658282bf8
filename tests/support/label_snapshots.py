"""The label snapshot of a daemon: values that tests look for, and waiting for the file."""

from __future__ import annotations

from tests.conftest import until

NOW = 1_700_000_000.0
LINE = 'namespace="frontend-service2",team="{}"'
MOVED = b'["frontend-service2",{"team":"backend"}'
BACK = 60.0  # seconds: the API server is asked again after up to half of them


async def written(file, holds=b"", seconds=5.0):
    """Wait until the file is there, with these bytes in it."""

    async def there():
        return file.exists() and holds in file.read_bytes()

    await until(there, seconds)


async def loaded(proxy):
    """Whether scrapes are served."""
    return (await proxy.get())[0] == 200
