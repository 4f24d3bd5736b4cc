/* The module of `check_transport`: what ProbeModule does, one line after the other, and nothing at once. */
#include "wasi.h"

#define OPS "\"echo\":{},\"large\":{},\"chunks\":{},\"meet\":{},\"fail\":{},\"pend\":{},\"emit\":{},\"broken\":{}," \
            "\"wait\":{},\"finish\":{},\"cancelled\":{},\"die\":{}"

/* Requests without an answer: those that meet, and those that wait for their cancellation. */
struct waiting {
    char id[24], args[64];
    char kind; /* m, w or f; 0: free */
};

static struct waiting waiting[64];
static u32 given_up;

static void copy(char *to, const char *value, u32 room)
{
    u32 size = past(value) - value;
    if (size >= room)
        proc_exit(75);
    memcpy(to, value, size);
    to[size] = 0;
}

static void wait_as(char kind, const char *args)
{
    for (struct waiting *each = waiting; each < waiting + 64; each++)
        if (!each->kind) {
            each->kind = kind;
            copy(each->id, id, sizeof each->id);
            copy(each->args, args, sizeof each->args);
            return;
        }
    proc_exit(76);
}

static void meet(const char *args)
{
    u32 present = 0;
    wait_as('m', args);
    for (struct waiting *each = waiting; each < waiting + 64; each++)
        present += each->kind == 'm';
    if (present < number(args, "of"))
        return;
    for (struct waiting *each = waiting; each < waiting + 64; each++)
        if (each->kind == 'm') {
            each->kind = 0;
            id = each->id;
            answer(each->args);
        }
}

static void fail(const char *code, const char *details)
{
    begin(id);
    put(",\"ok\":false,\"error\":{\"code\":");
    put_value(code);
    put(",\"message\":\"as asked\",\"details\":");
    put_value(details);
    put("}}\n");
    flush();
}

static void cancel(const char *which)
{
    for (struct waiting *each = waiting; each < waiting + 64; each++)
        if (each->kind) {
            const char *a = each->id, *b = which;
            while (*a && *a == *b)
                a++, b++;
            if (*a)
                continue;
            given_up += each->kind != 'm';
            id = each->id;
            if (each->kind == 'f')
                answer("\"finished all the same\"");
            else
                fail("\"cancelled\"", "{}");
            each->kind = 0;
        }
}

static void chunks(const char *args)
{
    for (u32 n = 0; n < number(args, "count"); n++) {
        begin(id);
        put(",\"chunk\":{\"n\":");
        put_number(n);
        put(",\"pad\":\"");
        for (u32 i = 0; i < number(args, "kib") * 1024; i++)
            put("x");
        put("\"}}\n");
        flush();
    }
    begin(id);
    put(",\"ok\":true,\"result\":{\"count\":");
    put_number(number(args, "count"));
    put("}}\n");
    flush();
}

static void reply_with(const char *before, const char *value, const char *after)
{
    begin(id);
    put(before);
    put_value(value);
    put(after);
    flush();
}

static void large(const char *args)
{
    begin(id);
    put(",\"ok\":true,\"result\":\"");
    for (u64 i = number(args, "size"); i; i--)
        put("x");
    put("\"}\n");
    flush();
}

static void invoke(const char *op, const char *args)
{
    if (same(op, "echo"))
        reply_with(",\"ok\":true,\"result\":", args, "}\n");
    else if (same(op, "large"))
        large(args);
    else if (same(op, "chunks"))
        chunks(args);
    else if (same(op, "meet"))
        meet(args);
    else if (same(op, "fail"))
        fail(member(args, "code"), member(args, "details"));
    else if (same(op, "pend"))
        reply_with(",\"pending\":{\"syscalls\":[{\"name\":\"context.get\",\"args\":{}}],\"state\":", member(args, "state"), "}}\n");
    else if (same(op, "emit"))
        reply_with(",\"ok\":true,\"result\":{},\"events\":[{\"event\":\"probe:said\",\"data\":", args, "}]}\n");
    else if (same(op, "broken"))
        reply_with(",\"ok\":tru,\"result\":", "1", "}\n");
    else if (same(op, "wait") || same(op, "finish"))
        wait_as(*op == 'w' ? 'w' : 'f', args);
    else if (same(op, "cancelled"))
        begin(id), put(",\"ok\":true,\"result\":{\"count\":"), put_number(given_up), put("}}\n"), flush();
    else if (same(op, "die"))
        proc_exit(0);
    else
        fail("\"unsupported_op\"", "{}");
}

__attribute__((export_name("_start"))) void _start(void)
{
    const char *line;
    while ((line = next_line())) {
        const char *method = member(line, "method") + 1, *params = member(line, "params");
        id = member(line, "id");
        if (same(method, "health"))
            answer("{\"status\":\"ok\"}");
        else if (same(method, "describe"))
            answer("{\"name\":\"probe\",\"kind\":\"tool\",\"capabilities\":[],\"inputs\":{" OPS "},\"outputs\":{" OPS "}}");
        else if (same(method, "cancel"))
            cancel(member(params, "id"));
        else
            invoke(member(params, "op") + 1, member(params, "args"));
    }
}
