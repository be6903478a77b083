"""
Projects as Resource Manager shows them: their policies, which reach everything in them.

Source: https://cloud.google.com/resource-manager/reference/rest/v3/projects
"""

from sublet.errors import AccessDenied, NotFound
from sublet.local.iam.callers import (
    RESOURCE_MANAGER,
    Callers,
    PolicyMethods,
    requested_version,
)
from sublet.local.iam.enforcement import Iam, Target
from sublet.local.projects import Projects
from sublet.local.web import Request, Response, Router, json_response


class ProjectApi:
    def __init__(self, iam: Iam, projects: Projects) -> None:
        self._iam = iam
        self._projects = projects
        self._callers = Callers(iam)
        self._policies = PolicyMethods(iam)

    def add_to(self, router: Router) -> None:
        for version in ("v1", "v3"):
            one = f"/{version}/projects/{{project}}"
            router.add("POST", f"{one}:getIamPolicy", self.get_policy)
            router.add("POST", f"{one}:setIamPolicy", self.set_policy)
            router.add("POST", f"{one}:testIamPermissions", self.test_permissions)
            router.add("GET", one, self.get)

    async def get(self, request: Request) -> Response:
        project = self._allow(request, "resourcemanager.projects.get")
        number = str(self._projects.number_of(project))
        if request.raw_path.startswith("/v1/"):
            old = {"projectId": project, "projectNumber": number, "lifecycleState": "ACTIVE"}
            return json_response({**old, "name": project})
        return json_response(
            {"name": f"projects/{number}", "projectId": project, "state": "ACTIVE"}
        )

    async def get_policy(self, request: Request) -> Response:
        project = self._allow(request, "resourcemanager.projects.getIamPolicy")
        version = requested_version(request, await request.json())
        return json_response(self._policies.read(f"projects/{project}", version))

    async def set_policy(self, request: Request) -> Response:
        project = self._allow(request, "resourcemanager.projects.setIamPolicy")
        policy = (await request.json()).get("policy")
        return json_response(self._policies.write(f"projects/{project}", policy))

    async def test_permissions(self, request: Request) -> Response:
        name = f"projects/{request.parameters['project']}"
        target = Target(policies=(name,), name=name, service=RESOURCE_MANAGER)
        asked = (await request.json()).get("permissions")
        return json_response(self._policies.permitted(self._callers.caller(request), asked, target))

    def _allow(self, request: Request, permission: str) -> str:
        """The project's id, if the caller may; a project that is not there looks forbidden."""
        project = request.parameters["project"]
        self._callers.on_project(request, project, permission)
        try:
            self._projects.number_of(project)
        except NotFound as error:
            raise AccessDenied(f"{error}, or it may not be seen") from None
        return project
