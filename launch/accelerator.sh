#!/usr/bin/env bash
# Says which JAX a machine needs: cuda13, cuda12, tpu or cpu.
#
#   launch/accelerator.sh [ROOT]
#
# JAXALIGN_ACCELERATOR decides, where it is set. Else nvidia-smi does: JAX for CUDA 13 needs driver
# 580 and compute capability 7.5 (Turing) or newer, that for CUDA 12 driver 525. Else a TPU is looked
# for: a device file below ROOT/dev (default: /dev) and one of Google's chips on the PCI bus, since
# other makers' devices have files of these names, and Google's network cards that vendor's number.
# Source: docs.jax.dev, installation.
set -euo pipefail

root=${1:-}
say() { printf 'launch/local.sh: %s\n' "$*" >&2; }

case ${JAXALIGN_ACCELERATOR:-} in
  '') ;;
  cuda13 | cuda12 | tpu | cpu)
    printf '%s\n' "$JAXALIGN_ACCELERATOR"
    exit
    ;;
  *)
    say "JAXALIGN_ACCELERATOR must be cuda13, cuda12, tpu or cpu, got '$JAXALIGN_ACCELERATOR'."
    exit 2
    ;;
esac

if command -v nvidia-smi >/dev/null; then
  first=$(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null |
    head -n 1) || first=
  driver=${first%%,*} capability=${first##*, }
  if [[ ! $first =~ ^[0-9]+\.[0-9.]+,\ [0-9]+\.[0-9]+$ ]]; then
    say "nvidia-smi tells no GPU and driver, so JAX will use none of NVIDIA's: ${first:-it says nothing}"
  elif ((${driver%%.*} >= 580 && ${capability/./} >= 75)); then
    echo cuda13
    exit
  elif ((${driver%%.*} >= 525)); then
    echo cuda12
    exit
  else
    say "NVIDIA's driver $driver is too old for JAX on its GPU, which needs 525 or newer: using the CPU."
  fi
fi

# TPU v2 and v3, v4, v5p, v5e, v6e, v7x; JAX knows them by the same numbers.
is_tpu() {
  local device
  for device in "$root"/sys/bus/pci/devices/*; do
    if [ "$(cat "$device/vendor" 2>/dev/null)" = 0x1ae0 ]; then
      case $(cat "$device/device" 2>/dev/null) in
        0x0027 | 0x0056 | 0x005e | 0x0062 | 0x0063 | 0x006f | 0x0076) return 0 ;;
      esac
    fi
  done
  return 1
}
if compgen -G "$root/dev/accel[0-9]*" >/dev/null || compgen -G "$root/dev/vfio/[0-9]*" >/dev/null; then
  if is_tpu; then
    echo tpu
    exit
  fi
fi
echo cpu
