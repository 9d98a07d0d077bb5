"""``make fuzz``: a decision log's file with something put into it, or cut off."""

from tests.fuzz import log_checks
from tests.fuzz.guided import main

if __name__ == "__main__":
    main("log", log_checks.check)
