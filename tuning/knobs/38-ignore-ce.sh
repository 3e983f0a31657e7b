# ignore-ce - do not poll for corrected hardware errors.
name=ignore-ce
why="the machine-check poller no longer visits every CPU every five minutes"
danger="worn memory goes unseen until it fails: have the BMC watched; mce=off is never the way"
source="kernel arch/x86/x86_64/machinecheck; tuned profile cpu-partitioning"
needs="/sys/devices/system/machinecheck"
takes="words yes"
tier=dangerous

want() {
    local file
    for file in "$root"/sys/devices/system/machinecheck/machinecheck*/ignore_ce; do
        [[ -e $file ]] && target "${file#"$root"}" 1
    done
    return 0
}
