"""The control plane: the public API."""

import gc

from sublet.api.app import control_plane_app
from sublet.deployment import Deployment

app = control_plane_app(Deployment.from_environment().control_plane)
gc.freeze()  # what was imported stays: no request should wait while the collector walks it
