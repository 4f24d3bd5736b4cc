/* Make System V shared memory, which belongs to no process. */
#include "module.h"
#include <sys/ipc.h>
#include <sys/shm.h>

static const char *attack(void) {
    int id = shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600);
    if (id < 0) return NULL;
    shmctl(id, IPC_RMID, NULL);
    return "1 MiB";
}
