# boot-dropin - the kernel arguments of all boot knobs, in a grub drop-in of our own.
name=boot-dropin
why="what must be isolated at boot needs kernel arguments; a file of our own leaves everyone else's line alone"
danger="none before update-grub and a reboot; recovery entries of the boot menu do not get the arguments"
source="grub-mkconfig: /etc/default/grub.d; kernel admin-guide/cpu-isolation"
since=3.10
needs="grub with /etc/default/grub.d (Debian, Ubuntu); elsewhere plan says how the printed line gets in"
takes="words print write"
lasts=disk

want() {
    dropin_read
    local found=$?
    if [[ $value == print && $found != 0 ]]; then
        no_op "printed by plan, not written: boot_dropin = write, or --write-dropin, writes $DROPIN"
    elif (( found == 2 )); then
        refuse "$DROPIN is there and not written by tune: move it away"
    elif [[ ! -d $root${DROPIN%/*} ]]; then
        boot_how
        unsupported "no ${DROPIN%/*} here, so nothing is written: $REPLY"
    elif [[ -n $BOOT_LINE ]]; then
        target "$DROPIN" "$BOOT_LINE"
    elif (( found == 0 )); then
        target "$DROPIN" absent
    else
        no_op "no boot knob asks for a kernel argument that is not there already"
    fi
}

got() {
    dropin_read
    case $? in
        0) return 0 ;;
        1) REPLY=absent ;;
        *) REPLY="written by another hand" ;;
    esac
}

# Written beside and renamed, so that a power cut leaves the old file or the new one.
put() {
    local file=$root$1
    if [[ $2 == absent ]]; then
        ERROR=$(rm -f "$file" 2>&1) && return
    else
        # shellcheck disable=SC2016  # The dollar is grub's.
        ERROR=$( { printf '%s\nGRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT %s"\n' "$DROPIN_MARK" "$2" > "$file.new" &&
            sync "$file.new" && mv "$file.new" "$file" && sync "${file%/*}"; } 2>&1 ) && return
    fi
    ERROR=${ERROR##*: }
    return 1
}
