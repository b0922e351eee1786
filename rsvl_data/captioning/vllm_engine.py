"""vLLM in this process, by `vllm.LLM.chat`: one process a machine or group of GPUs, no server to start.

vLLM pins its own torch, so it wants an environment of its own. Its `LLM` prepares the images of a batch before it generates; where that
gates the GPU, a `vllm serve` beside overlaps the two.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rsvl_data.captioning.engine import Answer, BatchThread, Failure, Reply, Request, user_message
from rsvl_data.errors import OptionError
from rsvl_data.sample import TextSource


@dataclass(frozen=True, kw_only=True)
class VllmModel:
    model: str
    """name on the Hugging Face Hub, or folder"""
    revision: str | None = None
    """commit of the Hub; left out, the newest"""
    dtype: str = "auto"
    """of the weights: auto, bfloat16, float16 or float32"""
    max_model_len: int | None = None
    """tokens of prompt, image and answer together; left out, what the model was made for"""
    tensor_parallel_size: int = 1
    """GPUs that share the model"""
    gpu_memory_utilization: float = 0.9
    """fraction of the GPU's memory that vLLM takes"""
    enforce_eager: bool = False
    """start sooner and run slower: no CUDA graphs"""
    batch_size: int = 256
    """requests handed to vLLM at once"""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.tensor_parallel_size < 1 or not 0 < self.gpu_memory_utilization <= 1:
            raise OptionError(
                "--batch-size and --tensor-parallel-size must be 1 or more, --gpu-memory-utilization above 0 and at most 1"
            )

    @property
    def source(self) -> TextSource:
        return TextSource(engine="vllm", model=self.model, revision=self.revision)

    @property
    def num_parallel(self) -> int:
        return self.batch_size

    def start(self) -> "RunningVllm":
        return RunningVllm(self)


class RunningVllm:
    def __init__(self, options: VllmModel):
        try:
            import vllm
        except ImportError as error:
            raise OptionError("the vllm engine needs vLLM: pip install 'rsvl[vllm]', in an environment of its own") from error
        try:
            from vllm.exceptions import VLLMClientError
        except ImportError:  # older releases raise ValueError alone
            VLLMClientError = ValueError
        self._vllm, self._refusals = vllm, (ValueError, VLLMClientError)
        self._llm = vllm.LLM(
            model=options.model,
            revision=options.revision,
            tokenizer_revision=options.revision,
            dtype=options.dtype,
            max_model_len=options.max_model_len,
            tensor_parallel_size=options.tensor_parallel_size,
            gpu_memory_utilization=options.gpu_memory_utilization,
            enforce_eager=options.enforce_eager,
            limit_mm_per_prompt={"image": 1},
        )
        self._thread = BatchThread(self._chat, options.batch_size)

    def submit(self, request: Request) -> Future[Reply]:
        return self._thread.submit(request)

    def close(self) -> None:
        self._thread.close()
        del self._llm  # ends vLLM's own process

    def _chat(self, requests: Sequence[Request]) -> list[Reply]:
        """vLLM raises for the whole batch where it refuses one request (a prompt that is too long): then one after the other."""
        try:
            outputs = self._llm.chat(
                [user_message(request) for request in requests], [self._params(request) for request in requests], use_tqdm=False
            )
        except self._refusals as error:
            if len(requests) == 1:
                return [Failure("engine_refused", str(error))]
            return [reply for request in requests for reply in self._chat([request])]
        return [_reply(output) for output in outputs]

    def _params(self, request: Request) -> Any:
        from vllm.sampling_params import StructuredOutputsParams

        sampling = request.sampling
        return self._vllm.SamplingParams(
            n=sampling.num_candidates,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or 0,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,  # vLLM draws answer i with seed + i
            structured_outputs=StructuredOutputsParams(json=request.json_schema) if request.json_schema else None,
        )


def _reply(output: Any) -> Reply:
    answers = [Answer(part.text, str(part.finish_reason)) for part in output.outputs]
    return answers or Failure("no_answer", "vLLM gave no text")
