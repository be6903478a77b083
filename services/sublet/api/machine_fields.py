"""Which accelerators a job asks for, as the API names them."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from sublet.api.settings import SettingsFields
from sublet.machines import ACCELERATORS, MOST_ACCELERATORS, Machine

_UNSPECIFIED: Final = "ACCELERATOR_TYPE_UNSPECIFIED"
_TYPES: Final = {"enum": ["", _UNSPECIFIED, *ACCELERATORS]}
_COUNTS: Final = {"minimum": 0, "maximum": MOST_ACCELERATORS}


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFields(SettingsFields):
    """What is not given is the deployment's choice, which also refuses what it has not."""

    accelerator_type: Annotated[str, msgspec.Meta(extra_json_schema=_TYPES)] = ""
    accelerator_count: Annotated[int, msgspec.Meta(extra_json_schema=_COUNTS)] = 0

    def machine(self) -> Machine | None:
        accelerator = "" if self.accelerator_type == _UNSPECIFIED else self.accelerator_type
        if not accelerator and not self.accelerator_count:
            return None
        return Machine(accelerator=accelerator, count=self.accelerator_count)


def machine_shown(machine: Machine | None) -> dict[str, Any]:
    if machine is None:
        return {}
    return {"accelerator_type": machine.accelerator, "accelerator_count": machine.count}
