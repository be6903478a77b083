"""
The lease broker: the only identity that may mint, and the only one that may make an account dark.
"""

from sublet.broker.app import broker_app
from sublet.deployment import Deployment

deployment = Deployment.from_environment()
app = broker_app(deployment.lending, deployment.id_tokens, audience=deployment.self_url)
