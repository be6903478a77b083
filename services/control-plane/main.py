"""The control plane: the public API."""

from sublet.api.app import control_plane_app

from sublet.deployment import Deployment

deployment = Deployment.from_environment()
app = control_plane_app(deployment)
