/* Who may remove a ring's two files, and how nobody ends up with half of one.
 *
 * Byte 0 of each file is its life: everyone attached, its creator first of all, holds it for reading; a cleaner must hold it for
 * writing, look again at what the name stands for, and only then unlink. Cursors are made before slots and removed after them:
 * a cleaner leaves cursors alone whose slots have a name. So slots that have a name have their own cursors, however many create,
 * clean, attach and die at once. Checked: no file is unlinked that a living process is attached to or creating, an attacher has both
 * files of one ring, and finds the cursors of the slots that it holds.
 *
 * It begins with what the dead may leave: a whole ring, cursors alone, slots without cursors (forced, by hand), or nothing.
 * MUTANT, a number from the environment, takes one thing out; CLEANERS is 1 or 2 of them at once.
 */
c_decl { \#include <stdlib.h> }

#ifndef DEATHS
#define DEATHS 1
#endif
#define INODES 10

/* Mutants. */
#define clean_without_lock        1
#define clean_without_second_look 2
#define clean_cursors_alone       3
#define create_without_link_check 4
#define create_lets_life_go       5
#define create_slots_first        6
#define attach_without_lock       7
#define attach_without_link_check 8
#define attach_without_magic      9
#define attach_without_pair_check 10
byte mutant;
byte cleaners;

#define IS(which) (mutant == which)
#define STEP(what) if :: atomic { what } :: atomic { deaths > 0 -> deaths--; goto dead } fi

#define SLOTS 0
#define CURSORS 1

/* The folder, the kernel's locks, and what the files say of themselves. */
byte name[2];
byte readers[INODES], writer[INODES];
bool magic[INODES];
byte ring_of[INODES];
byte inodes = 1;
byte deaths = DEATHS;

/* What only the checks know: how many living processes rely on a file, and whether there ever were slots without cursors. */
byte relied_on[INODES];
bool forced;

#define IS_LINKED(which, file) (name[which] == file)
#define UNLINK(which) d_step { assert(relied_on[name[which]] == 0); name[which] = 0 }

proctype Cleaner(byte me)
{
    byte which, file;
    if
    :: which = SLOTS
    :: which = CURSORS
    fi;
    file = name[which];
    if
    :: file == 0 -> goto end
    :: else
    fi;
    if
    :: IS(clean_without_lock) -> skip
    :: !IS(clean_without_lock) ->
        if
        :: atomic { readers[file] == 0 && writer[file] == 0 -> writer[file] = me }
        :: atomic { else -> goto end }
        fi
    fi;
    if
    :: !IS(clean_without_second_look) && !IS_LINKED(which, file) -> goto dead
    :: else
    fi;
    if
    :: which == CURSORS && name[SLOTS] != 0 && !IS(clean_cursors_alone) -> goto dead
    :: else
    fi;
    STEP(if :: name[which] != 0 -> UNLINK(which) :: else fi);
dead:
    atomic { if :: writer[file] == me -> writer[file] = 0 :: else fi; which = 0; file = 0 }
end:
    skip
}

/* O_EXCL, the life lock, the link check; then again, where a cleaner was quicker. */
#define CREATE(which, file) \
    do \
    :: atomic { name[which] != 0 -> file = 0; break } \
    :: atomic { name[which] == 0 -> file = inodes; inodes++; assert(file < INODES); name[which] = file; ring_of[file] = me }; \
        atomic { writer[file] == 0 -> readers[file]++ }; \
        if \
        :: atomic { IS_LINKED(which, file) || IS(create_without_link_check) -> relied_on[file]++; break } \
        :: atomic { else -> readers[file]--; file = 0 } \
        fi \
    od

proctype Creator(byte me)
{
    byte first, second, cursors = CURSORS;
    bool gave_up;
    if
    :: IS(create_slots_first) -> cursors = SLOTS
    :: else
    fi;
    CREATE(cursors, first);
    if
    :: first == 0 -> goto dead
    :: else
    fi;
    STEP(magic[first] = true);
    CREATE(1 - cursors, second);
    if
    :: second == 0 ->
        /* Somebody's slots are there: take the cursors back, while they are still held. */
        atomic { relied_on[first]--; gave_up = true; if :: IS(create_lets_life_go) -> readers[first]-- :: else fi };
        STEP(if :: IS_LINKED(cursors, first) || (IS(create_lets_life_go) && name[cursors] != 0) -> UNLINK(cursors) :: else fi);
        goto dead
    :: else
    fi;
    STEP(magic[second] = true);
    /* The ring is there. It stays for as long as its creator does. */
    STEP(assert(IS_LINKED(cursors, first) && IS_LINKED(1 - cursors, second)));
dead:
    atomic {
        if :: first != 0 && !gave_up -> relied_on[first]-- :: else fi;
        if :: first != 0 && !(gave_up && IS(create_lets_life_go)) -> readers[first]-- :: else fi;
        if :: second != 0 -> readers[second]--; relied_on[second]-- :: else fi;
        first = 0;
        second = 0
    }
}

/* Open, the life lock, the link check, the magic. */
#define ATTACH(which, file, held) \
    file = name[which]; \
    if \
    :: file == 0 -> skip \
    :: else -> \
        if \
        :: IS(attach_without_lock) -> skip \
        :: else -> atomic { writer[file] == 0 -> readers[file]++; held = file } \
        fi; \
        if \
        :: atomic { (IS_LINKED(which, file) || IS(attach_without_link_check)) && (magic[file] || IS(attach_without_magic)) } \
        :: atomic { else -> if :: held != 0 -> readers[held]--; held = 0 :: else fi; file = 0 } \
        fi \
    fi

proctype Attacher()
{
    byte slots, cursors, slots_held, cursors_held;
    bool relies, relies_on_both;
    ATTACH(SLOTS, slots, slots_held);
    if
    :: slots == 0 -> goto dead
    :: else
    fi;
    atomic { relied_on[slots]++; relies = true };
    assert(name[CURSORS] != 0 || forced);
    ATTACH(CURSORS, cursors, cursors_held);
    if
    :: cursors == 0 -> goto dead
    :: else
    fi;
    if
    :: atomic { ring_of[slots] == ring_of[cursors] || IS(attach_without_pair_check) -> relied_on[cursors]++; relies_on_both = true }
    :: atomic { else -> goto dead }
    fi;
    assert(ring_of[slots] == ring_of[cursors]);
    assert(magic[slots] && magic[cursors]);
    /* Attached, for a while. */
    assert(IS_LINKED(SLOTS, slots) && IS_LINKED(CURSORS, cursors));
dead:
    atomic {
        if :: slots_held != 0 -> readers[slots_held]-- :: else fi;
        if :: relies -> relied_on[slots]-- :: else fi;
        if :: cursors_held != 0 -> readers[cursors_held]-- :: else fi;
        if :: relies_on_both -> relied_on[cursors]-- :: else fi;
        slots = 0;
        cursors = 0;
        slots_held = 0;
        cursors_held = 0
    }
}

init {
    atomic {
        c_code {
            char *number = getenv("MUTANT"), *many = getenv("CLEANERS");
            now.mutant = number ? atoi(number) : 0;
            now.cleaners = many ? atoi(many) : 2;
        };
        if
        :: name[SLOTS] = 1; name[CURSORS] = 2
        :: name[CURSORS] = 2
        :: name[SLOTS] = 1; forced = true
        :: skip
        fi;
        magic[1] = true;
        magic[2] = true;
        inodes = 3;
        run Cleaner(1);
        if :: cleaners == 2 -> run Cleaner(2) :: else fi;
        run Creator(3);
        run Creator(4);
        run Attacher()
    }
}
