"""What the library's data have in common: they compare, hash and print by their fields.

The data are frozen dataclasses. A dataclass writes these methods anew for each class, as source text that Python then
compiles; with some thirty classes that is a good part of the time that importing the package takes. So they are
written once, here, and the classes are declared with `@dataclass(frozen=True, eq=False, repr=False)`.
"""

from __future__ import annotations


class Data:
    """Base of frozen dataclasses whose instances keep their fields, all of them and nothing else, in `__dict__`."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__qualname__}({told})"
