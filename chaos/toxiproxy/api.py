"""The client of one Toxiproxy server, on top of toxiproxy-python.

That package keeps host and port as attributes of one class, so that a process can speak to one server only, and gives
its HTTP calls no timeout, so that a server which hangs hangs its caller. Here each server has a consumer class of its
own, whose every call has a timeout and goes past any HTTP proxy that the environment names; and the package's Proxy and
Toxiproxy are used through subclasses that ask that consumer.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import requests
from toxiproxy import proxy as _proxy
from toxiproxy import server as _server
from toxiproxy.api import APIConsumer, validate_response
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists
from toxiproxy.toxic import Toxic

TIMEOUT_S_DEFAULT = 5.0


class ProxyError(Exception):
    """The server did not answer, or refused; says what was asked."""


class Consumer(APIConsumer):  # type: ignore[misc]  # the package has no types
    """Asks one server. ``consumer_of`` makes the subclass for a server."""

    timeout_s = TIMEOUT_S_DEFAULT

    @classmethod
    def get(cls, url: str, params: Any = None, **kwargs: Any) -> requests.Response:
        return cls._ask("GET", url, params=params, **kwargs)

    @classmethod
    def post(cls, url: str, data: Any = None, json: Any = None, **kwargs: Any) -> requests.Response:
        return cls._ask("POST", url, data=data, json=json, **kwargs)

    @classmethod
    def delete(cls, url: str, **kwargs: Any) -> requests.Response:
        return cls._ask("DELETE", url, **kwargs)

    @classmethod
    def _ask(cls, method: str, url: str, **kwargs: Any) -> requests.Response:
        where = f"http://{cls.host}:{cls.port}{url}"
        try:
            # A session per call: requests' sessions may not be shared by threads, and faults start on several.
            with requests.Session() as session:
                session.trust_env = False
                response = session.request(method, where, timeout=cls.timeout_s, **kwargs)
            validate_response(response)
            response.raise_for_status()
        except (requests.RequestException, NotFound, ProxyExists, InvalidToxic) as error:
            raise ProxyError(f"{method} {where}: {type(error).__name__}: {error}") from error
        return response


def consumer_of(host: str, port: int, timeout_s: float) -> type[Consumer]:
    """Make the consumer class of one server: the package reads host and port from the class."""
    return type("Consumer", (Consumer,), {"host": host, "port": port, "timeout_s": timeout_s})


class Proxy(_proxy.Proxy):  # type: ignore[misc]  # the package has no types
    """One proxy of one server.

    Args:
        api: asks that server.
        fields: name, upstream, listen and enabled, as the server tells them.

    Each method raises ProxyError when the server does not answer in time, or refuses.
    """

    name: str
    upstream: str
    listen: str
    enabled: bool

    def __init__(self, api: type[Consumer], **fields: Any) -> None:
        super().__init__(**fields)
        self._api = api
        self._path = f"/proxies/{quote(self.name, safe='')}"

    def toxics(self) -> dict[str, Toxic]:
        """The toxics on it now, by name."""
        found: list[dict[str, Any]] = self._api.get(f"{self._path}/toxics").json()
        return {fields["name"]: Toxic(**fields) for fields in found}

    def add_toxic(self, **kwargs: Any) -> None:
        """Add a toxic.

        Args:
            kwargs: ``type``; optionally ``stream`` ("downstream" towards the client, or "upstream"), ``name``,
                ``toxicity`` (0 to 1) and ``attributes``.
        """
        stream = kwargs.get("stream", "downstream")
        defaults = {"name": f"{kwargs['type']}_{stream}", "stream": stream, "toxicity": 1.0, "attributes": {}}
        self._api.post(f"{self._path}/toxics", json={**defaults, **kwargs})

    def destroy_toxic(self, toxic_name: str) -> bool:
        """Take a toxic away."""
        self._api.delete(f"{self._path}/toxics/{toxic_name}")
        return True

    def destroy(self) -> bool:
        """End the proxy and its connections."""
        self._api.delete(self._path)
        return True

    def lead_to(self, upstream: str) -> None:
        """Lead to another address from now on, ``host:port``. Drops all connections; new ones are accepted at once."""
        self._api.post(self._path, json={"upstream": upstream})
        self.upstream = upstream

    def disable(self) -> None:
        """Drop all connections and refuse new ones."""
        self._enable(False)

    def enable(self) -> None:
        """Accept connections again."""
        self._enable(True)

    def _enable(self, enabled: bool) -> None:
        self._api.post(self._path, json={"enabled": enabled})
        self.enabled = enabled


class Toxiproxy(_server.Toxiproxy):  # type: ignore[misc]  # the package has no types
    """One Toxiproxy server.

    Args:
        port: where its HTTP API listens.
        host: on which address.
        timeout_s: the longest that an answer may take, in seconds.

    Each method but ``running`` raises ProxyError when the server does not answer in time, or refuses.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", timeout_s: float = TIMEOUT_S_DEFAULT) -> None:
        self._api = consumer_of(host, port, timeout_s)

    def create(self, upstream: str, name: str, listen: str | None = None, enabled: bool | None = None) -> Proxy:
        """Put a proxy in front of an address.

        Args:
            upstream: the address, ``host:port``.
            name: its name.
            listen: where the proxy listens; a free port when None.
            enabled: whether it accepts connections from the start; it does when None.
        """
        asked = {"upstream": upstream, "name": name, "listen": listen or "127.0.0.1:0", "enabled": enabled is not False}
        return Proxy(self._api, **self._api.post("/proxies", json=asked).json())

    def proxies(self) -> dict[str, Proxy]:
        """All proxies, by name."""
        return {name: Proxy(self._api, **fields) for name, fields in self._api.get("/proxies").json().items()}

    def running(self) -> bool:
        """Whether the server answers now."""
        try:
            self.version()
        except ProxyError:
            return False
        return True

    def version(self) -> str:
        """The server's version."""
        return str(self._api.get("/version").json()["version"])

    def reset(self) -> bool:
        """Enable all proxies and take all toxics away."""
        self._api.post("/reset")
        return True

    def update_api_consumer(self, host: str, port: int) -> None:
        """Speak to another server from now on. Proxies made earlier stay with theirs."""
        self._api = consumer_of(host, port, self._api.timeout_s)
