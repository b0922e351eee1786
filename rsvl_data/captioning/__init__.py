"""Captions by vision-language models: engines that answer, prompts that ask, checks of the answers, and a store that keeps each of them.

stage = caption_with(OpenAIServer(model="Qwen/Qwen2.5-VL-7B-Instruct"), PROMPTS["rs-generic-short"], CaptionOptions(store=Path("answers")))
"""
