"""Conditions on versions, as they are typed: `task=denoise`, `psnr>=30`, `alias=champion`, `model.target=pixels`."""

from __future__ import annotations

import difflib
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pipelines.errors import RegistryError
from pipelines.registry.records import JOB, OWN_FIGURE, Version

_ORDERS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_TYPED = re.compile(r"(?P<key>[\w.-]+?)\s*(?P<sign>>=|<=|!=|=|>|<)\s*(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on a version.

    >>> Condition.parse("psnr >= 30")
    Condition(key='psnr', sign='>=', value='30')
    """

    key: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read what was typed.

        Raises:
            RegistryError: It is no condition; the message shows some.
        """
        if (typed := _TYPED.fullmatch(text.strip())) is None:
            msg = f"'{text}' is not a condition: write KEY=VALUE, such as task=denoise, 'psnr>=30' or name=tile*"
            raise RegistryError(msg)
        condition = cls(**typed.groupdict())
        if condition.sign in _ORDERS and _number(condition.value) is None:
            raise RegistryError(f"'{text}': {condition.sign} compares numbers, and '{condition.value}' is none")
        return condition

    def holds(self, facts: Mapping[str, Sequence[str]]) -> bool:
        """Whether it is so; a version that has nothing of that name is not what is looked for."""
        return any(self._fits(found) for found in facts.get(self.key, ()))

    def _fits(self, found: str) -> bool:
        if self.sign in _ORDERS:
            number, limit = _number(found), _number(self.value)
            return number is not None and limit is not None and _ORDERS[self.sign](number, limit)
        numbers = _number(found), _number(self.value)
        same = fnmatchcase(found, self.value) or (None not in numbers and numbers[0] == numbers[1])
        return same == (self.sign == "=")


def facts_of(version: Version) -> dict[str, tuple[str, ...]]:
    """What conditions can be on: names, figures (of this version, not of the champion it met), the job's keys, tags."""
    facts: dict[str, tuple[str, ...]] = {key: (value,) for key, value in version.tags.items() if key != JOB}
    facts |= {key: (str(value),) for key, value in job_of(version).items() if value is not None}
    facts |= {key.removeprefix(OWN_FIGURE): (repr(value),) for key, value in version.metrics.items()}
    return facts | {
        "name": (version.name,),
        "version": (str(version.version),),
        "alias": version.aliases or ("",),
        "created": (f"{version.created:%Y-%m-%d %H:%M}",),
        "sha256": (version.sha256,),
    }


def job_of(version: Version) -> dict[str, Any]:
    """The job that a version was trained by, as `table.key` and values; empty where it is not known."""
    try:
        job = json.loads(version.tags.get(JOB, "{}"))
    except ValueError:
        return {}
    return job if isinstance(job, dict) else {}


def matching(versions: Sequence[Version], conditions: Iterable[Condition]) -> Iterator[Version]:
    """Those that fulfil all conditions.

    Raises:
        RegistryError: No version has anything of a condition's name; the message tells names that are like it.
    """
    conditions = list(conditions)
    facts = [facts_of(version) for version in versions]
    known = {key for each in facts for key in each}
    for condition in conditions:
        if versions and condition.key not in known:
            close = difflib.get_close_matches(condition.key, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(sorted(known))}"
            raise RegistryError(f"no version has '{condition.key}'; {hint}")
    for version, each in zip(versions, facts, strict=True):
        if all(condition.holds(each) for condition in conditions):
            yield version


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
