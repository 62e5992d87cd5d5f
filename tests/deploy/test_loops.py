"""Loops in a file: a step is translated once, with its gradients, and made as often as it is to be."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch as th
from torch import Tensor, nn

from sb3_genoffline.deploy import onnx_file
from sb3_genoffline.deploy.loops import RecordedLoops
from sb3_genoffline.nets.loops import loops_made_by, repeated


class Climbing(nn.Module):
    """Goes uphill in a network of convolutions, in two loops of steps of different lengths, never far from where it began."""

    memory: ClassVar[dict[str, tuple[int, ...]]] = {}
    results = ("action",)

    def __init__(self, n_steps: int, width: int) -> None:
        super().__init__()
        self.policy = SimpleNamespace(obs_mean=th.zeros(width))
        self.n_steps = n_steps
        self.narrow, self.widen = nn.Conv1d(1, 4, 3, stride=2, padding=1), nn.ConvTranspose1d(4, 2, 4, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 4)

    def height(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, W) -> (B,)"""
        found = nn.functional.mish(self.norm(self.narrow(x.unsqueeze(1)))) + t.expand(x.shape[0]).view(-1, 1, 1)
        return self.widen(found).sin().sum((1, 2))

    def step(self, x: Tensor, home: Tensor, t: Tensor, length: Tensor) -> Tensor:
        with th.enable_grad():
            x = x.detach().requires_grad_()
            (uphill,) = th.autograd.grad(self.height(x, t).sum(), x)
        return (0.9 * (x.detach() + length * uphill) + 0.1 * home).transpose(0, 1).contiguous().transpose(0, 1)

    def forward(self, observations: list[Tensor], memory: list[Tensor], numbers: list[Tensor]) -> tuple[Tensor, ...]:
        home = observations[0]
        of_steps = [th.arange(self.n_steps), th.linspace(0.5, 0.1, self.n_steps)]
        start = 0.1 * self.height(home, of_steps[0][0]).unsqueeze(1) + home  # the operations of a step, outside of the loops
        there = repeated(self.step, start, [home], of_steps)
        return (repeated(self.step, there, [home], [part.flip(0) for part in of_steps]),)


N_STEPS = 40


@pytest.fixture(scope="module")
def climbing() -> tuple[Climbing, bytes]:
    """97 rows are the exporter's own example, so a batch of 97 has both axes of one length."""
    th.manual_seed(0)
    module = Climbing(N_STEPS, width=97)
    model = onnx_file._translated(module, {"observation": (len(module.policy.obs_mean),)}, [])  # type: ignore[arg-type]
    return module, onnx_ir.to_proto(model).SerializeToString()


def test_a_loop_of_gradients_is_one_operation_of_the_file(climbing: tuple[Climbing, bytes]) -> None:
    module, content = climbing
    session = onnxruntime.InferenceSession(content)
    for batch in (1, 2, 97):
        home = np.random.default_rng(batch).normal(size=(batch, 97)).astype(np.float32)
        with th.no_grad():
            expected = module([th.as_tensor(home)], [], [])[0]
        assert not np.allclose(expected, home, atol=0.1)
        np.testing.assert_allclose(session.run(["action"], {"observation": home})[0], expected, rtol=0, atol=1e-5)


def test_a_file_holds_a_step_once_however_often_it_is_made_and_each_weight_once(climbing: tuple[Climbing, bytes]) -> None:
    content = climbing[1]
    assert b"pkg." not in content  # what the exporter notes
    model = onnx_ir.from_proto(onnx.load_from_string(content))
    assert sum(len(graph) for graph in model.graphs()) < 2 * 10 * N_STEPS  # a step alone has 89 operations
    names = [name for graph in model.graphs() for name in graph.initializers]
    weights = [tuple(value.shape) for graph in model.graphs() for value in graph.initializers.values()]
    assert len(set(names)) == len(names) and [weights.count(shape) for shape in [(4, 1, 3), (4, 2, 4)]] == [1, 1]
    assert [node.op_type for node in model.graph].count("Scan") == 2 and all(not node.domain for node in model.graph)


def test_without_a_recorder_it_is_a_loop_of_python_and_a_recorder_is_gone_afterwards() -> None:
    def step(x: Tensor, c: Tensor, k: Tensor) -> Tensor:
        return x * k + c

    arguments = (step, th.ones(2), [th.tensor([0.5, 1.0])], [th.tensor([2.0, 3.0])])
    assert repeated(*arguments).tolist() == [3 * (2 + 0.5) + 0.5, 3 * (2 + 1.0) + 1.0]
    with pytest.raises(ZeroDivisionError), loops_made_by(lambda *_: th.zeros(1)):
        assert repeated(*arguments).tolist() == [0.0]
        raise ZeroDivisionError
    assert repeated(*arguments).tolist() == [8.0, 10.0]
    assert RecordedLoops().put_into(object(), lambda *_: None) is None  # a model without loops stays as it is
