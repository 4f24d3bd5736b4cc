/* Change how programs are loaded: at the same address each time, with all that they can read executable. */
#include "module.h"
#include <sys/personality.h>

static const char *attack(void) {
    int before = personality(0xffffffff);
    if (personality(ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC) == -1) return NULL;
    personality(before);
    return "no randomness";
}
