"""Certificates for tests: for servers and clients, of any number of authorities."""

from __future__ import annotations

import ssl

import bcrypt
import trustme
import yaml

HASHES = {
    name: bcrypt.hashpw(name.encode(), bcrypt.gensalt(4)).decode() for name in ("alice", "bob")
}
"""Users whose password is their name."""


class Authority:
    """A CA and its certificates."""

    def __init__(self):
        self.ca = trustme.CA()
        self.pem = self.ca.cert_pem.bytes()

    def write_pair(self, directory, name="tls", host="127.0.0.1", *, key=True, **options):
        """Writes a certificate and its key. Without `key` the present key stays."""
        leaf = self.ca.issue_cert(host, **options)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{name}.crt").write_bytes(b"".join(p.bytes() for p in leaf.cert_chain_pems))
        if key:
            (directory / f"{name}.key").write_bytes(leaf.private_key_pem.bytes())

    def client(self, issuer=None, *names):
        """A client's TLS context, with a certificate if an issuer is given."""
        context = ssl.create_default_context(cadata=self.pem.decode())
        if issuer is not None:
            issuer.ca.issue_cert(*(names or ("scraper.example",))).configure_cert(context)
        return context


def write_config(path, document):
    """Replaces a web config in one step, as a mounted file is replaced."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(yaml.safe_dump(document))
    fresh.replace(path)
    return path
