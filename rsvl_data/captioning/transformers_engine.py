"""A model of transformers in this process: chat models with vision (LLaVA, Qwen-VL, ...) and BLIP-2, in batches, on a GPU or a CPU.

Slower than vLLM and without its needs. Every answer has its own random numbers, so it does not depend on what else was in the batch
(but for the last bits of the model's arithmetic). JSON schemas are not enforced here; the answers are checked all the same.
"""

import io
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
import transformers
from PIL import Image

from rsvl_data.captioning.engine import Answer, BatchThread, Reply, Request, Sampling
from rsvl_data.errors import EngineError, OptionError
from rsvl_data.sample import TextSource


@dataclass(frozen=True, kw_only=True)
class TransformersModel:
    model: str
    """name on the Hugging Face Hub, or folder"""
    revision: str | None = None
    """commit of the Hub; left out, the newest"""
    dtype: str = "auto"
    """of the weights: auto, bfloat16, float16 or float32"""
    device: str = "auto"
    """cuda, cuda:1, cpu; auto takes the GPU where there is one"""
    batch_size: int = 8
    """requests answered at once, each with all its candidates"""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise OptionError(f"--batch-size {self.batch_size} must be 1 or more")
        if self.dtype not in ("auto", "bfloat16", "float16", "float32"):
            raise OptionError(f"--dtype {self.dtype!r} is unknown; allowed are auto, bfloat16, float16, float32")

    @property
    def source(self) -> TextSource:
        return TextSource(engine="transformers", model=self.model, revision=self.revision)

    @property
    def num_parallel(self) -> int:
        return 2 * self.batch_size  # one batch is answered while the next one comes in

    def start(self) -> "RunningTransformers":
        return RunningTransformers(self)


class RunningTransformers:
    def __init__(self, options: TransformersModel):
        device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._processor = transformers.AutoProcessor.from_pretrained(options.model, revision=options.revision)
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                options.model, revision=options.revision, dtype=options.dtype
            )
        except (OSError, ValueError) as error:
            raise EngineError(f"transformers cannot load {options.model}: {error}") from error
        self._model = model.to(device).eval()
        self._processor.tokenizer.padding_side = "left"  # the answer must follow the prompt without a gap
        if self._processor.tokenizer.pad_token_id is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token
        self._thread = BatchThread(self._answer_batch, options.batch_size)

    def submit(self, request: Request) -> Future[Reply]:
        return self._thread.submit(request)

    def close(self) -> None:
        self._thread.close()
        del self._model

    def _answer_batch(self, requests: Sequence[Request]) -> list[Reply]:
        """`generate` has one length, one number of candidates and images or none for a batch: requests that differ there are parted."""
        replies: dict[int, Reply] = {}
        order = sorted(range(len(requests)), key=lambda place: _shape(requests[place]))
        for _, places in groupby(order, key=lambda place: _shape(requests[place])):
            group = list(places)
            replies |= zip(group, self._answer_alike([requests[place] for place in group]))
        return [replies[place] for place in range(len(requests))]

    def _answer_alike(self, requests: list[Request]) -> list[Reply]:
        sampling = requests[0].sampling
        inputs = self._inputs(requests)
        draws = [
            _Draw(replace(sampling, seed=request.sampling.seed + index))
            for request in requests
            for index in range(sampling.num_candidates)
        ]
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                logits_processor=transformers.LogitsProcessorList([_DrawEachRow(draws)]),
                do_sample=sampling.temperature > 0
                or sampling.num_candidates > 1,  # the draw itself is made above, see _DrawEachRow
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                num_beams=1,
                num_return_sequences=sampling.num_candidates,
                max_new_tokens=sampling.max_tokens,
                pad_token_id=self._processor.tokenizer.pad_token_id,
            )
        return self._read(output[:, inputs["input_ids"].shape[1] :], sampling)

    def _inputs(self, requests: list[Request]) -> Any:
        """BLIP-2 has no chat template: its prompt is the bare text."""
        images = [Image.open(io.BytesIO(request.image)).convert("RGB") for request in requests if request.image is not None]
        if getattr(self._processor, "chat_template", None):
            texts = [self._chat_text(request) for request in requests]
        else:
            texts = [request.text for request in requests]
        inputs = self._processor(images=images or None, text=texts, padding=True, return_tensors="pt")
        return inputs.to(self._model.device, self._model.dtype)

    def _chat_text(self, request: Request) -> str:
        content = [{"type": "image"}] if request.image is not None else []
        turn = {"role": "user", "content": [*content, {"type": "text", "text": request.text}]}
        return self._processor.apply_chat_template([turn], add_generation_prompt=True)

    def _read(self, tokens: torch.Tensor, sampling: Sampling) -> list[Reply]:
        """`tokens` holds the candidates of one request after the other, ended and filled up by the end or padding token."""
        ends = self._model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        answers = [
            Answer(text, "stop" if ends & set(row) or len(row) < sampling.max_tokens else "length")
            for text, row in zip(texts, tokens.tolist())
        ]
        num = sampling.num_candidates
        return [answers[start : start + num] for start in range(0, len(answers), num)]


def _shape(request: Request) -> tuple[Any, ...]:
    sampling = request.sampling
    drawing = (sampling.temperature, sampling.top_p, sampling.top_k or 0)
    return (request.image is None, sampling.num_candidates, sampling.max_tokens, drawing)


class _Draw:
    """The random numbers of one answer."""

    def __init__(self, sampling: Sampling):
        self.sampling = sampling
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def gumbel(self, size: int) -> torch.Tensor:
        return -torch.empty(size).exponential_(generator=self._generator).log()


class _DrawEachRow(transformers.LogitsProcessor):
    """Draws the next token of every row with the row's own random numbers, and leaves it as the only one possible.

    The largest of logits plus Gumbel noise is a draw from their softmax (Maddison et al., arXiv:1411.0030, section 2). `generate` has
    one random state for the whole batch, with which an answer would depend on its neighbours.
    """

    def __init__(self, draws: list[_Draw]):
        self._draws = draws
        sampling = draws[0].sampling
        self._warpers = transformers.LogitsProcessorList()
        if sampling.temperature > 0:
            self._warpers.append(transformers.TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k is not None:
            self._warpers.append(transformers.TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(transformers.TopPLogitsWarper(float(sampling.top_p)))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = self._warpers(input_ids, scores.float())
        if self._draws[0].sampling.temperature > 0:
            scores = scores + torch.stack([draw.gumbel(scores.shape[1]) for draw in self._draws]).to(scores.device)
        chosen = scores.argmax(dim=1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)
