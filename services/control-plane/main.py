"""The control plane: the public API."""

from sublet.api.app import control_plane_app
from sublet.deployment import Deployment

app = control_plane_app(Deployment.from_environment().control_plane)
