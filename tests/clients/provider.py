"""A real OpenID provider, a person with a browser, and a broker that may ask that provider."""

import html
import os
import re
import subprocess
import time
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

from broker import PROGRAM, Broker
from directory import free_port

PROVIDER = os.environ["PROVIDER"]


class Provider:
    """`oidc-provider` in a process of its own."""

    def __init__(self, redirect_uris):
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            ["node_modules/.bin/node", "provider.mjs", str(self.port), *redirect_uris],
            cwd=PROVIDER,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError("the provider did not start")

    def machine_token(self):
        """What a program gets by its own name: a JWT access token (RFC 9068)."""
        answer = requests.post(
            f"{self.issuer}/token",
            auth=("robot", "client-secret-3"),
            data={"grant_type": "client_credentials", "scope": "api"},
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json()["access_token"]

    def stop(self):
        self._process.terminate()
        self._process.wait(timeout=30)
        self._process.stdout.close()


class Person:
    """Somebody with a browser, who logs in wherever they are sent."""

    def __init__(self, name):
        self.name = name
        self._session = requests.Session()

    def follow(self, address, until):
        """Goes on from `address` until the browser is sent to one that begins with `until`."""
        for _ in range(20):
            if address.startswith(until):
                return address
            answer = self._session.get(address, allow_redirects=False, timeout=30)
            if "location" in answer.headers:
                address = urljoin(address, answer.headers["location"])
                continue
            if answer.status_code != 200:
                raise AssertionError(f"{answer.status_code} at {address}: {answer.text[:2000]}")
            form = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
            prompt = re.search(r'name="prompt" value="([^"]+)"', answer.text)
            if not form or not prompt:
                raise AssertionError(f"no form at {address}: {answer.text[:2000]}")
            data = {"prompt": prompt.group(1)}
            if data["prompt"] == "login":
                data |= {"login": self.name, "password": "any"}
            target = urljoin(address, html.unescape(form.group(1)))
            sent = self._session.post(target, data=data, allow_redirects=False, timeout=30)
            if "location" not in sent.headers:
                raise AssertionError(f"{sent.status_code} from {target}: {sent.text[:2000]}")
            address = urljoin(target, sent.headers["location"])
        raise AssertionError(f"sent around in circles, last to {address}")

    def brought_back(self, address, until):
        """What the browser brings to `until`."""
        query = parse_qs(urlsplit(self.follow(address, until)).query)
        return {name: values[0] for name, values in query.items()}

    def go(self, address, until):
        """Goes there all the way, and says what is on the page."""
        return self._session.get(self.follow(address, until), timeout=60).text


class AskingBroker(Broker):
    """A broker whose configuration names hosts that log-ins may ask."""

    def __init__(self, hosts):
        port = free_port()
        super().__init__(f"127.0.0.1:{port}")
        # Its directory holds all that a server needs; what is missing is the hosts.
        self._process.terminate()
        self._process.wait(timeout=30)
        self._process.stdout.close()
        with open(self.path("leasehold.toml"), "a") as config:
            named = ", ".join(f'"{host}"' for host in hosts)
            config.write(f"\n[auth]\noutgoing_hosts = [{named}]\n")
        self._process = subprocess.Popen(
            [PROGRAM, "server", "--config", self.path("leasehold.toml")],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._unseal()

    def _unseal(self):
        deadline = time.monotonic() + 60
        client = self.connect()
        while time.monotonic() < deadline:
            try:
                client.sys.submit_unseal_keys(self.unseal_keys["keys"])
                return
            except requests.ConnectionError:
                time.sleep(0.1)
        raise RuntimeError("the broker was not unsealed: " + open(self.path("log")).read())
