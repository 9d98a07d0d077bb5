"""``make fuzz``: gtrids, branches' names and gids of any text."""

from tests.fuzz import name_checks
from tests.fuzz.guided import main

if __name__ == "__main__":
    main("names", name_checks.check)
