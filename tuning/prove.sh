# prove.sh - tune prove: measure, apply, measure, revert, measure, and the three side by side.
#
# USAGE: sourced by tune, never run. Measures interruptions (`tickpath jitter`) on the latency CPUs, and round trips over
# two rings between two of them. Interrupted at any point, it reverts what was applied; killed by SIGKILL, it leaves a
# journal, and `tune revert` does it.
#
# REQUIREMENTS: the tickpath package, for what measures; everything else here does without.
#
# LIMITS: kernel arguments act after a reboot and cannot be proven so. A box that is tuned already is refused: revert first.

readonly PACKAGE=$TUNING/..
PROVE_PYTHON=""
PROVE_WORK=""
PROVE_CHILD=""
PROVE_CHILD_IS=""
PROVE_APPLIED=""

tell() { printf 'prove: %s\n' "$1" >&2; }

# The interpreter that has the package. Below --root only ROOT/bin/python3 counts, so a test never measures by mistake.
prove_python() {
    local candidate script said="no python3 was found"
    local -a candidates=("${TICKPATH_PYTHON:-}" "$PACKAGE/.venv/bin/python")
    if [[ -n $root ]]; then
        candidates=("$root/bin/python3")
    else
        if script=$(type -P tickpath) && IFS= read -r candidate < "$script"; then candidates+=("${candidate#"#!"}"); fi
        candidates+=("$(type -P python3)")
    fi
    for candidate in "${candidates[@]}"; do
        [[ -n $candidate && -x $candidate ]] || continue
        PROVE_PYTHON=$candidate
        said=$(cd "$PACKAGE" && "$candidate" -c 'import perf.prove, tools.jitter' 2>&1) && return
        said="$candidate: ${said##*$'\n'}"
    done
    die 2 "prove measures with the tickpath package, and it is not installed ($said): run 'make build' in ${PACKAGE%/tuning/..} first, or name its interpreter: TICKPATH_PYTHON=/path/to/python tune prove"
}

# In the background, so that a signal is served at once and not when the command has ended.
prove_child() {      # prove_child measure|tune COMMAND...
    local code
    PROVE_CHILD_IS=$1
    shift
    "$@" &
    PROVE_CHILD=$!
    wait "$PROVE_CHILD"
    code=$?
    PROVE_CHILD=""
    return "$code"
}

measure() {          # measure PHASE
    local phase=$1 cpus=${latency:-$online}
    tell "$phase: $seconds s of interruptions on CPU $cpus${PROVE_PAIR:+, then round trips between CPUs $PROVE_PAIR}"
    prove_child measure in_package tools.cli jitter --cpus "$cpus" --seconds "$seconds" --json "$PROVE_WORK/$phase.jitter" > /dev/null || return
    [[ -z $PROVE_PAIR ]] ||
        prove_child measure in_package perf.prove ring --cpus "$PROVE_PAIR" --seconds "$seconds" --json "$PROVE_WORK/$phase.ring"
}

in_package() { cd "$PACKAGE" && exec "$PROVE_PYTHON" -m "$@"; }

# Two latency CPUs; or, where there is only one, that and a housekeeping CPU; or any two.
prove_pair() {
    local -a cpus=() house=()
    cpulist_expand "$latency" && read -r -a cpus <<< "$REPLY"
    cpulist_expand "$housekeeping" && read -r -a house <<< "$REPLY"
    cpus+=(${house[@]+"${house[@]}"})
    PROVE_PAIR=""
    (( ${#cpus[@]} < 2 )) || PROVE_PAIR=${cpus[0]},${cpus[1]}
}

tune_again() {       # tune_again VERB FILE: the same tune with the same options; what it says as JSON goes to FILE.
    local option
    local -a options=("$1" --json)
    [[ -z $root ]] || options+=(--root "$root")
    if [[ $1 != revert ]]; then
        [[ -z $profile ]] || options+=(--profile "$profile")
        [[ -z $dangerous_allowed ]] || options+=(--dangerous)
        [[ -z $login_interface_allowed ]] || options+=(--login-interface)
    fi
    [[ -z ${only#,} ]] || options+=(--only "${only#,}")
    "$TUNING/tune" "${options[@]}" > "$PROVE_WORK/$2"
}

# Nothing may stop us from here on. A measurement is ended; a tune that is at work is waited for, as it ends by itself.
prove_interrupted() {
    local signal=$1 number=$2
    trap '' INT TERM HUP
    tell "interrupted by SIG$signal"
    if [[ -n $PROVE_CHILD ]]; then
        [[ $PROVE_CHILD_IS == tune ]] || kill -TERM "$PROVE_CHILD" 2>/dev/null
        wait "$PROVE_CHILD" 2>/dev/null
    fi
    prove_revert || exit 3
    exit $(( 128 + number ))
}

prove_revert() {
    [[ -n $PROVE_APPLIED ]] || { tell "nothing had been changed"; return 0; }
    if tune_again revert revert; then
        PROVE_APPLIED=""
        tell "all that was changed has been put back"
    else
        tell "not everything could be put back; this is what tune revert says:"
        "$TUNING/tune" revert ${root:+--root "$root"} >&2
        return 1
    fi
}

prove() {
    local code=0
    (( ${#ENTRIES[@]} == 0 )) || die 2 "this box is tuned already (${#ENTRIES[@]} settings in $JOURNAL), so there is no 'before' to measure: tune revert first"
    prove_python
    prove_pair
    PROVE_WORK=$(mktemp -d) || die 3 "cannot make a folder for the measurements"
    trap 'rm -rf "$PROVE_WORK"' EXIT
    trap 'prove_interrupted INT 2' INT
    trap 'prove_interrupted TERM 15' TERM
    trap 'prove_interrupted HUP 1' HUP

    prove_child tune tune_again audit audit.before
    measure before || die 3 "what measures failed, before anything was changed: see above"
    # Said before it is true: a signal between the two finds nothing in the journal, and that is no harm.
    PROVE_APPLIED=1
    tell "applying"
    prove_child tune tune_again apply apply || code=$?
    if (( code < 3 )); then
        measure applied || tell "what measures failed after apply: see above"
    else
        tell "apply failed: what it had changed is put back"
    fi
    tell "reverting"
    prove_child tune tune_again revert revert
    PROVE_APPLIED=""
    measure reverted || tell "what measures failed after revert: see above"
    prove_child tune tune_again audit audit.after
    ( in_package perf.prove table "$PROVE_WORK" ${json:+--json} )
}
