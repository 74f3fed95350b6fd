"""``training_method`` to class. Importing this imports no torch: the checks of a manifest read a method's facts.

A new method of ladder's own is one new file here and a line in ``ladder.manifest.installed.OWN``; one of another
package is a subclass of ``Method`` that it declares in the entry point group ``ladder.methods`` (docs/extending.md).
"""

from __future__ import annotations

from ladder.errors import ManifestError
from ladder.manifest import Manifest, installed
from ladder.methods.base import GoldMethod, Method

METHODS: dict[str, type[Method]] = {
    name: installed.load(installed.METHODS, name, name) for name in installed.OWN[installed.METHODS]
}
"""Ladder's own, by the manifest's word."""


def method_of(manifest: Manifest) -> Method:
    """The method that an effective manifest names.

    Raises:
        ManifestError: it is a plug-in's that is not installed now, or no method.
    """
    name, where = manifest.evolution_request.training_method, "evolution_request.training_method"
    found = METHODS.get(name) or installed.load(installed.METHODS, name, where)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ManifestError(f"{name!r} is {found!r:.80}, expected a subclass of ladder.methods.Method", where=where)
    return found(manifest)


__all__ = ["METHODS", "GoldMethod", "Method", "method_of"]
