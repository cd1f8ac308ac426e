# Sourced by ./run and ./test: makes the environment that both work in. Starts nothing and scans nothing.
#
# .venv is filled from requirements/*.lock (every file pinned by its hash, wheels only, so that no foreign code runs
# while installing). What was installed is remembered in .venv/installed, and a second start installs nothing.
# FEDIWARDEN_VENV names an environment that is ready as it is: nothing is installed then.
# shellcheck shell=sh

VENV=${FEDIWARDEN_VENV:-$PWD/.venv}
DONE=$VENV/installed
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }

stop() {
    say "stopped: $*"
    exit 1
}

# debian PACKAGE...: installs Debian packages, as root or with sudo
debian() {
    command -v apt-get >/dev/null || stop "this needs $*, and there is no apt-get here to install it"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || stop "this needs the Debian packages $*; as root: apt-get install $*"
        as_root=sudo
    fi
    say "Installing Debian packages: $*"
    if ! told=$({
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
            $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install "$@"
    } 2>&1 </dev/null); then
        say "$told"
        stop "these Debian packages could not be installed; as root: apt-get install $*"
    fi
}

# Prints a Python that is new enough and can make environments; nothing if there is none.
find_python() {
    for candidate in ${PYTHON:-} /usr/bin/python3 python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

make_venv() {
    if [ -e "$DONE/place" ] && [ "$(cat "$DONE/place")" != "$PWD" ]; then
        say "This folder was moved: making its Python environment again."
        rm -rf "$VENV"
    fi
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        if [ -z "$python" ]; then
            debian python3 python3-venv ca-certificates
            python=$(find_python)
        fi
        [ -n "$python" ] || stop "Python 3.11 or newer is needed, and there is none here (Debian 12 has 3.11)"
        say "Making a Python environment in .venv with $("$python" --version) ($python)"
        "$python" -m venv --clear "$VENV"
    fi
    mkdir -p "$DONE"
    printf '%s\n' "$PWD" >"$DONE/place"
}

# set_up LOCK...: the environment with these locks and the package itself
set_up() {
    [ -z "${FEDIWARDEN_VENV:-}" ] || return 0
    make_venv
    new=
    for lock; do
        cmp -s "requirements/$lock.lock" "$DONE/$lock.lock" || new="$new $lock"
    done
    if [ -n "$new" ]; then
        say "Installing the packages of$(for lock in $new; do printf ' requirements/%s.lock' "$lock"; done) (checked by hash; some minutes at first)"
        # shellcheck disable=SC2046 # one word per option is meant
        "$VENV/bin/python" -m pip install --quiet --require-hashes --only-binary :all: \
            $(for lock in $new; do printf ' -r requirements/%s.lock' "$lock"; done) >&2 || stop "pip could not install the packages"
        for lock in $new; do
            cp "requirements/$lock.lock" "$DONE/$lock.lock"
        done
    fi
    if ! cmp -s pyproject.toml "$DONE/pyproject.toml"; then
        say "Installing fediwarden itself from this folder"
        "$VENV/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable . >&2 || stop "pip could not install fediwarden"
        cp pyproject.toml "$DONE/pyproject.toml"
    fi
}

# install_models: into FEDIWARDEN_HOME, or where the program keeps them
install_models() {
    say "Seeing to the models (checked by hash)"
    "$VENV/bin/fediwarden" models install >&2 || stop "the models could not be installed"
}
