# knob.sh - what one knob is, how its state is found, how it is set and put back.
#
# USAGE: sourced by tune, never run. A file in knobs/ is data and a few small functions:
#
#   name      as in its file name            why, danger, source   sentences for the operator
#   since     oldest kernel that has it      needs                 what must be there, in words
#   takes     what the profile may say under the key of the same name (- becomes _); without it there is no key
#   tier      normal, or dangerous: then --dangerous must be given
#   lasts     runtime (a reboot undoes it), disk (a file of ours) or boot (a kernel argument, never written by apply)
#
#   want              says `target PATH VALUE` for each thing to be set, or one of no_op, unsupported, refuse REASON;
#                     `value` is the profile's word for this knob. `note TEXT` adds to what is reported, and `guard
#                     REASON` lets the knob be read but not written.
#   got TARGET        REPLY is its present value. 1 cannot be read, 2 is not there, 3 has gone for good.
#   put TARGET VALUE  sets it. 1 and ERROR where that failed.
#   restore TARGET VALUE                as put, where putting back is something else
#   same A B          are these the same value, written differently?
#   enough WANT GOT   is this good enough?
#   still_ours NOW OURS PREVIOUS        may revert take it for what apply left?
#   restored PREVIOUS NOW               has putting back worked?
#   honoured          for kernel arguments: does the running kernel show that it took it? If not, says what it is
#   immovable         the kernel's words for "this one cannot be set, and that is no fault"
#
# LIMITS: state is known only by reading it back. What cannot be read is never ok.

knob_defaults() {
    name="" why="" danger="" source="" since=2.6 needs="" takes="" tier=normal lasts=runtime immovable=""
    want() { :; }
    got() {
        slurp "$1" || return
        # Files that list every choice mark the present one: always [madvise] never.
        [[ $REPLY =~ \[([^]]+)\] ]] && REPLY=${BASH_REMATCH[1]}
        return 0
    }
    put() { write_file "$1" "$2"; }
    restore() { put "$1" "$2"; }
    same() { [[ $1 == "$2" ]]; }
    enough() { same "$1" "$2"; }
    still_ours() { same "$2" "$1"; }
    restored() { same "$1" "$2"; }
    honoured() { :; }
}

