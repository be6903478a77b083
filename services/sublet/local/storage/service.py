"""The parts of Cloud Storage behind its APIs, put together over one database and one directory."""

from dataclasses import dataclass
from pathlib import Path

from sublet.local.database import Database
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.tokens import AccessTokens, Caller
from sublet.local.projects import Projects
from sublet.local.storage.blobs import Blobs
from sublet.local.storage.buckets import Buckets
from sublet.local.storage.copying import Copies
from sublet.local.storage.managed_folders import ManagedFolders
from sublet.local.storage.notifications import Notifications, Topics
from sublet.local.storage.objects import Objects
from sublet.local.storage.signed_urls import SignedUrls
from sublet.local.storage.uploads import Uploads
from sublet.local.storage.xml_uploads import XmlUploads
from sublet.local.web import Request
from sublet.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    tokens: AccessTokens
    projects: Projects
    buckets: Buckets
    managed_folders: ManagedFolders
    notifications: Notifications
    objects: Objects
    copies: Copies
    blobs: Blobs
    uploads: Uploads
    xml_uploads: XmlUploads
    signed_urls: SignedUrls

    def caller(self, request: Request) -> Caller:
        return self.tokens.resolve(request.authorization)

    def forget_expired(self) -> None:
        """Remove for good what has had its time: upload sessions, soft-deleted objects."""
        self.uploads.forget_expired()
        self.xml_uploads.forget_expired()
        self.objects.forget_soft_deleted()


def open_storage(
    directory: Path,
    *,
    database: Database,
    clock: Clock,
    iam: Iam,
    projects: Projects,
    topics: Topics,
    base_url: str,
) -> Storage:
    """
    Open what lies in a directory, and remove what a kill has left there.

    Args:
        base_url: the API's own address, for the links in an object's resource.
    """
    blobs = Blobs(directory)
    buckets = Buckets(database, clock, iam, projects)
    notifications = Notifications(
        database=database,
        clock=clock,
        iam=iam,
        projects=projects,
        buckets=buckets,
        topics=topics,
        base_url=base_url,
    )
    objects = Objects(
        database=database, clock=clock, buckets=buckets, blobs=blobs, notifications=notifications
    )
    uploads = Uploads(database, clock, objects, blobs)
    xml_uploads = XmlUploads(database, clock, objects, blobs)
    blobs.discard_orphans(objects.blobs(), uploads.ids() | xml_uploads.parts())
    return Storage(
        tokens=iam.tokens,
        projects=projects,
        buckets=buckets,
        managed_folders=ManagedFolders(database, clock, iam, buckets),
        notifications=notifications,
        objects=objects,
        copies=Copies(database, objects, blobs),
        blobs=blobs,
        uploads=uploads,
        xml_uploads=xml_uploads,
        signed_urls=SignedUrls(iam.service_accounts, clock),
    )
