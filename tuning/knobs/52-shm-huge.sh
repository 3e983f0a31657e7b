# shm-huge - huge pages for POSIX shared memory, on request.
name=shm-huge
why="/dev/shm goes by its mount option alone; shmem_enabled, which guides name, governs memfd, System V and anonymous memory"
danger="with always, small segments take 2 MiB each"
source="kernel admin-guide/mm/transhuge (hugepages in tmpfs/shmem)"
since=4.8
needs="a kernel with transparent hugepages for shmem, /dev/shm mounted, and mount (util-linux)"
takes="words advise always within_size never"

want() {
    [[ -e $root/sys/kernel/mm/transparent_hugepage/shmem_enabled ]] || { unsupported "needs $needs"; return; }
    tool mount || guard "needs mount (util-linux)"
    target mount:/dev/shm "$value"
}

# Mounts lie over one another; the last is on top. An option that is not shown is the default.
got() {
    local where options line found=""
    while read -r _ where _ options _; do
        [[ $where == "${1#mount:}" ]] && found=,$options,
    done 2>/dev/null < "$root/proc/mounts"
    [[ -n $found ]] || { REPLY=""; return 2; }
    if [[ $found =~ ,huge=([a-z_]+), ]]; then REPLY=${BASH_REMATCH[1]}; else REPLY=never; fi
}

put() { run_tool mount -o "remount,huge=$2" "${1#mount:}"; }
