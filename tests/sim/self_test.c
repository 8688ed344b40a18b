#include "tests/sim/scenario.h"
size_t self_test(void)
{
    return 0;
}
