"""What runs the loop: one process or many, weights whole on each or spread over all, in which precision.

    replicated   one process, or DDP: each holds all weights
    fsdp2        weights, gradients and optimizer states spread over the processes, gathered block by block (torch's `fully_shard`)
    zero1..3     DeepSpeed (arXiv:1910.02054): optimizer states spread; gradients too; weights too

accelerate takes the choice from its launcher (`recipes/engines/*.yaml`). This file holds what the engines do differently, so that the
trainer does not ask which one it has. All give the numbers of one process, but for the order of addition.
"""

import importlib.util
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs, ProjectConfiguration
from torch import Tensor, nn
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor

from rsvl_data.errors import OptionError
from rsvl_pretrain.blocks import transformer_blocks
from rsvl_pretrain.model import DualEncoder

Precision = Literal["fp32", "amp_bf16"]


def make_accelerator(trackers: Sequence[str], out: Path, timeout_s: float) -> Accelerator:
    """`trackers` will write under `out`/tracking. A process that keeps the others waiting for `timeout_s` ends the run. Raises OptionError
    for an engine that was asked for and cannot run.

    accelerate is never told the precision: it would give FSDP2 and DeepSpeed weights in bf16, and `amp_bf16` would mean something
    else in each engine. `prepare` sees to it.
    """
    _check_environment()
    on_cpu, deepspeed = not torch.cuda.is_available(), _asked_for("DEEPSPEED")
    if on_cpu and deepspeed:
        _leave_out_compiled_exchange()
    # One microsecond more: accelerate drops a timeout that equals its own default, and gloo then takes torch's, which is longer.
    group = InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_s, microseconds=1))
    if on_cpu and deepspeed:
        group.backend = "gloo"
    accelerator = Accelerator(
        cpu=on_cpu
        and not deepspeed,  # without it accelerate does not see torchrun's other processes on a CPU; with it not DeepSpeed
        mixed_precision="no",
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "tracking")),
        kwargs_handlers=[group],
    )
    if on_cpu and _asked_for("FSDP"):  # accelerate takes FSDP up on GPUs alone
        _spread_on_cpu(accelerator)
    return accelerator


def engine_name(accelerator: Accelerator) -> str:
    """Which checkpoints go on in which run: those of equal name. DeepSpeed's also depend on the number of processes."""
    if is_deepspeed(accelerator):
        return f"zero{_zero_stage(accelerator)} on {accelerator.num_processes} processes"
    return "fsdp2" if accelerator.is_fsdp2 else "replicated"


