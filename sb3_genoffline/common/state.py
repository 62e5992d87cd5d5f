"""What an algorithm learns, declared once: networks, optimizers, variables. Saving, resuming and restarting follow from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch as th
from torch import Tensor, nn

from sb3_genoffline.common.optimizers import load_optimizer, make_optimizer, trial_state, usual_options
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short


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


@dataclass(frozen=True)
class OptimizerPlan:
    """
    How an optimizer is made.

    :param cls: its class
    :param parameters: moved by it
    :param learning_rate: before the first step; each step brings its own
    :param options: gives its further options from the agent's hyper-parameters as they are now
    """

    cls: type[th.optim.Optimizer]
    parameters: list[Tensor]
    learning_rate: float
    options: Callable[[Any], dict[str, Any]]

    def all_options(self, agent: Any) -> dict[str, Any]:
        """Those of the agent, and :func:`~sb3_genoffline.common.optimizers.usual_options`."""
        return usual_options(self.cls, self.parameters[0].device, self.options(agent))

    def make(self, agent: Any) -> th.optim.Optimizer:
        """:raises UserError: for options that the class does not take"""
        own = self.options(agent)
        if not own:
            return make_optimizer(self.cls, self.parameters, self.learning_rate)
        try:
            optimizer = make_optimizer(self.cls, self.parameters, self.learning_rate, **own)
            trial_state(optimizer)
            return optimizer
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"optimizer_kwargs: {self.cls.__name__} does not take {short(own)}: {reason}.") from error


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
        self.variables: dict[str, Variable] = {}
        self.plans: dict[str, OptimizerPlan] = {}
        """How the optimizers are made, by the names of what they move."""
        self._optimizers: dict[str, th.optim.Optimizer] = {}

    def add_optimizer(
        self,
        name: str,
        parameters: list[Tensor],
        cls: type[th.optim.Optimizer],
        learning_rate: float,
        options: Callable[[Any], dict[str, Any]],
    ) -> None:
        """
        It is made when it is first asked for, as with its first optimizer torch imports a compiler, which takes seconds and
        which acting can do without. It takes the place of an earlier one of the same name.

        :param name: of what it moves
        :param parameters: moved by it
        :param cls: optimizer class
        :param learning_rate: before the first step; each step brings its own
        :param options: gives its further options from the agent's hyper-parameters as they are now
        :raises UserError: if there are no parameters
        """
        if not parameters:
            raise UserError(f"The optimizer {name!r} has no parameters to move.")
        self.plans[name] = OptimizerPlan(cls, parameters, learning_rate, options)
        self._optimizers.pop(name, None)

    def optimizer(self, name: str) -> th.optim.Optimizer:
        """An optimizer, made now if it was not yet."""
        if name not in self._optimizers:
            self._optimizers[name] = self.plans[name].make(self.agent)
        return self._optimizers[name]

    @property
    def optimizers(self) -> dict[str, th.optim.Optimizer]:
        """All of them, made."""
        return {name: self.optimizer(name) for name in self.plans}

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
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group.update(self.plans[name].options(self.agent))

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
        :param changed: hyper-parameters that were changed; their variables start from them, and with ``"optimizers"`` those
        """
        declared: dict[str, Mapping[str, Any]] = {
            "networks": self.networks,
            "optimizers": self.plans,
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
            load_optimizer(optimizer, state["optimizers"][name])
        for name, variable in self.variables.items():
            if variable.argument is None or variable.argument not in changed:
                variable.tensor.data.copy_(state["variables"][name])
