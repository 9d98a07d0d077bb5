"""The decision log: one durable, write-once answer per transaction.

``store`` is the contract, ``records`` what is kept, ``memory`` and ``sqlite`` the implementations. One conformance
suite runs against each of them (tests/conformance/).
"""