def prepare(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    precision: Precision,
    grad_clip_norm: float | None,
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The objective to call and the optimizer to step, as the engine wraps them."""
    if precision == "amp_bf16":
        objective.forward = torch.autocast(accelerator.device.type, dtype=torch.bfloat16)(objective.forward)
    if is_wrapped(accelerator):
        _give_scalars_a_dimension(objective)
    if accelerator.is_fsdp2:
        _plan_fsdp2(accelerator, objective)
    elif is_deepspeed(accelerator):
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        config["gradient_clipping"] = grad_clip_norm or 0.0
        config["train_micro_batch_size_per_gpu"] = 1  # must be there; only DeepSpeed's own log would say it
        config.setdefault("zero_force_ds_cpu_optimizer", False)  # torch's fused AdamW: as fast on a CPU, and needs no compiler
    model, wrapped = accelerator.prepare(objective, optimizer)
    return model, wrapped


def after_loading(accelerator: Accelerator, model: Any) -> None:
    """Brings a model whose checkpoint was loaded to where a fresh one is.

    ZeRO-3 gathers what a module owns when it is called, and notices in the first step which weights are used outside of their module
    (logit scale, output of an attention). It notices those that are not gathered at that time alone, and loading leaves the small ones
    gathered: once an evaluation or a checkpoint takes them apart, its plan of the step would be wrong.
    """
    if is_deepspeed(accelerator) and _zero_stage(accelerator) == 3:
        model.empty_partition_cache()


def backward(accelerator: Accelerator, model: Any, loss: Tensor) -> None:
    """`accelerator.backward`, which under DeepSpeed would change the weights before their gradient was looked at."""
    if is_deepspeed(accelerator):
        model.backward(loss)
    else:
        accelerator.backward(loss)


@contextmanager
def accumulating(accelerator: Accelerator, model: Any, *, is_last: bool) -> Iterator[None]:
    """Around the forward and backward pass of one of several pieces of a step: gradients are exchanged after the last."""
    if is_deepspeed(accelerator):
        model.set_gradient_accumulation_boundary(is_last)
        yield
    else:
        with nullcontext() if is_last else accelerator.no_sync(model):
            yield


def step(accelerator: Accelerator, model: Any, optimizer: torch.optim.Optimizer, grad_clip_norm: float | None) -> float:
    """Clip, change the weights, forget the gradients; the norm of the gradients before clipping.

    A norm that is not finite leaves the weights as they were. DeepSpeed clips to what `prepare` was told.
    """
    if is_deepspeed(accelerator):
        model.step()
        return float(model.get_global_grad_norm())
    norm: Any = accelerator.clip_grad_norm_(model.parameters(), grad_clip_norm or math.inf)
    norm = _gathered(norm).item()
    if math.isfinite(norm):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norm


@torch.no_grad()
def clamp(accelerator: Accelerator, parameter: nn.Parameter, low: float, high: float) -> float:
    """Bring a parameter of one number into a range, in the weights and in DeepSpeed's copy; the number."""
    if not is_deepspeed(accelerator):
        return _gathered(parameter.clamp_(low, high)).item()
    from deepspeed import utils, zero

    with zero.GatheredParameters([parameter], modifier_rank=0, enabled=_zero_stage(accelerator) == 3):
        parameter.data.clamp_(low, high)
        value = parameter.item()
    if parameter.requires_grad and _zero_stage(accelerator) == 3:
        utils.safe_set_local_fp32_param(parameter, utils.safe_get_local_fp32_param(parameter).clamp(low, high))
    elif parameter.requires_grad:
        utils.safe_set_full_fp32_param(parameter, parameter.data)
    return value


@torch.no_grad()
def full_state_dict(accelerator: Accelerator, model: nn.Module) -> dict[str, Tensor]:
    """All weights of a model from `prepare`, or of a part of it, on every process; names and shapes as without an engine.

    Every process must call it. Where weights are spread it holds copies on the CPU, gathered one at a time.
    """
    module = accelerator.unwrap_model(model)
    weights = {name: _whole(accelerator, tensor) for name, tensor in module.state_dict(keep_vars=True).items()}
    for prefix, part in module.named_modules():
        for name in getattr(part, _SCALARS, ()):
            full_name = f"{prefix}.{name}" if prefix else name
            weights[full_name] = weights[full_name].reshape(())
    return weights


def whole_spare(accelerator: Accelerator, encoder: DualEncoder) -> DualEncoder | None:
    """Before `prepare`: a second encoder, on the CPU, where an engine will change the first; None where it stays as it is."""
    return deepcopy(encoder).cpu() if is_wrapped(accelerator) else None


@contextmanager
def whole_encoder(accelerator: Accelerator, encoder: DualEncoder, spare: DualEncoder | None) -> Iterator[DualEncoder]:
    """The encoder in training with all of its weights on this process, to evaluate or to export; every process must enter.

    It is `encoder` itself, or `spare` filled with its weights and, while inside, on the device.
    """
    if spare is None:
        yield encoder
        return
    spare.load_state_dict(full_state_dict(accelerator, encoder))
    spare.to(accelerator.device)
    try:
        yield spare
    finally:
        spare.cpu()


def _whole(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    tensor = tensor.detach() if not hasattr(tensor, "ds_id") else tensor
    if isinstance(tensor, DTensor):
        return _gathered(tensor.to(accelerator.device)).cpu()
    if hasattr(tensor, "ds_id"):
        from deepspeed import zero

        with zero.GatheredParameters([tensor]):
            return tensor.detach().cpu().clone()
    return tensor


def _gathered(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


_SCALARS = "_scalar_parameters"


def _give_scalars_a_dimension(model: nn.Module) -> None:
    """Logit scale and bias: neither `fully_shard` nor DeepSpeed (0.19) takes parameters of shape (); in training they have shape (1,)."""
    for module in model.modules():
        names = [name for name, parameter in module.named_parameters(recurse=False) if parameter.ndim == 0]
        for name in names:
            parameter = module.get_parameter(name)
            parameter.data = parameter.data.reshape(1)
        if names:
            setattr(module, _SCALARS, names)


# --- what the launcher said -----------------------------------------------------------------------------------------------


def deepspeed_asked_for() -> bool:
    """Whether the launcher chose DeepSpeed, before there is an accelerator."""
    return _asked_for("DEEPSPEED")


def _asked_for(engine: Literal["FSDP", "DEEPSPEED"]) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true"


def _check_environment() -> None:
    said = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if said != "no":
        raise OptionError(f"accelerate was told mixed_precision {said}; leave it out there and say it here: --train.precision")
    if int(os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")) != 1:
        raise OptionError(
            "accelerate's gradient_accumulation_steps would lose negatives; leave it at 1 and give --train.accum-freq"
        )
    if (_asked_for("FSDP") or _asked_for("DEEPSPEED")) and "LOCAL_RANK" not in os.environ:
        raise OptionError(
            "FSDP2 and DeepSpeed need their processes started: `accelerate launch --config_file recipes/engines/...`"
        )
    if _asked_for("FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        raise OptionError("FSDP of version 1 is not supported: set fsdp_version: 2, as recipes/engines/fsdp2.yaml does")
    if _asked_for("DEEPSPEED") and importlib.util.find_spec("deepspeed") is None:
        raise OptionError("DeepSpeed is not installed: pip install 'rsvl[deepspeed]'")


def is_deepspeed(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.DEEPSPEED


def is_wrapped(accelerator: Accelerator) -> bool:
    """Whether an engine changes the model it is given: FSDP2 and DeepSpeed."""
    return accelerator.is_fsdp2 or is_deepspeed(accelerator)


def _zero_stage(accelerator: Accelerator) -> int:
    return accelerator.state.deepspeed_plugin.zero_stage


def _leave_out_compiled_exchange() -> None:
    """On a CPU DeepSpeed would compile its own exchange first: minutes, and a killed build makes the next one wait for ever."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _spread_on_cpu(accelerator: Accelerator) -> None:
    PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()


def _plan_fsdp2(accelerator: Accelerator, objective: nn.Module) -> None:
    """Each transformer block a unit of its own, unless the launcher named classes; the rest together."""
    plugin: Any = accelerator.state.fsdp_plugin
    if plugin.auto_wrap_policy is transformer_auto_wrap_policy and not plugin.transformer_cls_names_to_wrap:
        plugin.transformer_cls_names_to_wrap = sorted({type(block).__name__ for block in transformer_blocks(objective)})
