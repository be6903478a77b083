"""Projects of the local cloud: an id, and the number by which buckets and agents are known."""

from typing import Final

from sublet.errors import InvalidRequest, NotFound
from sublet.local.database import Database

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS projects (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id     TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO sqlite_sequence (name, seq) SELECT 'projects', 100000000000
    WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'projects');
"""


class Projects:
    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(SCHEMA)

    def ensure(self, project_id: str) -> int:
        """The project's number; the project is made if it is not there."""
        if not project_id or len(project_id) > 63:
            raise InvalidRequest(f"got project {project_id!r}; expected 1 to 63 characters")
        self._database.execute("INSERT OR IGNORE INTO projects (id) VALUES (?)", project_id)
        return self.number_of(project_id)

    def number_of(self, project_id: str) -> int:
        row = self._database.row("SELECT number FROM projects WHERE id = ?", project_id)
        if row is None:
            raise NotFound(f"project {project_id} does not exist")
        return int(row["number"])

    def storage_agent(self, project_id: str) -> str:
        """
        The service agent as which Cloud Storage publishes the notifications of a project's buckets.
        """
        return f"service-{self.number_of(project_id)}@gs-project-accounts.iam.gserviceaccount.com"
