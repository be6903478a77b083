"""
Fields of a job's body that would change what is trained and that no trainer of ours honours. They
are not ignored: who sends one is told what to use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec

from sublet.api.machine_fields import MachineFields
from sublet.errors import Unimplemented

_ELSEWHERE: Final = "data is read from Cloud Storage alone; put the file into a bucket there"
_TEMPLATE: Final = "rows are rendered by the base model's own chat template"


def documented(**schema: object) -> msgspec.Meta:
    """Which values may be sent, for the document; what refuses the others says why."""
    return msgspec.Meta(extra_json_schema=schema)


Nothing = Annotated[dict[str, Any], documented(maxProperties=0)]


def refuse_asked(asked: Mapping[str, tuple[object, str]]) -> None:
    """
    Args:
        asked: by field, what was sent, and what to do instead of sending it.

    Raises:
        Unimplemented: something was sent.
    """
    for name, (is_asked, instead) in asked.items():
        if is_asked:
            raise Unimplemented(f"{name} is not offered; {instead}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFields(MachineFields):
    """Settings, the machine, and ways to train that are refused."""

    gradient_accumulation_steps: Annotated[int, documented(minimum=0, maximum=1)] = 0
    batch_size_samples: Annotated[int, documented(const=0)] = 0
    jinja_template: Annotated[str, documented(maxLength=0)] = ""
    renderer_hugging_face_repo_id: Annotated[str, documented(maxLength=0)] = ""
    mtp_enabled: Annotated[bool, documented(const=False)] = False

    def check_recipe(self) -> None:
        """
        Raises:
            Unimplemented: a field asks for what the trainer does not do; says what to use.
        """
        refuse_asked(
            {
                "gradientAccumulationSteps": (
                    self.gradient_accumulation_steps > 1,
                    "batchSize is a whole step's tokens, accumulated as memory needs it",
                ),
                "batchSizeSamples": (self.batch_size_samples, "give batchSize, in tokens"),
                "jinjaTemplate": (self.jinja_template, _TEMPLATE),
                "rendererHuggingFaceRepoId": (self.renderer_hugging_face_repo_id, _TEMPLATE),
                "mtpEnabled": (self.mtp_enabled, "an adapter has no heads of its own"),
            }
        )


@dataclass(frozen=True, kw_only=True)
class PlacesElsewhere:
    """Other clouds and other people's servers; no slots, so that it can be mixed in."""

    aws_s3_config: Nothing = field(default_factory=dict)
    azure_blob_storage_config: Nothing = field(default_factory=dict)
    wandb_config: Nothing = field(default_factory=dict)

    def check_places(self) -> None:
        """
        Raises:
            Unimplemented: data or metrics are to go to or come from somewhere else.
        """
        refuse_asked(
            {
                "awsS3Config": (self.aws_s3_config, _ELSEWHERE),
                "azureBlobStorageConfig": (self.azure_blob_storage_config, _ELSEWHERE),
                "wandbConfig": (
                    self.wandb_config.get("enabled", bool(self.wandb_config)),
                    "read step and loss from the job: metrics of your data go to nobody else",
                ),
            }
        )
