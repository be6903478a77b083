r"""
What a base model answers to a prompt, with and without adapters; greedy, so the same each time. For
looking at a result by hand; serving is somebody else's work.

    python -m sublet_trainer.answer --base ~/models/smollm2-135m-instruct \
        --adapter none ./epoch-1 --prompt "How do I bleed a radiator?"

prints a JSON list with one object for each adapter.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sublet_trainer import cpu

NO_ADAPTER: Final = "none"


def answers(
    base: Path,
    adapters: Sequence[str],
    prompt: str,
    *,
    system: str = "",
    max_new_tokens: int = 160,
) -> Iterator[dict[str, str]]:
    """
    Args:
        base: a folder as sublet_trainer.catalogue.base_models prepares it.
        adapters: folders as the trainer writes them, or NO_ADAPTER for the base as it is.
    """
    import torch  # noqa: PLC0415  --help need not wait for it
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, local_files_only=True
    )
    turns = [{"role": "system", "content": system}] if system else []
    asked = tokenizer.apply_chat_template(
        [*turns, {"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    for adapter in adapters:
        tuned = model if adapter == NO_ADAPTER else PeftModel.from_pretrained(model, adapter)
        ids = tuned.generate(**asked, max_new_tokens=max_new_tokens, do_sample=False)
        answer = tokenizer.decode(ids[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        yield {"adapter": adapter, "answer": answer}
        if tuned is not model:
            model = tuned.unload()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sublet_trainer.answer")
    parser.add_argument("--base", type=Path, required=True, metavar="DIR")
    parser.add_argument("--adapter", nargs="+", default=[NO_ADAPTER], metavar="DIR|none")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--system", default="")
    parser.add_argument("--max-new-tokens", type=int, default=160, metavar="N")
    given = parser.parse_args(arguments)
    for folder in (given.base, *(Path(one) for one in given.adapter if one != NO_ADAPTER)):
        if not folder.is_dir():
            parser.error(f"{folder} is no folder")
    os.environ["HF_HUB_OFFLINE"] = "1"
    cpu.tune()
    found = answers(
        given.base,
        given.adapter,
        given.prompt,
        system=given.system,
        max_new_tokens=given.max_new_tokens,
    )
    sys.stdout.write(json.dumps(list(found), indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
