"""
The model card: README.md with the front matter that PEFT, or for full weights transformers, writes,
and in words what the manifest says in fields. Names and digests of what was read, never a word of
it.

Source: https://huggingface.co/docs/hub/model-cards
"""

from collections.abc import Iterator
from typing import Final

from sublet_trainer.results.manifest import Manifest

PLOT: Final = "loss.svg"
_VLLM_RANKS: Final = (16, 32, 64)
"""What its --max-lora-rank takes, up to the largest rank that is trained; the first unless told."""


def model_card(manifest: Manifest) -> bytes:
    return "\n".join([*_front_matter(manifest), *_body(manifest), ""]).encode()


def _front_matter(manifest: Manifest) -> Iterator[str]:
    base, is_full = manifest.base_model.name, manifest.settings.trains_all_weights
    yield "---"
    yield f"base_model: {base}"
    yield f"library_name: {'transformers' if is_full else 'peft'}"
    yield "pipeline_tag: text-generation"
    yield "tags:"
    yield f"- base_model:{'finetune' if is_full else 'adapter'}:{base}"
    yield from () if is_full else ["- lora"]
    yield "- sublet"
    yield "---"


def _body(manifest: Manifest) -> Iterator[str]:
    settings, trained, on = manifest.settings, manifest.trained, manifest.dataset
    yield f"\n# {manifest.output_model.id}\n"
    kind = "All weights of" if settings.trains_all_weights else "A LoRA adapter for"
    yield f"{kind} `{manifest.base_model.name}`, trained by `{manifest.job}`."
    yield from _how_to_load(manifest)
    yield "\n## Trained on\n"
    yield f"- `{on.object}`, crc32c `{on.crc32c}`, {on.size_bytes} bytes"
    yield f"- {on.rows.num_rows} rows, of which {on.rows.num_truncated} were cut at "
    yield f"  {trained.truncated_at_tokens} tokens, {on.rows.num_dropped} dropped as longer, and "
    yield f"  {on.rows.num_without_supervised_tokens} had nothing to learn"
    if manifest.started_from:
        start = manifest.started_from
        yield f"- beginning with the adapter `{start.model}`: `{start.weights.version}`"
    if manifest.evaluated:
        yield f"- evaluated on {manifest.evaluated.num_documents} documents {_source(manifest)}"
    yield f"- base model SHA-256 `{manifest.base_model.sha256}`"
    yield f"\n## Loss\n\n![Loss by step]({PLOT})\n"
    yield from _metrics(manifest)
    yield "\n## Settings\n\n| setting | value |\n|---|---|"
    for name in settings.__dataclass_fields__:
        yield f"| {name} | {_shown(getattr(settings, name))} |"
    yield "\n## Made with\n"
    yield f"- {manifest.cost.accelerator_seconds:.0f} s of {manifest.cost.accelerator}, "
    yield f"  in {manifest.precision}"
    yield f"- {', '.join(f'{name} {version}' for name, version in manifest.software.items())}"


def _how_to_load(manifest: Manifest) -> Iterator[str]:
    if manifest.settings.trains_all_weights:
        yield "It loads with `AutoModelForCausalLM.from_pretrained(this_folder)`."
        return
    yield "It loads with `PeftModel.from_pretrained(base_model, this_folder)`."
    if manifest.settings.use_dora:
        yield "\nIt is a DoRA adapter, which vLLM does not load: merge it into the base model."
    elif manifest.adapter.rank > _VLLM_RANKS[0]:
        rank = next(one for one in _VLLM_RANKS if one >= manifest.adapter.rank)
        yield f"\nvLLM serves it with `--max-lora-rank {rank}`."


def _source(manifest: Manifest) -> str:
    assert manifest.evaluated is not None
    version = manifest.evaluated.object
    return f"of `{version}`" if version else "that were held out of it, and never trained on"


def _metrics(manifest: Manifest) -> Iterator[str]:
    trained, last = manifest.trained, manifest.last_step
    yield "| | |\n|---|---|"
    yield f"| steps | {trained.steps} |"
    yield f"| tokens | {trained.tokens}, {trained.supervised_tokens} of them supervised |"
    yield f"| loss of the last step | {last.loss:.4f} |"
    for one in manifest.evaluated.losses if manifest.evaluated else ():
        yield f"| evaluation loss at step {one.step}, epoch {one.epoch:g} | {one.eval_loss:.4f} |"
    if trained.adapter_of_step != trained.steps:
        yield f"| this adapter is of step | {trained.adapter_of_step} |"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
