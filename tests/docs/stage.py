"""What stands ready when a page begins: written as its reader would have typed it, in the rules of the pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: A hub and one sidecar, as `agentcom up` starts them.
UP: Final = """
```sh
# In the first terminal
agentcom up --port 7420   # runs until Ctrl-C
```

```text
hub       127.0.0.1:7420
Ctrl-C stops both
```

```sh
agentcom agent list
```

```text
local  idle ...
```
"""

#: A hub alone, which asks nobody on this machine for a token.
HUB: Final = """
```sh
# In the hub's terminal
agentcom-hub --data data   # runs until Ctrl-C
```

```text
...hub.serving...
```
"""

#: A repository that the hub may be told of; {0} is its name.
REPOSITORY: Final = """
```sh
git init --quiet --bare --initial-branch main {0}.git
git clone --quiet {0}.git {0}
cd {0} && git checkout -q -B main && echo Hello > greetings.txt && git add . && git commit -q -m Begin
git push -q origin main && cd ..
```
"""
#: The hub knows it; the check is what its tasks must keep.
ADDED: Final = """
```sh
agentcom repo add {0} ./{0}.git --check "test -s greetings.txt"
```
"""
HELLO: Final = REPOSITORY.format("hello")
NOTES: Final = REPOSITORY.format("notes")

#: A certificate for hub.example, of an authority of its own.
CERTIFICATE: Final = """
```sh
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=an authority" -keyout ca.key -out ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=hub" -keyout hub.key -out hub.csr
printf 'subjectAltName=DNS:hub.example' > hub.ext
openssl x509 -req -in hub.csr -CA ca.crt -CAkey ca.key -days 30 -extfile hub.ext -out hub.crt
```
"""
#: What the package of nginx makes, and a copy of its program alone has not.
NGINX: Final = """
```sh
mkdir -p /var/lib/nginx
```
"""
#: A hub as others on a network see it: TLS, and a token for everybody.
NETWORK: Final = f"""{CERTIFICATE}
```sh
# In the hub's terminal
export AGENTCOM_HUB_SERVER_TLS_CERTIFICATE=hub.crt AGENTCOM_HUB_SERVER_TLS_KEY=hub.key
agentcom-hub --listen 0.0.0.0:7420 --data data   # runs until Ctrl-C
```

```text
...hub.serving...
```

```sh
export AGENTCOM_HUB_ADDRESS=grpcs://hub.example:7420 AGENTCOM_CA_FILE=ca.crt AGENTCOM_TOKEN_FILE=data/admin.token
agentcom token create --scope operator --output json > operator.json
```
"""
#: The hub's operator sits at another machine.
AT_BUILDER: Final = """
```sh
# On the machine builder-1
cp ../../work/ca.crt ca.crt
python3 -c "import json; print(json.load(open('../../work/operator.json'))['secret'])" > operator.token
```
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """`before`: what was done already. `activated`: are our programs on the PATH?"""

    before: str = ""
    activated: bool = True


STAGES: Final = {
    "README.md": Stage(activated=False),
    "docs/quickstart.md": Stage(HELLO),
    "docs/goal-files.md": Stage(HELLO + UP + ADDED.format("hello")),
    "docs/security.md": Stage(UP),
    "docs/dashboard.md": Stage(UP),
    "docs/operations.md": Stage(HELLO + UP + ADDED.format("hello")),
    "docs/protocol.md": Stage(HUB),
    "docs/troubleshooting.md": Stage(HELLO + UP + ADDED.format("hello")),
    "docs/recipes/vpn.md": Stage(NOTES.replace("```sh\n", "```sh\n# On the machine hub, in another terminal\n")),
    "docs/recipes/proxy.md": Stage(CERTIFICATE + NGINX),
    "docs/recipes/many-agents.md": Stage(HUB),
    "docs/recipes/ci.md": Stage(HELLO + UP + ADDED.format("hello")),
    "docs/recipes/without-systemd.md": Stage(HUB),
    "docs/onboarding.md": Stage(NOTES + NETWORK + ADDED.format("notes") + AT_BUILDER),
}
DEFAULT: Final = Stage()
