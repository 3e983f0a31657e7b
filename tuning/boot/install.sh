#!/usr/bin/env bash
# install.sh - put tickpath on this machine, and take it off again. `make install` and `make uninstall` run it.
#
# USAGE: [PREFIX=/usr/local] [SYSCONFDIR=/etc] [DESTDIR=] [PYTHON=python3] install.sh install|uninstall
#
#   PREFIX/lib/tickpath/            a venv with the package and what it needs, tuning/, and the config files as shipped
#   PREFIX/bin/tickpath             the command       PREFIX/bin/tickpath-tune   tuning/tune
#   PREFIX/lib/systemd/system/      tickpath-tune.service, tickpath@.service
#   PREFIX/lib/sysusers.d/          the system user
#   SYSCONFDIR/tickpath/            tickpath.toml, tuning.profile: yours; kept once you have changed them
#
# Nothing is enabled or started. uninstall removes what install put there and nothing else: it keeps config files that were
# changed, the system user, and /var/lib/tickpath (latches of the kill switch, reports, tune's journal), and says so.
#
# REQUIREMENTS: Python 3.11 with venv and headers, gcc, coreutils, sed; what pip needs to find the pinned packages
# (PIP_NO_INDEX and PIP_FIND_LINKS install without a network). Root, unless PREFIX, SYSCONFDIR or DESTDIR is yours.

set -euo pipefail
export LC_ALL=C
umask 022

HERE=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
SOURCE=$(cd -- "$HERE/../.." && pwd)

### default variables

PREFIX=${PREFIX:-/usr/local}
SYSCONFDIR=${SYSCONFDIR:-/etc}
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-python3}

LIB=$PREFIX/lib/tickpath            # Where things will be; $DESTDIR in front is where they are put.
ETC=$SYSCONFDIR/tickpath
UNITS=(tickpath-tune.service tickpath@.service)

die() { echo "install.sh: $*" >&2; exit 2; }
say() { echo "$*"; }

