"""Toxiproxy for the lab: the real server on every link, found or built, and a client that can't hang.

binary   the program: on PATH, in .tools/, or built once from source
server   ToxiproxyServer: one server process on a free loopback port
api      Toxiproxy: its proxies and toxics, over toxiproxy-python
wire     Wire: the proxies between one process and another, hurt as one

server = stack.start(ToxiproxyServer(stack.path))
proxy = server.api.create(name="client→coordinator", upstream="127.0.0.1:7400")
proxy.add_toxic(type="latency", attributes={"latency": 200})
"""

from chaos.toxiproxy.api import Proxy, ProxyError, Toxiproxy
from chaos.toxiproxy.binary import find_server
from chaos.toxiproxy.server import ToxiproxyServer
from chaos.toxiproxy.wire import Wire

__all__ = ["Proxy", "ProxyError", "Toxiproxy", "ToxiproxyServer", "Wire", "find_server"]
