/* Add a key to a key ring of the operating system, which no namespace separates. */
#include "module.h"
#include <linux/keyctl.h>

static const char *attack(void) {
    long key = syscall(SYS_add_key, "user", "amplifier-test", "x", 1, KEY_SPEC_PROCESS_KEYRING);
    return key < 0 ? NULL : "a key";
}
