# lib.sh - what every part of tune leans on: messages, files below --root, CPU lists, JSON, the journal.
#
# USAGE: sourced by tune, never run. Functions answer in REPLY and with their return code, so that reading a knob
# starts no process: a box with a thousand interrupts is audited in well under a second.
#
# REQUIREMENTS: bash 5; coreutils for sync, mkdir, mv, rm.
#
# LIMITS: CPU numbers up to 8191, the largest the kernel can be built for.

root=""              # Every path below is looked up under it; empty is the real machine.
ERROR=""             # What the last failed write said.
WARNINGS=()

die() {              # die CODE TEXT: 2 is wrong usage or an unusable profile, 3 a system that failed.
    printf 'tune: %s\n' "$2" >&2
    exit "$1"
}

warn() {             # Kept for --json, and printed after the list of knobs.
    WARNINGS+=("$1")
}

### files below --root

slurp() {            # slurp PATH: REPLY is the first line. 1 cannot be read, 2 is not there.
    REPLY=""
    [[ -e $root$1 ]] || return 2
    IFS= read -r REPLY 2>/dev/null < "$root$1" || [[ -n $REPLY ]]
} 2>/dev/null

write_file() {       # write_file PATH TEXT: one write(2), as the kernel's files want it. 1 and ERROR where it failed.
    ERROR=$( { printf '%s\n' "$2" > "$root$1"; } 2>&1 ) && return
    ERROR=${ERROR##*: }
    return 1
}

tool() {             # tool NAME: REPLY is the program. Below --root only ROOT/bin counts, so a test never runs a real one.
    if [[ -n $root ]]; then
        REPLY=$root/bin/$1
        [[ -x $REPLY ]]
    else
        REPLY=$(type -P "$1")
    fi
}

run_tool() {         # run_tool NAME ARGUMENT...: 1 and ERROR where it is missing or failed; REPLY is what it printed.
    local name=$1
    shift
    tool "$name" || { ERROR="$name is not installed"; return 1; }
    REPLY=$("$REPLY" "$@" 2>&1 < /dev/null) && return
    ERROR=${REPLY##*$'\n'}
    ERROR=${ERROR##*: }
    return 1
}

likely_cause() {     # likely_cause ERROR: REPLY says what the kernel probably means, and what to do.
    case $1 in
        *"Permission denied"* | *"not permitted"*) REPLY="run as root; inside a container or under kernel lockdown even root may not" ;;
        *"Read-only file system"*) REPLY="this part of /sys or /proc is mounted read-only, as containers do: run on the host" ;;
        *"Invalid argument"*) REPLY="the kernel does not take this value here: compare with what the file or the driver lists as available" ;;
        *"busy"*) REPLY="something else holds it: stop that first (for EPP: the performance governor; for a cgroup: its processes)" ;;
        *"No space left"*) REPLY="no CPU, memory node or disk space is left for it" ;;
        *"not supported"*) REPLY="the driver does not offer this" ;;
        *) REPLY="see dmesg" ;;
    esac
}

version_at_least() { # version_at_least HAVE WANT: compares major.minor.
    local have_major have_minor want_major want_minor rest
    IFS=.- read -r have_major have_minor rest <<< "$1.0"
    IFS=.- read -r want_major want_minor rest <<< "$2.0"
    have_minor=${have_minor%%[!0-9]*}
    (( have_major > want_major || (have_major == want_major && ${have_minor:-0} >= want_minor) ))
}

### CPU lists ("0-3,8") and masks ("ff,00000001")

readonly CPU_MAX=8191

