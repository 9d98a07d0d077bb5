"""``make fuzz``: any bytes to both ends of a frame connection."""

from tests.fuzz import frame_port_checks
from tests.fuzz.guided import main

if __name__ == "__main__":
    main("frame_port", frame_port_checks.check)
