/* Make a BPF map in the operating system's kernel. */
#include "module.h"
#include <linux/bpf.h>

static const char *attack(void) {
    union bpf_attr what = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    long fd = syscall(SYS_bpf, BPF_MAP_CREATE, &what, sizeof what);
    if (fd < 0) return NULL;
    close(fd);
    return "a map";
}
