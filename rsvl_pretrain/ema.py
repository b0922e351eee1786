"""A running mean of the weights, which usually measures better than the weights themselves (Polyak averaging; EMA).

    average <- decay * average + (1 - decay) * weight      after every optimizer step

Kept in fp32 whatever the weights are in, beside them on their device: 4 bytes a trained parameter. Buffers (running statistics of a batch
norm) are not averaged. Everything is elementwise, so a sharded engine averages its local shards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rsvl_data.errors import DataError, OptionError


class WeightEma:
    """Of the parameters of `module` that are trained; begins as a copy of them.

    `decay` is what stays of the average in a step. With `warmup` it is never more than (1 + n) / (10 + n) after n steps, so that the
    first weights are soon forgotten (TensorFlow's `tf.train.ExponentialMovingAverage(num_updates=n)`).
    """

    def __init__(self, module: nn.Module, decay: float, *, warmup: bool = True):
        self.decay, self.warmup = decay, warmup
        self._trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        if any(hasattr(parameter, "ds_id") for parameter in self._trained.values()):
            raise OptionError("--train.ema-decay cannot see the weights that ZeRO stage 3 takes apart; use stage 2, or FSDP")
        self._averages = {name: local.float().clone() for name, local in self._local().items()}

    def decay_after(self, num_steps: int) -> float:
        return min(self.decay, (1 + num_steps) / (10 + num_steps)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, num_steps: int) -> None:
        """`num_steps` were averaged before this one."""
        weights = [weight.float() for weight in self._local().values()]
        get_ema_multi_avg_fn(self.decay_after(num_steps))(list(self._averages.values()), weights, num_steps)

    @torch.no_grad()
    def copy_to_weights(self) -> None:
        for weight, average in zip(self._local().values(), self._averages.values(), strict=True):
            weight.copy_(average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averages for weights inside, and its own again after."""
        own = [weight.clone() for weight in self._local().values()]
        self.copy_to_weights()
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, before in zip(self._local().values(), own, strict=True):
                    weight.copy_(before)

    def whole_tensors(self) -> dict[str, Tensor]:
        """On the CPU, put together from the shards of all processes: each of them must call."""
        return {name: _whole(average, self._trained[name]).cpu() for name, average in self._averages.items()}

    def load(self, path: Path) -> None:
        """What `whole_tensors` gave, saved as safetensors; the number of processes may have changed. Raises DataError if they differ."""
        saved = safetensors.torch.load_file(path)
        if {name: tensor.shape for name, tensor in saved.items()} != {name: p.shape for name, p in self._trained.items()}:
            raise DataError(f"{path} averages other parameters than are trained here. Use the same options or another --out.")
        for name, average in self._averages.items():
            average.copy_(_own_part(saved[name].to(average.device), self._trained[name]))

    def _local(self) -> dict[str, Tensor]:
        """What of each parameter lies on this process."""
        return {
            name: (parameter.to_local() if isinstance(parameter, DTensor) else parameter).detach()
            for name, parameter in self._trained.items()
        }


def _whole(local: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return local
    return DTensor.from_local(local, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()).full_tensor()


def _own_part(whole: Tensor, like: Tensor) -> Tensor:
    return distribute_tensor(whole, like.device_mesh, like.placements).to_local() if isinstance(like, DTensor) else whole
