#!/usr/bin/env bash
# Make a virtual environment where Python came without its venv package, as Debian ships it: venv.sh PYTHON FOLDER
# As root the package is installed; otherwise the one command that is missing is named.
set -euo pipefail
python=$1 folder=$2
version=$("$python" -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
package="python${version}-venv"

if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
  echo "setup: installing $package, which this Python came without"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" ca-certificates >/dev/null
  exec "$python" -m venv "$folder"
fi
echo "setup: '$python -m venv' failed; on Debian and Ubuntu: sudo apt-get install $package" >&2
exit 1
