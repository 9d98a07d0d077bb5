"""The centre: two-phase commit as a state machine.

Nothing in here does I/O, reads a clock, logs or awaits; it imports the standard library only. ``states`` and ``table``
are the machine as data, ``events`` go in, ``effects`` come out, ``transaction`` holds the one ``step``, and
``invariants`` checks in production what must never be otherwise. ``members`` and ``values`` make it cheap.
"""
