"""What all networks of ours share: settings that stay what they were made with, and frozen copies."""

import copy
from collections import OrderedDict
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from sb3_genoffline.errors import UserError

_MOVES = ("training", "fitted_with")
_parameters: WeakKeyDictionary[nn.Module, list[Tensor]] = WeakKeyDictionary()
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def frozen_copy(network: ModuleT) -> ModuleT:
    """
    A copy that no optimizer moves: a target network, say.

    :param network: any module
    """
    # Each layer has a dozen empty dictionaries of hooks, with which deepcopy would spend most of its time
    empty = (
        value
        for module in network.modules()
        for value in vars(module).values()
        if type(value) in (dict, OrderedDict) and not value
    )
    return copy.deepcopy(network, {id(value): type(value)() for value in empty}).requires_grad_(False)


class Network(nn.Module):
    """A module whose weights move and whose settings do not, once a policy has it."""

    def settle(self) -> None:
        """From now on what the constructor has set stays: neither files nor the agent would know of another value."""
        settings = (name for name in self.__dict__ if not name.startswith("_") and name not in _MOVES)
        self.__dict__["_settled"] = frozenset(settings)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse another value of a setting that has settled."""
        if name in self.__dict__.get("_settled", ()):
            raise UserError(
                f"{name} can't be changed on the {type(self).__name__} of a live policy, which was made with "
                f"{self.__dict__[name]!r}: set the agent's argument, where it has one that can be set, or make a new agent."
            )
        super().__setattr__(name, value)


def parameters_of(network: nn.Module) -> list[Tensor]:
    """
    ``list(network.parameters())``, looked up once: to walk through the modules takes longer than to move small targets. A
    parameter must stay the same object, as an optimizer's must.

    :param network: whose modules are all made
    """
    if network not in _parameters:
        _parameters[network] = list(network.parameters())
    return _parameters[network]
