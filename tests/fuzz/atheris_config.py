"""``make fuzz``: settings from files and the environment."""

from tests.fuzz import config_checks
from tests.fuzz.guided import main

if __name__ == "__main__":
    main("config", config_checks.check)
