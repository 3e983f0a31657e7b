# report.sh - what tune says, to a person or as JSON, and its exit code.
#
# USAGE: sourced by tune, never run. JSON: verb, kernel, latency_cpus, housekeeping_cpus, boot_line, boot_how, exit, counts,
# warnings and knobs, a list of {name, state, want, got, why, reason, danger, source, tier, changes}.

declare -A COUNT=()
readonly STATES=(ok drift pending-reboot refused unsupported no-op)
readonly SHOWN=6                       # Of many like changes a person is shown this many.
KNOBS_JSON=""
CHANGES_JSON=""
EXIT=0
changes_said=0

say() { [[ -n $json ]] || printf '%s\n' "$1"; }

report_head() {
    local who="$verb: Linux $KERNEL, CPUs $online online: latency ${latency:-none}, housekeeping $housekeeping"
    say "$who; profile ${profile:-default}"
    say ""
}

# Called as each write has succeeded.
change() {           # change TARGET OLD NEW
    change_json "$@"
    changes_said=$(( changes_said + 1 ))
    if (( changes_said <= SHOWN )); then
        say "  set $1: ${2:-(empty)} -> ${3:-(empty)}"
    elif (( changes_said == SHOWN + 1 )); then
        say "  set ... and more like these"
    fi
}

change_json() {
    [[ -n $json ]] || return 0
    json_object target "$1" got "$2" want "$3"
    CHANGES_JSON+="${CHANGES_JSON:+, }$REPLY"
}

