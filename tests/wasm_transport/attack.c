/* A module that does what it is told, with the calls of WASI as they are: how far does it get? */
#include "wasi.h"

enum { ANY = -1 };

static char found[1 << 16];
static u32 found_size;
static u8 waste[1 << 20];

static void reply(int code, u64 number)
{
    begin(id);
    put(",\"ok\":true,\"result\":{\"errno\":");
    put_number(code);
    put(",\"n\":");
    put_number(number);
    put(",\"text\":");
    put_text(found, found_size);
    put("}}\n");
    flush();
}

/* The folder that was opened under a name, or under the first one; 0: there is none. */
static u32 folder(struct bytes name)
{
    for (u32 fd = 3; fd < 64; fd++) {
        char at[1024];
        u32 told[2];
        if (fd_prestat_get(fd, told) || fd_prestat_dir_name(fd, at, told[1]))
            break;
        u32 n = 0;
        while (n < told[1] && n < name.size && at[n] == ((const char *)name.at)[n])
            n++;
        if (n == name.size && (n == told[1] || !n))
            return fd;
    }
    return 0;
}

static void folders(void)
{
    for (u32 fd = 3; fd < 64; fd++) {
        u32 told[2];
        if (fd_prestat_get(fd, told))
            break;
        fd_prestat_dir_name(fd, found + found_size, told[1]);
        found_size += told[1];
        found[found_size++] = '\n';
    }
}

/* Open, and read or write. oflags: 1 creat, 2 directory, 4 excl, 8 trunc. */
static int open_file(const char *args, u32 *fd)
{
    struct bytes path = text(args, "path");
    int writes = number(args, "write");
    u64 rights = writes ? (u64)1 << 6 | (u64)1 << 8 | 2 : 2;
    return path_open(folder(text(args, "in")), number(args, "follow"), path.at, path.size, number(args, "oflags"), rights,
                     rights, 0, fd);
}

static void file(const char *op, const char *args)
{
    struct bytes path = text(args, "path"), other = text(args, "to"), data = text(args, "text");
    u32 in = folder(text(args, "in")), into = folder(text(args, "into")), fd = 0, n = 0;
    static u64 stat[8];
    int code = 0;
    if (same(op, "read")) {
        struct bytes room = {found, sizeof found};
        if (!(code = open_file(args, &fd)) && !(code = fd_read(fd, &room, 1, &n)))
            found_size = n;
    } else if (same(op, "write")) {
        if (!(code = open_file(args, &fd)))
            code = fd_write(fd, &data, 1, &n);
    } else if (same(op, "truncate")) {
        if (!(code = open_file(args, &fd)))
            code = fd_filestat_set_size(fd, number(args, "size"));
    } else if (same(op, "list")) {
        if (!(code = open_file(args, &fd)) && !(code = fd_readdir(fd, found, sizeof found, 0, &n)))
            found_size = n;
    } else if (same(op, "stat")) {
        code = path_filestat_get(in, number(args, "follow"), path.at, path.size, stat);
    } else if (same(op, "mkdir")) {
        code = path_create_directory(in, path.at, path.size);
    } else if (same(op, "rmdir")) {
        code = path_remove_directory(in, path.at, path.size);
    } else if (same(op, "unlink")) {
        code = path_unlink_file(in, path.at, path.size);
    } else if (same(op, "rename")) {
        code = path_rename(in, path.at, path.size, into, other.at, other.size);
    } else if (same(op, "hardlink")) {
        code = path_link(in, number(args, "follow"), path.at, path.size, into, other.at, other.size);
    } else if (same(op, "symlink")) {
        code = path_symlink(other.at, other.size, in, path.at, path.size);
    } else if (same(op, "readlink")) {
        if (!(code = path_readlink(in, path.at, path.size, found, sizeof found, &n)))
            found_size = n;
    } else if (same(op, "touch")) {
        code = path_filestat_set_times(in, number(args, "follow"), path.at, path.size, 0, 0, 4);
    } else {
        code = ANY;
    }
    if (fd)
        fd_close(fd);
    reply(code, n);
}

/* Open in each way that there is, and try to change what was opened: how often did something succeed? */
static u32 change(struct bytes path)
{
    static const u64 rights[] = {0, 2, 1 << 6, 1 << 22, 1 << 8, (1 << 29) - 1};
    struct bytes data = {"x", 1};
    u32 changed = 0, fd, n;
    for (u32 way = 0; way < 2 * 16 * 32 * 6; way++) {
        u64 right = rights[way % 6];
        if (path_open(3, way / 6 & 1, path.at, path.size, way / 12 & 15, right, right, way / 192, &fd))
            continue;
        changed += !fd_write(fd, &data, 1, &n);
        changed += !fd_pwrite(fd, &data, 1, 1, &n);
        changed += !fd_allocate(fd, 0, 100);
        changed += !fd_filestat_set_size(fd, 0);
        changed += !fd_filestat_set_times(fd, 1, 1, 5);
        if (!fd_fdstat_set_flags(fd, 1))
            changed += !fd_write(fd, &data, 1, &n);
        fd_close(fd);
    }
    return changed;
}

/* What is there beside files. */

