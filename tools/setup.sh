# Sourced by tools/demo, tools/test and tools/check: brings a bare Debian 12 to where they can run.
#
# Everything lands in .venv beside this folder, except Debian packages, which only root gets, and
# only those that are missing. Nothing is started and no service of the machine is changed.
# shellcheck shell=bash

VENV=.venv

say() { printf 'set-up: %s\n' "$*" >&2; }

# The first Python that is new enough and can make an environment. Debian's own comes first: it is
# built with profile feedback, which is worth a tenth of the speed.
find_python() {
    local candidate
    for candidate in /usr/bin/python3.11 /usr/bin/python3 python3.11 python3; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

is_installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# Install Debian packages without questions and without starting what they bring: Postfix and Knot
# would otherwise listen at once. policy-rc.d is Debian's own way to say so.
install_packages() {
    say "installing $*"
    local status=0 policy=/usr/sbin/policy-rc.d made_policy=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made_policy=yes
    fi
    {
        if [[ " $* " == *" postfix "* ]]; then
            echo 'postfix postfix/main_mailer_type select Local only' | debconf-set-selections
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q && apt-get install -q -y --no-install-recommends "$@"
    } >/tmp/eilpost-apt.$$ 2>&1 </dev/null || status=$?
    [ -z "$made_policy" ] || rm -f "$policy"
    [ "$status" = 0 ] || tail -n 5 /tmp/eilpost-apt.$$ >&2
    rm -f /tmp/eilpost-apt.$$
    return "$status"
}

# What the tests talk to besides our own code. Whatever is missing in the end is only said: the
# tests that need it skip with its name, and pytest's closing line counts them.
setup_programs() {
    command -v dpkg-query >/dev/null || { say "no Debian: some tests will skip"; return 0; }
    local package missing=()
    # The last line is the disk of the power cut.
    for package in chromium chromium-driver curl knot postfix strace swaks \
        e2fsprogs fuse3 libnbd-bin nbdkit nbdkit-plugin-python xfsprogs; do
        is_installed "$package" && continue
        if [ "$package" = postfix ] && [ -e /usr/sbin/sendmail ]; then
            # Installing Postfix would remove the mail server that this machine has.
            say "another mail server is installed, so Postfix is not; its tests will skip"
            continue
        fi
        missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return 0
    if ! can_install || ! install_packages "${missing[@]}"; then
        say "not installed, so some tests will skip: ${missing[*]}"
    fi
}

# The virtual environment, from the lock file with its hashes. The stamp is the hash of what it was
# made from, so a second call costs milliseconds and a changed lock is noticed.
setup_python() {
    exec 9>".setup.lock"
    flock 9
    local wanted
    wanted=$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)
    if [ "$(cat "$VENV/eilpost-stamp" 2>/dev/null)" != "$wanted" ]; then
        make_environment
        printf '%s\n' "$wanted" >"$VENV/eilpost-stamp"
    fi
    exec 9>&-
}

make_environment() {
    local python
    if [ ! -x "$VENV/bin/python" ]; then
        if ! python=$(find_python); then
            can_install && install_packages python3 python3-venv || true
            python=$(find_python) || {
                say "needs Python 3.11 with venv: apt-get install python3-venv"
                exit 1
            }
        fi
        say "making $VENV with $python"
        "$python" -m venv "$VENV"
    fi
    say "installing the locked dependencies"
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        --require-hashes -r requirements.lock
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        --no-deps --no-build-isolation -e .
}
