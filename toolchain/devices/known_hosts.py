"""OpenSSH's known_hosts files, read as OpenSSH does.

Ours rather than paramiko's reader, which knows no wildcards, no revoked keys, and only one key of a
kind for each host. Keys that a certificate authority vouches for are not known here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from fnmatch import fnmatchcase


def known_keys(text: str, name: str) -> tuple[dict[str, str], set[str]]:
    """The keys that a known_hosts file lists for `name`: good ones (base64 → type) and revoked."""
    good: dict[str, str] = {}
    revoked: set[str] = set()
    for line in text.splitlines():
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#") or not _lists(fields[0], name):
            continue
        if marker == "@revoked":
            revoked.add(fields[2])
        elif not marker:
            good[fields[2]] = fields[1]
    return good, revoked


def _lists(hosts: str, name: str) -> bool:
    """Whether the first field of a known_hosts line, plain, with wildcards or hashed, means name"""
    if hosts.startswith("|1|"):
        _, _, salt, digest = hosts.split("|")
        mine = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(base64.b64decode(digest), mine)
    patterns = [pattern.replace("[", "[[]") for pattern in hosts.lower().split(",")]
    if any(fnmatchcase(name.lower(), p[1:]) for p in patterns if p.startswith("!")):
        return False
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)


def fingerprint(key: str) -> str:
    """Of a public key in base64, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
