"""What a teacher may be besides an ancestor: one file a kind, found by the manifest's word (``teachers.others``).

Importing this imports no torch: the checks of a manifest read a kind's facts. A new kind of another package is a
subclass of ``TeacherKind`` that it declares in the entry point group ``ladder.teachers`` (docs/teachers.md).
"""

from ladder.teachers.kinds.base import Material, Sparse, TeacherKind

__all__ = ["Material", "Sparse", "TeacherKind"]
