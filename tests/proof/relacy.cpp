/* relacy MODEL MUTANT ITERATIONS: run one model with one thing taken out, in that many interleavings.
 *
 * Exit code 0: none of them failed. 1: one did, and its trace is printed. 2: wrong usage; without arguments, the names.
 */
#include "board.hpp"
#include "joining.hpp"
#include "observing.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

struct model_t
{
    char const* name;
    bool (*simulate)(rl::test_params&);
};

static model_t const models[] = {
    {"gating", &rl::simulate<gating>},
    {"joining", &rl::simulate<joining>},
    {"observing", &rl::simulate<observing>},
    {"board", &rl::simulate<board>},
};

#define MUTANT_STRING(name) #name,
static char const* const mutants[] = {MUTANTS(MUTANT_STRING)};

int main(int argc, char** argv)
{
    if (argc != 4)
    {
        for (size_t i = 0; i != sizeof models / sizeof *models; ++i)
            std::printf("model %s\n", models[i].name);
        for (size_t i = 0; i != sizeof mutants / sizeof *mutants; ++i)
            std::printf("mutant %s\n", mutants[i]);
        return 2;
    }
    bool known = false;
    for (size_t i = 0; i != sizeof mutants / sizeof *mutants; ++i)
        if (std::strcmp(argv[2], mutants[i]) == 0)
        {
            mutant = (mutant_t)i;
            known = true;
        }
    rl::test_params parameters;
    std::ostringstream progress;
    parameters.progress_stream = &progress;
    parameters.iteration_count = std::strtoull(argv[3], 0, 10);
    for (size_t i = 0; known && i != sizeof models / sizeof *models; ++i)
        if (std::strcmp(argv[1], models[i].name) == 0)
            return models[i].simulate(parameters) ? 0 : 1;
    std::fprintf(stderr, "model=%s mutant=%s: expected names that relacy without arguments lists\n", argv[1], argv[2]);
    return 2;
}
