"""
IAM's servers: one with everything of IAM, IAM Credentials, Resource Manager's policies and the
certificates; and the security token service.
"""

from sublet.local.iam.credentials_api import CertificateApi, CredentialsApi
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.oidc import IdTokens
from sublet.local.iam.project_api import ProjectApi
from sublet.local.iam.role_api import RoleApi
from sublet.local.iam.service_account_api import ServiceAccountApi, ServiceAccountKeyApi
from sublet.local.iam.token_api import JwtBearerGrant, TokenExchange, oauth_error
from sublet.local.projects import Projects
from sublet.local.web import Router
from sublet.ports import Clock


def iam_app(iam: Iam, id_tokens: IdTokens, projects: Projects, clock: Clock) -> Router:
    router = Router()
    ServiceAccountApi(iam, projects).add_to(router)
    ServiceAccountKeyApi(iam).add_to(router)
    RoleApi(iam).add_to(router)
    ProjectApi(iam, projects).add_to(router)
    CredentialsApi(iam, id_tokens, clock).add_to(router)
    CertificateApi(iam, id_tokens).add_to(router)
    JwtBearerGrant(iam, id_tokens).add_to(router)
    return router


def sts_app(iam: Iam, clock: Clock) -> Router:
    router = Router(oauth_error)
    TokenExchange(iam, clock).add_to(router)
    return router