[[ $PREFIX == /* && $SYSCONFDIR == /* ]] || die "PREFIX=$PREFIX SYSCONFDIR=$SYSCONFDIR: expected absolute paths"
[[ -z $DESTDIR || $DESTDIR == /* ]] || die "DESTDIR=$DESTDIR: expected an absolute path"
[[ "$PREFIX$SYSCONFDIR$DESTDIR" != *[[:space:]\|]* ]] || die "PREFIX, SYSCONFDIR and DESTDIR may not hold blanks or |"

### install

fresh=$DESTDIR$LIB.new              # Everything is made here, and moved when it is whole.
build=""                            # The source that the package is built from.
MADE=()                             # Folders that were not there before us.

install_all() {
    local -a before=()
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "PYTHON=$PYTHON: tickpath needs Python 3.11 or newer"
    trap 'rm -rf "$fresh" ${build:+"$build"}' EXIT
    rm -rf "$fresh"
    make_folder "$PREFIX/bin"
    make_folder "$PREFIX/lib/systemd/system"
    make_folder "$PREFIX/lib/sysusers.d"
    make_folder "$ETC"
    make_venv "$fresh"
    copy_tuning "$fresh/tuning"
    mkdir -p "$fresh/etc"
    cp "$SOURCE/engine/runtime/default.toml" "$fresh/etc/tickpath.toml"
    cp "$HERE/tuning.profile" "$fresh/etc/tuning.profile"
    place_config "$fresh/etc" tickpath.toml
    place_config "$fresh/etc" tuning.profile
    # What an earlier install made is ours still.
    [[ ! -e $DESTDIR$LIB/folders ]] || mapfile -t before < "$DESTDIR$LIB/folders"
    printf '%s\n' ${before[@]+"${before[@]}"} ${MADE[@]+"${MADE[@]}"} | sort -u > "$fresh/folders"
    # What runs keeps the files it has open; what starts finds the old ones or the new ones, never a mixture.
    rm -rf "$DESTDIR$LIB.old"
    [[ ! -e $DESTDIR$LIB ]] || mv "$DESTDIR$LIB" "$DESTDIR$LIB.old"
    mv "$fresh" "$DESTDIR$LIB"
    rm -rf "$DESTDIR$LIB.old"
    ln -sfn ../lib/tickpath/venv/bin/tickpath "$DESTDIR$PREFIX/bin/tickpath"
    ln -sfn ../lib/tickpath/tuning/tune "$DESTDIR$PREFIX/bin/tickpath-tune"
    place_units
    [[ -n $DESTDIR ]] || tell_systemd
    warn_of_python
    say "installed below $DESTDIR$PREFIX; config in $DESTDIR$ETC; nothing is enabled: see $LIB/tuning/boot/README.md"
}

# Make a folder below DESTDIR, and remember every part of the path that was not there.
make_folder() {
    local part=$1
    while [[ -n $part && ! -d $DESTDIR$part ]]; do
        MADE+=("$part")
        part=${part%/*}
    done
    mkdir -p "$DESTDIR$1"
}

# A venv knows its own path, so it is told the one it will have; the package is built outside of the source.
make_venv() {
    local venv=$1/venv file
    local -a pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile)
    "$PYTHON" -m venv "$venv" || die "$PYTHON -m venv failed: apt-get install python3-venv"
    build=$(mktemp -d)
    cp -R "$SOURCE"/{shm,engine,tools,perf,setup.py,pyproject.toml} "$build"
    rm -f "$build"/*/*.so
    "${pip[@]}" -r "$SOURCE/requirements.txt"
    "${pip[@]}" --no-deps --no-build-isolation "$build"
    for file in "$venv"/pyvenv.cfg "$venv"/bin/*; do
        if [[ -f $file && ! -L $file ]]; then sed -i "s|$1|$LIB|g" "$file"; fi
    done
    rm -f "$venv"/lib/python*/site-packages/tickpath-*.dist-info/direct_url.json
    find "$venv" -name __pycache__ -type d -prune -exec rm -rf {} +
    "$venv/bin/python" -m compileall -q -s "$1" -p "$LIB" "$venv/lib" || true
}

# A Python below a home folder (pyenv, conda) is closed to the system user that the engine runs as.
warn_of_python() {
    local part
    part=$(readlink -f -- "$DESTDIR$LIB/venv/bin/python")
    while part=${part%/*} && [[ -n $part ]]; do
        if (( (8#$(stat -c %a -- "$part") & 1) == 0 )); then
            say "warning: $part is closed to others, and with it this Python to the user tickpath: install with PYTHON=/usr/bin/python3"
            return
        fi
    done
}

copy_tuning() {
    mkdir -p "$1"
    cp -R "$SOURCE"/tuning/. "$1"
    find "$1" -name __pycache__ -type d -prune -exec rm -rf {} +
}

# A config file that somebody changed since it was installed is theirs.
place_config() {
    local shipped=$1/$2 placed=$DESTDIR$ETC/$2 earlier=$DESTDIR$LIB/etc/$2
    if [[ -e $placed ]] && ! cmp -s "$placed" "$earlier" && ! cmp -s "$placed" "$shipped"; then
        say "kept $placed, which was changed; the new one is $LIB/etc/$2"
    else
        cp "$shipped" "$placed"
    fi
}

place_units() {
    local unit
    for unit in "${UNITS[@]}"; do
        sed -e "s|@LIB@|$LIB|g" -e "s|@ETC@|$ETC|g" "$HERE/$unit" > "$DESTDIR$PREFIX/lib/systemd/system/$unit"
    done
    cp "$HERE/sysusers.conf" "$DESTDIR$PREFIX/lib/sysusers.d/tickpath.conf"
}

tell_systemd() {
    # Elsewhere systemd does not look.
    [[ $EUID == 0 && ( $PREFIX == /usr || $PREFIX == /usr/local ) ]] || return 0
    if command -v systemd-sysusers > /dev/null; then
        systemd-sysusers "$PREFIX/lib/sysusers.d/tickpath.conf" || say "the system user could not be made"
    fi
    [[ ! -d /run/systemd/system ]] || systemctl daemon-reload
}

### uninstall

uninstall_all() {
    local unit
    local -a made=()
    [[ ! -e $DESTDIR$LIB/folders ]] || mapfile -t made < <(sort -r "$DESTDIR$LIB/folders")
    for unit in "${UNITS[@]}"; do
        [[ -n $DESTDIR || ! -d /run/systemd/system ]] || stop_unit "$unit"
        rm -f "$DESTDIR$PREFIX/lib/systemd/system/$unit"
    done
    rm -f "$DESTDIR$PREFIX/lib/sysusers.d/tickpath.conf"
    remove_link "$DESTDIR$PREFIX/bin/tickpath" ../lib/tickpath/venv/bin/tickpath
    remove_link "$DESTDIR$PREFIX/bin/tickpath-tune" ../lib/tickpath/tuning/tune
    remove_config tickpath.toml
    remove_config tuning.profile
    rm -rf "$DESTDIR$LIB" "$DESTDIR$LIB.new" "$DESTDIR$LIB.old"
    remove_empty ${made[@]+"${made[@]}"}
    [[ -n $DESTDIR ]] || tell_what_stays
}

# tune's own stop puts the machine's settings back.
stop_unit() {
    case $1 in
        *@*) systemctl stop "${1/@/@*}" || true ;;
        *) systemctl disable --now "$1" || true ;;
    esac
}

remove_link() { if [[ -L $1 && $(readlink -- "$1") == "$2" ]]; then rm -f "$1"; fi; }

remove_config() {
    local placed=$DESTDIR$ETC/$1
    [[ -e $placed ]] || return 0
    if cmp -s "$placed" "$DESTDIR$LIB/etc/$1"; then rm -f "$placed"; else say "kept $placed, which was changed"; fi
}

# Folders that we made, deepest first, unless somebody else has put something there.
remove_empty() {
    local folder
    for folder in "$@"; do
        if [[ -d $DESTDIR$folder ]]; then rmdir --ignore-fail-on-non-empty "$DESTDIR$folder"; fi
    done
}

tell_what_stays() {
    [[ ! -d /run/systemd/system ]] || systemctl daemon-reload
    if getent passwd tickpath > /dev/null; then say "kept the system user tickpath (userdel tickpath)"; fi
    if [[ -d /var/lib/tickpath ]]; then say "kept /var/lib/tickpath: the kill switch's latches, reports, tune's journal"; fi
}

### work

case ${1:-} in
    install) install_all ;;
    uninstall) uninstall_all ;;
    *) die "expected install or uninstall" ;;
esac