cpulist_expand() {   # REPLY is "0 1 2 3 8": each CPU once, ascending. 1 where the text is not a CPU list.
    local list=$1 part first last used group cpu IFS=,
    local -a seen=()
    REPLY=""
    [[ -z $list ]] && return 0
    [[ $list =~ ^[0-9]+[0-9,:/-]*$ && $list != *, && $list != *,,* ]] || return 1
    for part in $list; do
        [[ $part =~ ^([0-9]{1,5})(-([0-9]{1,5})(:([0-9]{1,5})/([0-9]{1,5}))?)?$ ]] || return 1
        first=$((10#${BASH_REMATCH[1]}))
        last=$((10#${BASH_REMATCH[3]:-$first}))
        used=$((10#${BASH_REMATCH[5]:-1}))
        group=$((10#${BASH_REMATCH[6]:-1}))
        (( first <= last && last <= CPU_MAX && used >= 1 && used <= group )) || return 1
        for (( cpu = first; cpu <= last; cpu++ )); do
            (( (cpu - first) % group < used )) && seen[cpu]=1
        done
    done
    IFS=' '
    REPLY="${!seen[*]}"
}

cpulist_fold() {     # cpulist_fold CPU...: REPLY is the shortest list, as the kernel writes it. Ascending input.
    local first="" last="" cpu out=""
    for cpu in "$@"; do
        if [[ -n $last ]] && (( cpu == last + 1 )); then
            last=$cpu
        else
            [[ -n $first ]] && { (( first == last )) && out+=",$first" || out+=",$first-$last"; }
            first=$cpu last=$cpu
        fi
    done
    [[ -n $first ]] && { (( first == last )) && out+=",$first" || out+=",$first-$last"; }
    REPLY=${out#,}
}

cpulist_pick() {     # cpulist_pick in|out LIST OTHER: REPLY is the CPUs of LIST that are (not) in OTHER, as a list.
    local which=$1 cpus cpu
    local -a other=() kept=()
    cpulist_expand "$2" || return 1
    cpus=$REPLY
    cpulist_expand "$3" || return 1
    for cpu in $REPLY; do other[cpu]=1; done
    for cpu in $cpus; do
        if [[ ( $which == in && -n ${other[cpu]:-} ) || ( $which == out && -z ${other[cpu]:-} ) ]]; then kept+=("$cpu"); fi
    done
    cpulist_fold ${kept[@]+"${kept[@]}"}
}

cpulist_within() {   # cpulist_within LIST OTHER: is LIST not empty and all of it in OTHER?
    [[ -n $1 ]] && cpulist_pick out "$1" "$2" && [[ -z $REPLY ]]
}

cpulist_equal() {
    local one
    cpulist_expand "$1" || return 1
    one=$REPLY
    cpulist_expand "$2" && [[ $REPLY == "$one" ]]
}

cpumask_of() {       # cpumask_of LIST: REPLY is the mask in words of 32 bits, "1,00000003".
    local cpu word out=""
    local -a words=(0)
    cpulist_expand "$1" || return 1
    for cpu in $REPLY; do
        (( words[cpu / 32] |= 1 << (cpu % 32) ))
        for (( word = cpu / 32; word >= 0; word-- )); do : "${words[word]:=0}"; done
    done
    printf -v out '%x' "${words[-1]}"
    for (( word = ${#words[@]} - 2; word >= 0; word-- )); do printf -v out '%s,%08x' "$out" "${words[word]}"; done
    REPLY=$out
}

cpumask_list() {     # cpumask_list MASK: REPLY is its CPU list. 1 where the text is not a mask.
    local part digits="" word base=0 bit
    local -a cpus=()
    [[ $1 =~ ^(0x)?[0-9a-fA-F]+(,[0-9a-fA-F]{1,8})*$ ]] || return 1
    local IFS=,
    for part in ${1#0x}; do
        # A word after the first keeps its leading zeros; shells and people sometimes drop them.
        [[ -n $digits ]] && printf -v part '%08x' "$((16#$part))"
        digits+=$part
    done
    while [[ -n $digits ]]; do
        part=${digits: -8}
        (( ${#digits} <= 8 )) && part=$digits
        word=$((16#$part))
        digits=${digits:0:${#digits} - ${#part}}
        for (( bit = 0; bit < 32; bit++ )); do (( word >> bit & 1 )) && cpus+=("$((base + bit))"); done
        (( base += 32 ))
    done
    cpulist_fold ${cpus[@]+"${cpus[@]}"}
}

### JSON

json_string() {      # REPLY is the text as a JSON string. Bytes beyond ASCII become "?", whatever their encoding was.
    local text=$1 code char escape
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    text=${text//$'\t'/\\t}
    if [[ $text == *[$'\x01'-$'\x1f'$'\x7f'-$'\xff']* ]]; then
        text=${text//[$'\x7f'-$'\xff']/?}
        for (( code = 1; code < 32; code++ )); do
            printf -v escape '%02x' "$code"
            printf -v char '%b' "\\x$escape"
            text=${text//"$char"/"\\u00$escape"}
        done
    fi
    REPLY="\"$text\""
}

json_object() {      # json_object KEY VALUE...: REPLY is an object of strings.
    local out="" key
    while (( $# )); do
        json_string "$1"
        key=$REPLY
        json_string "$2"
        out+=", $key: $REPLY"
        shift 2
    done
    REPLY="{${out#, }}"
}

### the journal
#
# One line a fact, fields separated by tabs, the last field a full stop: a line without it was torn by a power cut. A
# torn line was never synced, so the write it speaks of never happened, and it is skipped.
#
#   tickpath tuning journal 1
#   boot    BOOT_ID                                     what follows was written in this boot
#   set     LASTS   KNOB  TARGET  =PREVIOUS  =OURS      about to be written; PREVIOUS is the first original, always
#   undo    LASTS   KNOB  TARGET                        put back
#   cannot  LASTS   KNOB  TARGET                        the kernel will not have it moved: do not ask again in this boot
#
# LASTS is "runtime" (a reboot undoes it, so the line means nothing in another boot) or "disk" (a file of ours).

readonly JOURNAL_MAGIC="tickpath tuning journal 1"
declare -a ENTRIES=()                  # Live entries as KNOB<tab>TARGET, in the order they were first written.
declare -A PREVIOUS=() OURS=() LASTS=() CANNOT=()
JOURNAL=""
JOURNAL_OPEN=""
STEPS=0

# The journal may be read by anyone, while a knob's value may hold any byte.
field() {
    REPLY=${1//\\/\\\\}
    REPLY=${REPLY//$'\t'/\\t}
    REPLY=${REPLY//$'\n'/\\n}
}

# A test cuts the power after the n-th step, where a step is anything that leaves a trace. Never on a real machine.
step() {
    [[ -n $root && -n ${TICKPATH_TUNE_STOP_AFTER:-} ]] || return 0
    (( ++STEPS < TICKPATH_TUNE_STOP_AFTER )) || kill -KILL $$
}

journal_load() {
    local -a lines=()
    local line fact lasts knob target previous ours section="" here key
    JOURNAL=$root/var/lib/tickpath/tuning.journal
    [[ -s $JOURNAL ]] || return 0
    # Revert writes what the journal says, as root: a journal that another user could write is a way to become root.
    [[ ! $verb =~ ^(apply|revert)$ ]] || [[ ! -L $JOURNAL && ! -L ${JOURNAL%/*} && -O $JOURNAL && -O ${JOURNAL%/*} ]] ||
        die 3 "$JOURNAL or its folder is a link or belongs to another user than the one running tune: refused, as its content would be written to the kernel; nothing has been changed"
    mapfile -t lines 2>/dev/null < "$JOURNAL" || die 3 "$JOURNAL cannot be read: run as root"
    [[ ${lines[0]:-} == "$JOURNAL_MAGIC" ]] ||
        die 3 "$JOURNAL does not begin with '$JOURNAL_MAGIC': it is damaged or from another version; nothing has been changed. Move it away to start anew, at the price of not being able to revert"
    boot_id
    here=$REPLY
    for line in "${lines[@]:1}"; do
        [[ $line == *$'\t.' ]] || continue
        IFS=$'\t' read -r fact lasts knob target previous ours _ <<< "$line"
        key=$knob$'\t'$target
        case $fact in
            boot) section=$lasts ;;
            set)
                # A reboot has undone it, and numbers such as those of interrupts mean other things now.
                [[ $lasts == disk || $section == "$here" ]] || continue
                if [[ -z ${LASTS[$key]:-} ]]; then
                    ENTRIES+=("$key")
                    printf -v previous '%b' "${previous#=}"
                    PREVIOUS[$key]=$previous
                    LASTS[$key]=$lasts
                fi
                printf -v ours '%b' "${ours#=}"
                OURS[$key]=$ours
                ;;
            undo) journal_drop "$key" ;;
            cannot) [[ $section != "$here" ]] || CANNOT[$key]=1 ;;
        esac
    done
}

journal_drop() {
    local entry
    local -a kept=()
    [[ -n ${LASTS[$1]:-} ]] || return 0
    for entry in "${ENTRIES[@]}"; do [[ $entry == "$1" ]] || kept+=("$entry"); done
    ENTRIES=(${kept[@]+"${kept[@]}"})
    # shellcheck disable=SC2016  # unset itself expands the subscript, once; double quotes would expand it twice.
    unset 'PREVIOUS[$1]' 'OURS[$1]' 'LASTS[$1]'
}

boot_id() {
    slurp /proc/sys/kernel/random/boot_id || REPLY=unknown
}

# Start from a clean file that holds only what is live: written beside, synced, then renamed over the old one.
journal_begin() {
    [[ -z $JOURNAL_OPEN ]] || return 0
    local key folder=${JOURNAL%/*}
    mkdir -p "$folder" 2>/dev/null || die 3 "cannot make $folder for the journal (read-only disk?): nothing has been changed"
    boot_id
    {
        printf '%s\nboot\t%s\t.\n' "$JOURNAL_MAGIC" "$REPLY"
        for key in "${ENTRIES[@]}"; do journal_line "$key"; done
        for key in "${!CANNOT[@]}"; do printf 'cannot\truntime\t%s\t.\n' "$key"; done
    } 2>/dev/null > "$JOURNAL.new" || journal_failed
    step
    { sync "$JOURNAL.new" && mv "$JOURNAL.new" "$JOURNAL"; } || journal_failed
    step
    sync "$folder" || journal_failed
    JOURNAL_OPEN=1
}

journal_line() {
    local previous
    field "${PREVIOUS[$1]}"
    previous=$REPLY
    field "${OURS[$1]}"
    printf 'set\t%s\t%s\t=%s\t=%s\t.\n' "${LASTS[$1]}" "$1" "$previous" "$REPLY"
}

journal_failed() {
    die 3 "the journal $JOURNAL cannot be written (disk full or read-only?): stopped before the next change; what was changed is in the journal, \`tune revert\` takes it back"
}

journal_set() {      # journal_set LASTS KNOB TARGET PREVIOUS OURS: call journal_sync before the write itself.
    local key
    field "$3"
    key=$2$'\t'$REPLY
    journal_begin
    if [[ -z ${LASTS[$key]:-} ]]; then
        ENTRIES+=("$key")
        PREVIOUS[$key]=$4
        LASTS[$key]=$1
    fi
    OURS[$key]=$5
    journal_line "$key" >> "$JOURNAL" || journal_failed
    step
}

journal_mark() {     # journal_mark undo|cannot LASTS KNOB TARGET
    local key
    field "$4"
    key=$3$'\t'$REPLY
    journal_begin
    printf '%s\t%s\t%s\t.\n' "$1" "$2" "$key" >> "$JOURNAL" || journal_failed
    if [[ $1 == undo ]]; then journal_drop "$key"; else CANNOT[$key]=1; fi
    step
}

journal_sync() {
    sync "$JOURNAL" || journal_failed
    step
}

journal_end() {      # Nothing of ours is left: leave no file behind either.
    (( ${#ENTRIES[@]} == 0 )) && [[ -e $JOURNAL ]] || return 0
    rm -f "$JOURNAL" "$JOURNAL.new"
    step
    sync "${JOURNAL%/*}"
    rmdir "${JOURNAL%/*}" 2>/dev/null
    return 0
}
