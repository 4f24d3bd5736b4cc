/* Choose the part of the machine from which memory is taken. */
#include "module.h"

static const char *attack(void) { return syscall(SYS_set_mempolicy, 0, NULL, 0) ? NULL : "a policy"; }
