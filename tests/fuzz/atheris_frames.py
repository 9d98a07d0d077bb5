"""``make fuzz``: frames of any bytes, to all four sides of the streams."""

from tests.fuzz import frame_checks
from tests.fuzz.guided import main

if __name__ == "__main__":
    main("frames", frame_checks.check)