knob_load() {        # knob_load FILE
    knob_defaults
    # shellcheck source=/dev/null
    source "$1"
    key=${name//-/_}
}

### comparisons for knobs to use

same_number() { [[ $1 =~ ^-?[0-9]+$ && $2 =~ ^-?[0-9]+$ ]] && (( $1 == $2 )); }
at_least() { [[ $1 =~ ^-?[0-9]+$ && $2 =~ ^-?[0-9]+$ ]] && (( $2 >= $1 )); }
at_most() { [[ $1 =~ ^-?[0-9]+$ && $2 =~ ^-?[0-9]+$ ]] && (( $2 <= $1 )); }

same_mask() {
    local one
    cpumask_list "$1" || return 1
    one=$REPLY
    cpumask_list "$2" && [[ $REPLY == "$one" ]]
}

mask_within() {      # mask_within WANT GOT: is GOT not empty and inside WANT?
    local outer
    cpumask_list "$1" || return 1
    outer=$REPLY
    cpumask_list "$2" && cpulist_within "$REPLY" "$outer"
}

### what `want` says

target() { TARGETS+=("$1") WANTS+=("$2"); }
no_op() { STATE=no-op REASON=$1; }
unsupported() { STATE=unsupported REASON=$1; }
refuse() { STATE=refused REASON=$1; }
note() { NOTES+="${NOTES:+; }$1"; }
guard() { GUARD=$1; }

need_latency() {     # For knobs that mean nothing without a latency CPU.
    [[ -z $latency ]] || return 0
    if [[ ${SETTING[latency_cpus]} == none ]]; then
        no_op "latency_cpus = none"
    else
        unsupported "no CPU can be spared for latency: CPU 0 and its core's other threads are all there is"
    fi
    return 1
}

need_interface() {
    (( ${#INTERFACES[@]} )) || { no_op "the profile names no interface"; return 1; }
    local interface
    for interface in "${INTERFACES[@]}"; do
        [[ $interface != "$LOGIN_INTERFACE" || -n $login_interface_allowed ]] ||
            guard "you are logged in through $interface: add --login-interface to change it all the same"
    done
}

# Every online CPU's file of this name, where it exists: each_cpu cpufreq/scaling_governor performance
each_cpu() {
    local cpu
    cpulist_expand "$online"
    for cpu in $REPLY; do
        [[ -e $root/sys/devices/system/cpu/cpu$cpu/$1 ]] && target "/sys/devices/system/cpu/cpu$cpu/$1" "$2"
    done
    return 0
}

nic_irq_numbers() {  # REPLY is the interrupt numbers of the profile's interfaces.
    local interface entry found=""
    for interface in ${INTERFACES[@]+"${INTERFACES[@]}"}; do
        # A virtio device's interrupts belong to the PCI device above it.
        for entry in "$root/sys/class/net/$interface/device"/{,../}msi_irqs/[0-9]*; do
            [[ -e $entry ]] && found+=" ${entry##*/}"
        done
    done
    REPLY=${found# }
}

cgroup_remove() {    # The kernel's group goes with its files; in a test's tree they are files like others.
    [[ -z $root ]] || rm -f "$root$1"/*
    ERROR=$(rmdir "$root$1" 2>&1)
}

### the state of a knob

# Fills STATE REASON WANT GOT, and TARGETS WANTS GOTS with OFF the indexes that are not as wanted.
evaluate() {
    local i missing="" unreadable="" code fixed=0 marked
    local -a wrong=() live=()
    STATE="" REASON="" NOTES="" GUARD="" WANT="" GOT=""
    TARGETS=() WANTS=() GOTS=() OFF=()
    value=${SETTING[$key]:-}
    if [[ -n $takes && $value == keep ]]; then
        no_op "the profile leaves it alone ($key = keep)"
        return
    fi
    want
    for i in "${!TARGETS[@]}"; do
        got "${TARGETS[i]}"
        code=$?
        GOTS[i]=$REPLY
        case $code in
            0) ;;
            2) missing=${missing:-${TARGETS[i]}}; continue ;;
            3) continue ;;
            *) unreadable=${unreadable:-${TARGETS[i]}}; GOTS[i]=""; continue ;;
        esac
        live+=("$REPLY")
        if ! enough "${WANTS[i]}" "${GOTS[i]}"; then
            field "${TARGETS[i]}"
            marked=$name$'\t'$REPLY
            if [[ -n ${CANNOT[$marked]:-} ]]; then
                fixed=$(( fixed + 1 ))
                continue
            fi
            OFF+=("$i")
            wrong+=("${GOTS[i]}")
        fi
    done
    summary ${WANTS[@]+"${WANTS[@]}"}
    WANT=$REPLY
    if (( ${#OFF[@]} )); then summary "${wrong[@]}"; else summary ${live[@]+"${live[@]}"}; fi
    GOT=$REPLY
    (( fixed == 0 )) || note "the kernel will not move $fixed of ${#TARGETS[@]}"

    if [[ -n $STATE ]]; then
        OFF=()
    elif [[ -n $unreadable ]]; then
        refuse "$unreadable cannot be read, so nothing is known: run as root, or the driver has no answer"
        OFF=()
    elif [[ -n $missing ]]; then
        if [[ $missing == /sys/kernel/debug/* && $EUID != 0 ]]; then
            refuse "$missing: only root may look there"
        else
            unsupported "no $missing here: needs ${needs:-kernel $since or newer}"
        fi
        OFF=()
    elif (( ${#TARGETS[@]} == 0 )); then
        unsupported "needs ${needs:-kernel $since or newer}"
    elif [[ $lasts == boot ]]; then
        evaluate_boot
    elif (( ${#OFF[@]} == 0 )); then
        STATE=ok
    elif [[ -n $GUARD ]]; then
        refuse "$GUARD"
    elif [[ $tier == dangerous && -z $dangerous_allowed ]]; then
        refuse "dangerous: add --dangerous once you have read what it risks"
    else
        STATE=drift
    fi
    [[ -z $NOTES ]] || REASON+="${REASON:+; }$NOTES"
}

summary() {          # summary VALUE...: REPLY is one line for many.
    local text
    local -A seen=()
    local -a distinct=()
    REPLY=""
    (( $# )) || return 0
    for text in "$@"; do
        text=${text:-(empty)}
        [[ -n ${seen[=$text]:-} ]] || distinct+=("$text")
        seen[=$text]=$(( ${seen[=$text]:-0} + 1 ))
    done
    if (( ${#distinct[@]} == 1 )); then
        REPLY=${distinct[0]}
        (( $# == 1 )) || REPLY+=" (all $#)"
        return
    fi
    for text in "${distinct[@]:0:4}"; do REPLY+=", $text (${seen[=$text]})"; done
    (( ${#distinct[@]} <= 4 )) || REPLY+=", and $(( ${#distinct[@]} - 4 )) other values"
    REPLY=${REPLY#, }
}

### kernel arguments

declare -A CMDLINE=() DROPIN_HAS=()
BOOT_LINE=""
CMDLINE_READ=""
readonly DROPIN=/etc/default/grub.d/60-tickpath.cfg
readonly DROPIN_MARK="# Written by tickpath's tuning/tune; \`tune revert\` removes it."

boot_read() {
    CMDLINE=() DROPIN_HAS=() CMDLINE_READ=""
    slurp /proc/cmdline && arguments CMDLINE "$REPLY" && CMDLINE_READ=1
    dropin_read && arguments DROPIN_HAS "$REPLY"
}

arguments() {        # arguments ARRAY TEXT: name=value words, up to the "--" that ends the kernel's own.
    local -n into=$1
    local word
    local -a words=()
    read -r -a words <<< "$2"
    for word in "${words[@]}"; do
        [[ $word != -- ]] || break
        [[ $word == *=* ]] || word+="="
        into[${word%%=*}]=${word#*=}
    done
    return 0
}

dropin_read() {      # REPLY is the arguments in our drop-in. 1 there is none; 2 there is one that we did not write.
    local line found=""
    local -a lines=()
    REPLY=""
    [[ -e $root$DROPIN ]] || return 1
    mapfile -t lines 2>/dev/null < "$root$DROPIN"
    [[ ${lines[0]:-} == "$DROPIN_MARK" ]] || return 2
    for line in "${lines[@]}"; do
        [[ $line == GRUB_CMDLINE_LINUX_DEFAULT=\"*\" ]] && found=$line
    done
    # shellcheck disable=SC2016  # The dollar is grub's.
    found=${found#'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT '}
    REPLY=${found%\"}
}

# REPLY is how the boot line gets onto the kernel line here. Only a drop-in of our own is ever written: all other files are
# somebody else's.
boot_how() {
    local place args="'${BOOT_LINE}'"
    if [[ -d $root${DROPIN%/*} ]]; then
        REPLY="sudo tuning/tune apply --only boot-dropin --write-dropin${profile:+ --profile $profile} && sudo update-grub, then reboot; tune revert takes it back"
        return
    elif tool grubby; then
        REPLY="sudo grubby --update-kernel=ALL --args=$args, then reboot; --remove-args=$args takes it back"
        return
    fi
    for place in /boot /efi /boot/efi; do
        [[ -d $root$place/loader/entries || -e $root$place/loader/loader.conf ]] || continue
        if tool kernel-install; then
            REPLY="systemd-boot: [ -s /etc/kernel/cmdline ] || sudo cp /proc/cmdline /etc/kernel/cmdline; append the line to that one line; sudo kernel-install add \"\$(uname -r)\" \"/lib/modules/\$(uname -r)/vmlinuz\", then reboot; take it back the same way"
        else
            REPLY="systemd-boot: append the line to the options line of the entry in $place/loader/entries, then reboot"
        fi
        return
    done
    if [[ -e $root/etc/default/grub ]]; then
        REPLY="append the line to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub; sudo update-grub, or sudo grub2-mkconfig -o /boot/grub2/grub.cfg, then reboot"
    elif [[ -e $root/boot/extlinux/extlinux.conf ]]; then
        REPLY="append the line to the append line in /boot/extlinux/extlinux.conf, then reboot"
    else
        REPLY="append the line to the kernel line of this machine's boot loader (a virtual machine's is often its host's), then reboot"
    fi
}

argument() {         # argument NAME VALUE: what a boot knob's `want` says.
    target "$1" "$2"
    version_at_least "$KERNEL" "$since" || unsupported "needs kernel $since; this is $KERNEL"
    [[ -n $CMDLINE_READ ]] || unsupported "/proc/cmdline cannot be read, so nothing is known"
}

argument_got() {     # The `got` of boot knobs.
    REPLY=${CMDLINE[$1]-absent}
}

# A kernel argument is ok when this boot has it and the kernel shows that it took it, pending when only our drop-in has
# it, and refused when somebody else's line says something different.
evaluate_boot() {
    local i argument
    if (( ${#OFF[@]} == 0 )); then
        STATE=ok
        honoured || OFF=()
        return
    fi
    for i in "${OFF[@]}"; do
        argument=${TARGETS[i]}
        if [[ ${GOTS[i]} != absent && ${DROPIN_HAS[$argument]-absent} != "${GOTS[i]}" ]]; then
            refuse "$argument=${GOTS[i]} is already on the kernel line and not from our drop-in: change it where it was written"
            return
        fi
    done
    if [[ $tier == dangerous && -z $dangerous_allowed ]]; then
        refuse "dangerous: add --dangerous once you have read what it risks"
        return
    fi
    for i in "${OFF[@]}"; do
        if ! same "${WANTS[i]}" "${DROPIN_HAS[${TARGETS[i]}]-absent}"; then
            STATE=drift
            REASON="needs the boot line and a reboot"
            return
        fi
    done
    STATE=pending-reboot
    REASON="in $DROPIN: run update-grub and reboot"
}

# All boot knobs together make one line. What others already put on the kernel line is theirs and not repeated.
boot_collect() {
    local file i
    BOOT_LINE=""
    for file in "${KNOB_FILES[@]}"; do
        [[ ${LASTS_OF[$file]} == boot ]] || continue
        knob_load "$file"
        evaluate
        for i in "${!TARGETS[@]}"; do
            case $STATE in
                drift | pending-reboot) ;;
                ok) [[ -n ${DROPIN_HAS[${TARGETS[i]}]+set} ]] || continue ;;
                *) continue ;;
            esac
            BOOT_LINE+=" ${TARGETS[i]}${WANTS[i]:+=${WANTS[i]}}"
        done
    done
    BOOT_LINE=${BOOT_LINE# }
}

### setting and putting back

# Previous values are in the journal and on the disk before the first of them is overwritten.
knob_apply() {
    local i failed=""
    for i in "${OFF[@]}"; do journal_set "$lasts" "$name" "${TARGETS[i]}" "${GOTS[i]}" "${WANTS[i]}"; done
    journal_sync
    for i in "${OFF[@]}"; do
        if put "${TARGETS[i]}" "${WANTS[i]}"; then
            change "${TARGETS[i]}" "${GOTS[i]}" "${WANTS[i]}"
        elif [[ -n $immovable && $ERROR =~ $immovable ]]; then
            journal_mark cannot "$lasts" "$name" "${TARGETS[i]}"
        else
            likely_cause "$ERROR"
            failed=${failed:-"${TARGETS[i]}: writing '${WANTS[i]}': $ERROR: $REPLY"}
        fi
        step
    done
    knob_wrote
    evaluate
    if [[ -n $failed ]]; then
        refuse "$failed"
        FAILED=1
    elif [[ $STATE == drift ]]; then
        REASON="written, but it reads back otherwise${REASON:+; $REASON}"
    fi
}

knob_wrote() {       # Forget what was read before the write.
    ETHTOOL_SAID=()
    boot_read
}

# Put one journal entry back. OUTCOME: restored, as-was, gone, left (somebody else changed it since) or failed.
knob_revert() {      # knob_revert TARGET PREVIOUS OURS
    local now code
    DETAIL=""
    got "$1"
    code=$?
    now=$REPLY
    NOW=$now
    if (( code == 3 )); then
        OUTCOME=gone
    elif (( code == 2 )); then
        OUTCOME=gone DETAIL="$1 is no longer there"
    elif (( code == 1 )); then
        OUTCOME=failed DETAIL="$1 cannot be read: run as root; it was '$2' before"
    elif same "$2" "$now"; then
        OUTCOME=as-was
    elif ! still_ours "$now" "$3" "$2"; then
        OUTCOME=left DETAIL="$1 is '$now': somebody changed it after we set '$3'; left alone (it was '$2' before)"
    elif ! restore "$1" "$2"; then
        likely_cause "$ERROR"
        OUTCOME=failed DETAIL="$1: writing '$2' back: $ERROR: $REPLY"
    else
        step
        knob_wrote
        got "$1"
        code=$?
        NOW=$REPLY
        if (( code == 3 )) || { (( code == 0 )) && restored "$2" "$REPLY"; }; then
            OUTCOME=restored
            change "$1" "$now" "$2"
        else
            OUTCOME=failed DETAIL="$1: '$2' was written back, but it reads '$REPLY'"
        fi
    fi
}
