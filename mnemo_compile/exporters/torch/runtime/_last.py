"""What the last step found, so that a step over the same tensors need not look again."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._step import Bucket, is_fake

_PLAIN = (torch.nn.Parameter, Tensor)
"""What others than these hold may change where no look at the tensor shows it."""


class LastStep:
    """The tensors of the last step, and the buckets that were made of them.

    It holds no gradient, and it holds parameters and state only as the optimizer does.

    **Arguments:**

    - `groups`: the parameter groups.
    - `state`: the state of parameters.
    - `slots`: keys of those arrays of a parameter's state of which buckets keep views.
    - `buckets`: the tensors of the step.
    - `places`: for each bucket, the places of its tensors among the parameters that have a gradient and coordinates.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        state: Mapping[Any, Mapping[str, Any]],
        slots: Iterable[str],
        buckets: Sequence[Bucket],
        places: Sequence[Sequence[int]],
    ):
        self.buckets = buckets
        self._groups = _signature(groups)
        self._params = _params(groups)
        self._aliases = [param.detach() for param in self._params]
        self._dtypes = [param.dtype for param in self._params]
        grads = [param.grad for param in self._params]
        self._grads = _description(grads)
        present = [number for number, grad in enumerate(grads) if grad is not None and grad.numel()]
        self._places = [[present[place] for place in own] for own in places]
        self._owners = [self._params[number] for number in present]
        self._states = [state[param] for param in self._owners]
        self._values = _values(self._states)
        self._arrays = [value[slot] for value in self._states for slot in slots if slot in value]
        self._addresses = [array.data_ptr() for array in self._arrays]

    @staticmethod
    def can_tell(groups: Iterable[Mapping[str, Any]]) -> bool:
        """Whether a look at these parameters shows all that may change."""
        return not is_fake() and all(type(param) in _PLAIN for group in groups for param in group["params"])

    def receive_gradients(self, groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Mapping[str, Any]]) -> bool:
        """Gives the buckets new gradients. Returns False if anything but their numbers is not as in the last step."""
        params = _params(groups)
        if _signature(groups) != self._groups or not _are_same(params, self._params) or is_fake():
            return False
        grads = [param.grad for param in params]
        is_same = (
            _description(grads) == self._grads
            and all(map(Tensor.is_set_to, params, self._aliases))
            and [param.dtype for param in params] == self._dtypes
        )
        if not is_same:
            return False
        states = list(map(state.get, self._owners))
        # An array may have got another place in memory under the same name.
        is_same = (
            _are_same(states, self._states)
            and _are_same(_values(self._states), self._values)
            and [array.data_ptr() for array in self._arrays] == self._addresses
        )
        if is_same:
            for bucket, places in zip(self.buckets, self._places, strict=True):
                bucket.receive_gradients([grads[place] for place in places])
        return is_same


def _params(groups: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [param for group in groups for param in group["params"]]


def _signature(groups: Iterable[Mapping[str, Any]]) -> list[Any]:
    """What the plan of a step knows of the groups."""
    return [(len(group["params"]), group["role"], [*(group.get("param_names") or ())]) for group in groups]


def _description(grads: Iterable[Any]) -> tuple[list[Any], ...]:
    """What a step knows of gradients beside their numbers."""
    layouts = [grad if grad is None else grad.layout for grad in grads]
    own = [grad for grad in grads if grad is not None and grad.layout is torch.strided]
    # torch sees to it that a gradient has the shape of its parameter.
    return layouts, list(map(Tensor.stride, own)), [grad.dtype for grad in own]


def _values(states: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [value for state in states for value in state.values()]


def _are_same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    """Whether these are the very same objects."""
    return len(left) == len(right) and all(map(operator.is_, left, right))
