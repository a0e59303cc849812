"""How is a host on loopback trusted for a day? A key and a certificate of its own, made by openssl."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from khlone import process

_OPENSSL_S = 60.0
_CONFIG = """\
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = khlone loopback
[extensions]
basicConstraints = critical, CA:TRUE
subjectAltName = {names}
"""


def make_certificate(folder: Path, hosts: Sequence[str]) -> tuple[Path, ssl.SSLContext]:
    """The certificate of these hosts, for two days, and what a server answers with.

    The key stays in `folder` (0600). Raises CommandNotFound without openssl, OSError where it failed.
    """
    config, key, certificate = (folder / name for name in ("request.cnf", "key.pem", "certificate.pem"))
    config.write_text(_CONFIG.format(names=", ".join(f"DNS:{host}" for host in hosts)), encoding="utf-8")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-config", str(config)]
    os.close(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    done = process.run([*words, "-keyout", str(key), "-out", str(certificate)], timeout_s=_OPENSSL_S)
    if done.status != 0:
        raise OSError(f"openssl made no certificate: {done.stderr.decode(errors='replace').strip()[-200:]}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context
