"""The coordinator service.

From the centre outwards, and imports point inwards only:

``protocol``  the two-phase commit state machine; no I/O, no clock, standard library only
``log``       the decision log: a durable, write-once register per transaction
``runtime``   the driver (step, force, send), deadlines, retries, recovery, links to participants
``rpc``       the gRPC edge: servicers, codec, limits
``cli``       the command ``handfast``
"""
