"""Names that Kubernetes accepts, and text that cannot leave the line or the template it is put in."""

from __future__ import annotations

import hashlib
import re

_LABEL = 63


def dns_name(text: str, limit: int = 40) -> str:
    """Return an RFC 1035 label made of ``text``: lower-case letters, digits and hyphens, a letter first.

    What had to be cut short, or leaves no letter or digit, gets eight digits of its hash, so that two names stay two.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if plain and not plain[0].isalpha():
        plain = f"m-{plain}"
    if plain and len(plain) <= limit:
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: limit - 9].strip('-') or 'm'}-{digest}"


def model_name(model: str) -> str:
    """Return a label for a model id or path: what follows its last slash."""
    return dns_name(model.rstrip("/").rpartition("/")[2] or model)


def label_value(text: str) -> str:
    """Return ``text`` as the value of a Kubernetes label: 63 letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_LABEL].strip("-._")


def one_line(text: str) -> str:
    """Return printable text without line breaks, for comments."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def kubernetes_literal(text: str) -> str:
    """Escape ``$(NAME)``, which Kubernetes expands in arguments and environment values."""
    return text.replace("$(", "$$(")


def helm_literal(text: str) -> str:
    """Escape braces that Helm would take for a template."""
    return re.sub(r"\{\{|\}\}", lambda found: "{{" + f'"{found[0]}"' + "}}", text)
