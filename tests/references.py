"""
What the trainer is held against, under its own names. Importing it takes 2.3 s of CPU, which only a
worker spends that runs such a test.
"""

from functools import cached_property
from importlib import import_module
from typing import Any


class _Later:
    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    @cached_property
    def _real(self) -> Any:
        return getattr(import_module(self._module), self._name)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest asks everything in a module whether it is a fixture
            raise AttributeError(attribute)
        return getattr(self._real, attribute)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._real(*arguments, **named)


AutoConfig = _Later("transformers", "AutoConfig")
AutoModelForCausalLM = _Later("transformers", "AutoModelForCausalLM")
AutoTokenizer = _Later("transformers", "AutoTokenizer")
PeftModel = _Later("peft", "PeftModel")
render_jinja_template = _Later("transformers.utils.chat_template_utils", "render_jinja_template")
