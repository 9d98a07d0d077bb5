"""`handfast demo`: two databases and a bank, and processes killed at the worst moment.

story      what happens, in order
transfers  the load: which transfers, and what became of each
writer     a bystander who waits for a row in doubt
findings   what contradicts atomicity in the end: nothing, or what
scene      the picture of a crash
pictures   the other pictures
screen     where the story is told
"""

from chaos.demo.program import run_demo

__all__ = ["run_demo"]
