"""The gRPC edge: what comes over the wire becomes a call of the runtime, and its answer goes back.

``codec``                core values → messages, both ways for enums
``history``              events → lines that a person reads
``coordinator_service``  what applications and participants ask; one dispatch for unary calls and batched streams
``admin_service``        what an operator asks
``access``               who asks, and who is turned away; ``guarded`` is the dispatch for those who have to say
``limits``               what one caller may take: streams, messages a second, and with ``shares`` and ``flow`` time and
                         memory
``trail``                the audit trail
``watching``             a bounded queue for each who watches
``listening``            ports, TLS
``server``               the whole coordinator, assembled, started and stopped

Nothing here decides anything: a rule about transactions that is found here is in the wrong place.
"""
