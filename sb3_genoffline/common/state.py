"""What an algorithm learns, declared once: networks, optimizers, variables. Saving, resuming and restarting follow from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

_FUSED = (th.optim.Adam, th.optim.AdamW, th.optim.SGD, th.optim.Adagrad)


@dataclass(frozen=True)
class Variable:
    """
    A tensor that training moves and that is not a network's.

    :param tensor: its value now
    :param start: gives the value that it starts from, of the agent
    :param argument: hyper-parameter that ``start`` reads; setting that one restarts the variable
    """

    tensor: Tensor
    start: Callable[[Any], Any]
    argument: str | None

    def restart(self, agent: Any) -> None:
        """Back to where it starts from."""
        self.tensor.data.copy_(th.as_tensor(self.start(agent), dtype=self.tensor.dtype))


class LearnerState:
    """
    The declarations of one algorithm.

    :param agent: the algorithm
    :param device: of the tensors
    :param dtype: of the variables
    """

    def __init__(self, agent: Any, device: th.device, dtype: th.dtype) -> None:
        self.agent, self.device, self.dtype = agent, device, dtype
        self.aliases: list[str] = []
        """Names of the policy's networks that the algorithm has too."""
        self.networks: dict[str, nn.Module] = {}
        """Networks that the policy does not have."""
        self.optimizers: dict[str, th.optim.Optimizer] = {}
        self.variables: dict[str, Variable] = {}
        self._options: dict[str, Callable[[Any], dict[str, Any]]] = {}

    def add_optimizer(
        self,
        name: str,
        parameters: list[Tensor],
        cls: type[th.optim.Optimizer],
        learning_rate: float,
        options: Callable[[Any], dict[str, Any]],
    ) -> th.optim.Optimizer:
        """
        :param name: of what it moves
        :param parameters: moved by it
        :param cls: optimizer class
        :param learning_rate: before the first step; each step brings its own
        :param options: gives its further options from the agent's hyper-parameters as they are now
        """
        own = options(self.agent)
        chosen = {"fused": True} | own if issubclass(cls, _FUSED) and not own.get("foreach") else own
        try:
            optimizer = cls(parameters, lr=learning_rate, **chosen)  # type: ignore[call-arg]
        except Exception as error:
            raise UserError(f"optimizer_kwargs: {cls.__name__} does not take {short(own)}: {error}.") from error
        self.optimizers[name], self._options[name] = optimizer, options
        return optimizer

    def add_variable(
        self, name: str, start: Callable[[Any], Any], argument: str | None = None, requires_grad: bool = False
    ) -> Tensor:
        """
        :param name: of it
        :param start: gives the value that it starts from, of the agent
        :param argument: hyper-parameter that ``start`` reads
        :param requires_grad: whether an optimizer moves it
        """
        tensor = th.as_tensor(start(self.agent), dtype=self.dtype).clone().to(self.device).requires_grad_(requires_grad)
        self.variables[name] = Variable(tensor, start, argument)
        return tensor

    def on_argument_set(self, argument: str) -> None:
        """Let variables and optimizers follow a hyper-parameter that was set."""
        for variable in self.variables.values():
            if variable.argument == argument:
                variable.restart(self.agent)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group.update(self._options[name](self.agent))

    def state_dict(self) -> dict[str, Any]:
        """All but the policy, for an exact resume."""
        return {
            "networks": {name: dict(network.state_dict()) for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "variables": {name: variable.tensor for name, variable in self.variables.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], changed: set[str]) -> None:
        """
        Inverse of :meth:`state_dict`.

        :param state: not trusted: names must be those that were declared
        :param changed: hyper-parameters that were given anew; their variables start from them, and with ``"optimizers"`` those
        """
        declared: dict[str, Mapping[str, Any]] = {
            "networks": self.networks,
            "optimizers": self.optimizers,
            "variables": self.variables,
        }
        for kind, own in declared.items():
            if state[kind].keys() != own.keys():
                raise UserError(f"it has the {kind} {short(sorted(state[kind]))}, and the agent {sorted(own)}")
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            if "optimizers" in changed:  # perhaps another class: what it has averaged starts anew
                continue
            optimizer.load_state_dict(state["optimizers"][name])
            for group in optimizer.param_groups:  # the options are the hyper-parameters', as they are now
                group.update(self._options[name](self.agent))
        for name, variable in self.variables.items():
            if variable.argument is None or variable.argument not in changed:
                variable.tensor.data.copy_(state["variables"][name])
