"""Lists and dicts that nobody edits: what an agent was given, and what its fitted model was fitted with."""

from collections.abc import Mapping
from typing import Any, Never

import yaml

from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short


def frozen(value: Any) -> Any:
    """
    :param value: anything
    :return: the same; of dicts, lists and tuples a copy that can't be edited in place
    """
    if isinstance(value, Mapping):
        return FrozenDict({key: frozen(item) for key, item in value.items()})
    if type(value) is tuple:
        return tuple(map(frozen, value))
    return FrozenList(map(frozen, value)) if isinstance(value, list) else value


def _refuse(self: Any, *_: Any, **__: Any) -> Never:
    raise UserError(
        f"{short(self)} can't be edited in place, because what depends on it would not change: set the argument itself, "
        "`model.name = value`, or make a new agent."
    )


class FrozenList(list[Any]):
    """Equal to a list, and read as one."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = remove = pop = clear = sort = reverse = _refuse

    def __reduce_ex__(self, protocol: Any) -> Any:
        return FrozenList, (list(self),)


class FrozenDict(dict[Any, Any]):
    """Equal to a dict, and read as one."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = clear = setdefault = _refuse

    def __reduce_ex__(self, protocol: Any) -> Any:
        return FrozenDict, (dict(self),)


for _name in ("SafeDumper", "Dumper", "CSafeDumper", "CDumper"):  # YAML asks for the very class
    if (_dumper := getattr(yaml, _name, None)) is not None:
        _dumper.add_representer(FrozenList, _dumper.represent_list)
        _dumper.add_representer(FrozenDict, _dumper.represent_dict)