report_knob() {
    local i detail=$REASON shown=0
    COUNT[$STATE]=$(( ${COUNT[$STATE]:-0} + 1 ))
    if [[ $verb == verify && $STATE == drift ]]; then
        field "${TARGETS[${OFF[0]}]}"
        if [[ $lasts == boot ]]; then
            :
        elif [[ -n ${OURS[$name$'\t'$REPLY]+set} ]]; then
            detail="apply set it, and somebody changed it since${detail:+; $detail}"
        else
            detail="never applied${detail:+; $detail}"
        fi
        REASON=$detail
    fi
    if [[ $verb != apply ]]; then
        for i in ${OFF[@]+"${OFF[@]}"}; do change_json "${TARGETS[i]}" "${GOTS[i]}" "${WANTS[i]}"; done
    fi
    if [[ -n $json ]]; then
        json_object name "$name" state "$STATE" want "$WANT" got "$GOT" why "$why" reason "$REASON" danger "$danger" source "$source" \
            tier "$tier" lasts "$lasts" since "$since" needs "$needs"
        KNOBS_JSON+="${KNOBS_JSON:+,
  }${REPLY%\}}, \"changes\": [$CHANGES_JSON]}"
        CHANGES_JSON=""
        return
    fi
    changes_said=0
    case $STATE in
        ok) detail="$GOT${detail:+  ($detail)}" ;;
        drift | pending-reboot) detail="${GOT:-(empty)} -> $WANT${detail:+  ($detail)}" ;;
        refused) detail="${GOT:+$GOT: }$detail" ;;
    esac
    # Plan is about what would be written, and verify about what is wrong; audit shows everything.
    case $verb:$STATE in
        plan:drift | plan:pending-reboot | plan:refused) ;;
        plan:* | verify:ok | verify:no-op | verify:unsupported) (( ${#CHOSEN[@]} )) || return 0 ;;
    esac
    printf '%-14s %-20s %s\n' "$STATE" "$name" "$detail"
    if [[ $verb == plan || ( $verb == audit && ${#CHOSEN[@]} -gt 0 ) ]]; then
        printf '%15s%s\n' "" "why: $why" "" "danger: $danger" "" "source: $source"
    fi
    if [[ $verb == plan && $STATE == drift && $lasts != boot ]]; then
        for i in ${OFF[@]+"${OFF[@]}"}; do
            (( ++shown <= SHOWN )) || break
            printf '%15swrite %s: %s -> %s\n' "" "${TARGETS[i]}" "${GOTS[i]:-(empty)}" "${WANTS[i]}"
        done
        (( ${#OFF[@]} <= SHOWN )) || printf '%15s... and %d more; --json lists all\n' "" "$(( ${#OFF[@]} - SHOWN ))"
    fi
}

# Put everything in the journal back, last first, and say what each knob's entries came to.
revert_all() {
    local i entry entry_previous target outcome dropin_was=""
    local -a todo=(${ENTRIES[@]+"${ENTRIES[@]}"}) order=()
    local -A worst=() said=() back=() now=() was=() changes=()
    local -A rank=([as-was]=0 [gone]=1 [restored]=2 [left]=3 [failed]=4)
    for (( i = ${#todo[@]} - 1; i >= 0; i-- )); do
        entry=${todo[i]}
        printf -v target '%b' "${entry#*$'\t'}"
        name=${entry%%$'\t'*}
        chosen "$name" || continue
        [[ -n ${worst[$name]+set} ]] || { order+=("$name"); worst[$name]=as-was; back[$name]=0; changes_said=0; }
        CHANGES_JSON=${changes[$name]:-}
        entry_previous=${PREVIOUS[$entry]}
        if [[ -n ${FILE_OF[$name]:-} ]]; then
            knob_load "${FILE_OF[$name]}"
            knob_revert "$target" "$entry_previous" "${OURS[$entry]}"
        else
            OUTCOME=failed NOW="" DETAIL="this tune has no knob $name any more; $target was '$entry_previous' before"
        fi
        changes[$name]=$CHANGES_JSON
        now[$name]=$NOW
        was[$name]=$entry_previous
        case $OUTCOME in
            restored | as-was | gone)
                journal_mark undo "${LASTS[$entry]}" "$name" "$target"
                [[ $OUTCOME != restored ]] || back[$name]=$(( back[$name] + 1 ))
                [[ $OUTCOME:$name != restored:boot-dropin ]] || dropin_was=1
                ;;
        esac
        [[ -z $DETAIL ]] || said[$name]+="${said[$name]:+; }$DETAIL"
        (( rank[$OUTCOME] <= rank[${worst[$name]}] )) || worst[$name]=$OUTCOME
    done
    [[ -z $JOURNAL_OPEN ]] || journal_sync
    journal_end

    (( ${#order[@]} )) || say "nothing to put back: no live entry in $JOURNAL"
    for name in ${order[@]+"${order[@]}"}; do
        outcome=${worst[$name]}
        case $outcome in
            restored) STATE=ok REASON="${back[$name]} put back${said[$name]:+; ${said[$name]}}" ;;
            as-was) STATE=ok REASON="already as it was" ;;
            gone) STATE=no-op REASON=${said[$name]:-"what was set is no longer there"} ;;
            left) STATE=drift REASON=${said[$name]} ;;
            failed) STATE=refused REASON=${said[$name]} FAILED=1 ;;
        esac
        COUNT[$STATE]=$(( ${COUNT[$STATE]:-0} + 1 ))
        if [[ -n $json ]]; then
            json_object name "$name" state "$STATE" want "${was[$name]}" got "${now[$name]}" why "$outcome" reason "$REASON"
            KNOBS_JSON+="${KNOBS_JSON:+,
  }${REPLY%\}}, \"changes\": [${changes[$name]:-}]}"
        else
            printf '%-14s %-20s %s\n' "$outcome" "$name" "$REASON"
        fi
    done
    [[ -z $dropin_was ]] || warn "the boot drop-in is gone, but the running kernel still has its arguments: run update-grub and reboot"
}

report_end() {
    local state text="" list="" counts=""
    EXIT=0
    if [[ $verb != revert ]] && (( ${COUNT[ok]:-0} + ${COUNT[no-op]:-0} == 0 )); then EXIT=2; fi
    (( ${COUNT[drift]:-0} + ${COUNT[pending-reboot]:-0} + ${COUNT[refused]:-0} == 0 )) || EXIT=1
    [[ -z $FAILED ]] || EXIT=3

    for state in "${STATES[@]}"; do
        [[ -z ${COUNT[$state]:-} ]] || text+=", ${COUNT[$state]} $state"
        counts+=", \"$state\": ${COUNT[$state]:-0}"
    done
    if [[ -n $json ]]; then
        for text in ${WARNINGS[@]+"${WARNINGS[@]}"}; do
            json_string "$text"
            list+=", $REPLY"
        done
        json_object verb "$verb" kernel "$KERNEL" latency_cpus "$latency" housekeeping_cpus "$housekeeping" boot_line "$BOOT_LINE"
        text=${REPLY%\}}
        boot_how
        json_string "$REPLY"
        REPLY="$text, \"boot_how\": $REPLY}"
        printf '%s, "exit": %d, "counts": {%s}, "warnings": [%s], "knobs": [\n  %s\n]}\n' \
            "${REPLY%\}}" "$EXIT" "${counts#, }" "${list#, }" "$KNOBS_JSON"
        return
    fi
    if [[ -n $BOOT_LINE && $verb =~ ^(audit|plan)$ && ${SETTING[boot_dropin]} == print ]] && chosen boot-dropin; then
        boot_how
        printf '\nkernel line of the boot knobs:\n  %s\nhow: %s\n' "$BOOT_LINE" "$REPLY"
    fi
    if (( ${#WARNINGS[@]} )); then printf '\nwarning: %s' "${WARNINGS[@]}"; printf '\n'; fi
    [[ -z $text ]] || printf '\n%s\n' "${text#, }"
}

list_knobs() {
    local file
    for file in "${KNOB_FILES[@]}"; do
        knob_load "$file"
        chosen "$name" || continue
        if [[ -n $json ]]; then
            json_object name "$name" why "$why" danger "$danger" source "$source" since "$since" needs "$needs" tier "$tier" lasts "$lasts"
            KNOBS_JSON+="${KNOBS_JSON:+,
  }$REPLY"
        else
            printf '%s (%s, %s, Linux %s)\n    why: %s\n    danger: %s\n    source: %s\n' "$name" "$tier" "$lasts" "$since" "$why" "$danger" "$source"
        fi
    done
    [[ -z $json ]] || printf '{"verb": "list", "knobs": [\n  %s\n]}\n' "$KNOBS_JSON"
}