static void words(int (*sizes)(u32 *, u32 *), int (*get)(char **, char *))
{
    static char *at[4096];
    u32 count, size;
    sizes(&count, &size);
    get(at, found);
    for (found_size = 0; found_size < size; found_size++)
        if (!found[found_size])
            found[found_size] = '\n';
}

static u32 memory(void) { return __builtin_wasm_memory_size(0); }

/* Take memory in steps of so many pages, and touch it, until there is no more. */
static void eat(u32 pages)
{
    while (__builtin_wasm_memory_grow(0, pages) != (size_t)-1)
        for (volatile u8 *p = (u8 *)((memory() - pages) * (size_t)65536); p < (u8 *)(memory() * (size_t)65536 - 1); p += 4096)
            *p = 1;
}

static int dig(volatile int depth) { return depth < 0 ? 0 : dig(depth + 1) + depth; }

static void flood(u32 fd, const char *line, u32 times)
{
    while (times--)
        send_to(fd, line, length(line));
}

static void poll_for(u64 milliseconds)
{
    struct {
        u64 userdata;
        u8 tag, pad[7];
        u32 clock, pad2;
        u64 timeout, precision;
        u16 flags, pad3[3];
    } wanted = {0, 0, {0}, 1, 0, milliseconds * 1000000, 0, 0, {0}};
    u8 event[32];
    u32 n;
    poll_oneoff(&wanted, event, 1, &n);
}

static char *argv[16], words_of_args[1 << 16];

static void invoke(const char *op, const char *args)
{
    if (same(op, "good")) { /* what the tests of faults ask */
        begin(id), put(",\"ok\":true,\"result\":"), put_value(args), put("}\n"), flush();
        return;
    }
    if (same(op, "bad"))
        op = member(argv[1], "op") + 1, args = member(argv[1], "args");
    u64 n = number(args, "n"), now = 0;
    u32 fd = 0;
    found_size = 0;
    if (same(op, "folders"))
        folders(), reply(0, 0);
    else if (same(op, "environ"))
        words(environ_sizes_get, environ_get), reply(0, 0);
    else if (same(op, "args"))
        words(args_sizes_get, args_get), reply(0, 0);
    else if (same(op, "descriptors")) {
        u32 count = 0, told[2];
        for (u32 each = 0; each < 2000; each++) {
            struct bytes none = {0, 0};
            count += !fd_prestat_get(each, told) || fd_write(each, &none, 0, &fd) != 8;
        }
        reply(0, count);
    } else if (same(op, "renumber"))
        reply(fd_renumber(number(args, "from"), number(args, "to")), 0);
    else if (same(op, "close"))
        reply(fd_close(n), 0);
    else if (same(op, "rights"))
        reply(fd_fdstat_set_rights(folder(text(args, "in")), 0x1fffffff, 0x1fffffff), 0);
    else if (same(op, "accept"))
        reply(sock_accept(n, 0, &fd), fd);
    else if (same(op, "raise"))
        reply(proc_raise(n), 0);
    else if (same(op, "clocks")) {
        int code = 0;
        while (n--)
            code |= clock_time_get(n & 1, 0, &now);
        reply(code, now);
    } else if (same(op, "clock"))
        reply(clock_time_get(n, 0, &now), now);
    else if (same(op, "change"))
        reply(0, change(text(args, "path")));
    else if (same(op, "random"))
        reply(random_get(waste, n), 0);
    else if (same(op, "sleep"))
        poll_for(n), reply(0, 0);
    else if (same(op, "grow"))
        now = __builtin_wasm_memory_grow(0, n), reply(now == (size_t)-1, memory());
    else if (same(op, "eat"))
        eat(n), reply(0, memory());
    else if (same(op, "dig"))
        reply(dig(1), 0);
    else if (same(op, "loop"))
        for (volatile u32 i = 0;; i++)
            ;
    else if (same(op, "trap"))
        __builtin_trap();
    else if (same(op, "outside"))
        reply(((volatile u8 *)(memory() * (size_t)65536))[-1 + n], 0);
    else if (same(op, "exit"))
        proc_exit(n);
    else if (same(op, "huge")) {
        struct bytes all = {0, n};
        reply(fd_write(2, &all, 1, &fd), fd);
    } else if (same(op, "stdout"))
        flood(1, "this is no protocol\n", n), reply(0, 0);
    else if (same(op, "stderr"))
        flood(2, "this is an error, or so it seems\n", n), reply(0, 0);
    else
        file(op, args);
}

__attribute__((export_name("_start"))) void _start(void)
{
    const char *line;
    u32 count, size;
    if (args_sizes_get(&count, &size) || count > 16 || size > sizeof words_of_args || args_get(argv, words_of_args))
        proc_exit(77);
    while ((line = next_line())) {
        const char *method = member(line, "method") + 1, *params = member(line, "params");
        id = member(line, "id");
        if (same(method, "health"))
            answer("{\"status\":\"ok\"}");
        else if (same(method, "describe") && count > 1 && argv[1][0] == '{')
            answer("{\"name\":\"m\",\"kind\":\"tool\",\"capabilities\":[],\"inputs\":{},\"outputs\":{}}");
        else if (same(method, "describe"))
            answer("{\"name\":\"probe\",\"kind\":\"tool\",\"capabilities\":[],\"inputs\":{},\"outputs\":{}}");
        else if (!same(method, "cancel"))
            invoke(member(params, "op") + 1, member(params, "args"));
    }
}
