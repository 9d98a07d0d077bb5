"""The Postgres resource manager, on psycopg 3.

errors.py     SQLSTATE → error catalog
pools.py      connections for work, and the few for phase two
finish.py     COMMIT/ROLLBACK PREPARED, and the proof of how a branch ended
branch.py     one open branch: BEGIN … PREPARE TRANSACTION
recover.py    what is prepared now, and what it blocks
health.py     the checks of `handfast doctor`
resource.py   all of it together
"""

from participant.postgres.resource import PostgresResource
from participant.postgres.session import BranchConnection

__all__ = ["BranchConnection", "PostgresResource"]
