"""The gRPC edge: what comes over the wire becomes a call of the runtime, and its answer goes back.

``codec``                core values → messages, both ways for enums
``history``              events → lines that a person reads
``coordinator_service``  what applications and participants ask; one dispatch for unary calls and batched streams
``admin_service``        what an operator asks
``watching``             a bounded queue for each who watches
``listening``            ports, TLS
``server``               the whole coordinator, assembled, started and stopped

Nothing here decides anything: a rule about transactions that is found here is in the wrong place.
"""
