#!/usr/bin/env bash
# Installs what Wrenn needs on this machine: Debian packages and npm packages. Does only what is missing, so every make
# target may run it first. With --for-tests, also what only tests need.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# What runs in the background would outlive a Ctrl-C.
trap 'kill $(jobs -p) 2>/dev/null || true; exit 130' INT TERM

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }
seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", to - from }'; }

# step TITLE COMMAND...: runs the command with its output in $log; shows its last line while it runs.
step() {
  local title=$1 from=$EPOCHREALTIME every=10 ticks=0 line pid
  shift
  [ -t 1 ] && every=1
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    ticks=$((ticks + 1))
    ((ticks % (every * 5) == 0)) || continue
    line=$(tail -n 1 "$log" | tr '\r' '\n' | tail -n 1 | cut -c1-60)
    if [ -t 1 ]; then
      printf '\r\033[Ksetup: %s … %s  %s' "$title" "$(seconds_since "$from")" "$line"
    else
      say "$title … $(seconds_since "$from")  $line"
    fi
  done
  [ -t 1 ] && printf '\r\033[K'
  if ! wait "$pid"; then
    tail -n 20 "$log" >&2
    return 1
  fi
  say "$title: done ($(seconds_since "$from"))"
}

# The packages of this architecture in deploy/packages-debian.txt, one a line.
wanted_packages() {
  awk -v arch="$1" '{ sub(/#.*/, "") } NF && ($2 == "" || index($2, arch)) { print $1 }' deploy/packages-debian.txt
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

install_debian_packages() {
  local arch wanted missing
  command -v dpkg-query >/dev/null || fail \
    'this machine has no dpkg: Wrenn installs its packages on Debian and its kin only.' \
    "On another distribution install the equals of these, then run npm ci: $(wanted_packages amd64 | tr '\n' ' ')"
  arch=$(dpkg --print-architecture)
  mapfile -t wanted < <(wanted_packages "$arch")
  mapfile -t missing < <(
    printf '%s\n' "${wanted[@]}" |
      grep -vxFf <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p')
  )
  [ ${#missing[@]} -gt 0 ] || return 0
  say "Debian packages to install: ${missing[*]}"
  command -v apt-get >/dev/null || fail "apt-get is missing; install these packages by hand: ${missing[*]}"
  [ "$(id -u)" = 0 ] || fail 'only root can install packages. Run this once:' \
    "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
  # The lists are fetched where apt has none, or where they are so old that a download fails.
  if ! can_be_installed "${missing[@]}"; then
    step 'reading package lists' apt_get update || fail 'apt-get update failed; is the network there?'
  fi
  step "installing ${#missing[@]} Debian packages" apt_get install --no-install-recommends "${missing[@]}" && return 0
  step 'reading package lists again' apt_get update || fail 'apt-get update failed; is the network there?'
  step "installing ${#missing[@]} Debian packages" apt_get install --no-install-recommends "${missing[@]}" ||
    fail 'apt-get could not install the packages; its last lines are above.'
}

# Whether apt knows a version of every one of these packages.
can_be_installed() {
  local versions
  versions=$(LC_ALL=C apt-cache policy "$@" 2>/dev/null | grep -c '^  Candidate: [^(]')
  [ "$versions" -eq $# ]
}

# Whether node_modules holds just what package-lock.json asks for, as `npm install` leaves it.
node_modules_is_current() {
  [ -f node_modules/.package-lock.json ] && node -e '
    const read = (file) => JSON.parse(require("node:fs").readFileSync(file, "utf8")).packages;
    const have = read("node_modules/.package-lock.json"), want = read("package-lock.json");
    const same = (a, b) => ["version", "link", "bin"].every((k) => JSON.stringify(a[k]) === JSON.stringify(b[k]));
    const ok = Object.entries(want).every(([path, w]) => path === "" || (have[path] ? same(have[path], w) : w.optional)) &&
      Object.keys(have).every((path) => want[path]);
    process.exit(ok ? 0 : 1);
  '
}

# npm before version 10 makes no link for a program named "node".
link_node() {
  local node
  for node in node_modules/node-linux-*/bin/node; do
    [ -e node_modules/.bin/node ] || ! [ -x "$node" ] || ln -s "../${node#node_modules/}" node_modules/.bin/node
  done
}

install_npm_packages() {
  local stamp=node_modules/.wrenn-lock-sum sum
  sum=$(sha256sum <package-lock.json)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && return 0
  command -v npm >/dev/null || fail 'npm is missing. Install Node.js with npm (Debian: apt-get install npm) and try again.'
  if ! node_modules_is_current; then
    # Where a registry has no packages for other platforms, a lock file that was written there lacks them, and `npm ci`
    # refuses it; `npm install` takes the same versions from it.
    step 'installing npm packages' npm ci --no-progress --loglevel=error 2>/dev/null ||
      step 'installing npm packages, as the lock file allows' npm install --no-save --no-progress --loglevel=error ||
      fail 'npm could not install the packages; its last lines are above.'
  fi
  link_node
  [ -x node_modules/.bin/node ] || fail "npm installed no Node.js for $(uname -m); Wrenn runs on x86_64 and aarch64."
  printf '%s\n' "$sum" >"$stamp"
}

# A PostgreSQL for tests, where there is none: its programs only, without a cluster and without a service that starts.
# Without it those tests are skipped and say so.
install_test_database() {
  local conf=/etc/postgresql-common/createcluster.d/wrenn-tests.conf
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && return 0
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
  mkdir -p "${conf%/*}"
  echo 'create_main_cluster = false' >"$conf"
  can_be_installed postgresql || step 'reading package lists' apt_get update || true
  step 'installing PostgreSQL for tests' apt_get install --no-install-recommends postgresql ||
    say 'PostgreSQL could not be installed; the tests on it are skipped'
  rm -f "$conf"
}

start=$EPOCHREALTIME
[ "$(uname -s)" = Linux ] || fail "Wrenn runs on Linux; this machine is $(uname -s)."
install_debian_packages
install_npm_packages
[ "${1:-}" != --for-tests ] || install_test_database
say "ready ($(seconds_since "$start"))"
