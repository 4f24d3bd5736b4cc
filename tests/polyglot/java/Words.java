/* Count words. A thread for each request; a cancel interrupts it. */

import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Supplier;

import static java.nio.charset.StandardCharsets.UTF_8;

public final class Words {
    static final Map<Object, Thread> RUNNING = new ConcurrentHashMap<>();
    static final OutputStream OUT = new FileOutputStream(FileDescriptor.out); // System.out has the charset of the locale

    static final class Failure extends Exception {
        final Map<String, Object> error = new LinkedHashMap<>();

        Failure(String code, String message) {
            super(message);
            error.put("code", code);
            error.put("message", message);
        }

        Failure(String code, String message, Map<?, ?> details) {
            this(code, message);
            error.put("details", details);
        }
    }

    record Pending(List<?> syscalls, Map<?, ?> state) {}

    // The operations

    static Object invoke(Object id, Map<?, ?> params) throws Failure {
        Map<?, ?> args = params.get("args") instanceof Map<?, ?> given ? given : Map.of();
        String op = (String) params.get("op");
        return switch (op) {
            case "count" -> count(args);
            case "report" -> report(args, (Map<?, ?>) params.get("resume"));
            case "tell" -> tell(args, id);
            case "wait" -> waitFor(args);
            case "fail" -> throw new Failure("out_of_ink", "buy some", argument(args, "details", Map.class, "an object"));
            default -> throw new Failure("unsupported_op", "words does not know '" + op + "'");
        };
    }

    static <T> T argument(Map<?, ?> args, String name, Class<T> type, String expected) throws Failure {
        Object value = args.get(name);
        if (!type.isInstance(value)) throw new Failure("bad_request", "args." + name + ": expected " + expected);
        return type.cast(value);
    }

    static List<String> words(Map<?, ?> args) throws Failure {
        String text = argument(args, "text", String.class, "a string");
        return Arrays.stream(text.split("[ \t\r\n]+")).filter(word -> !word.isEmpty()).toList();
    }

    static int characters(String text) {
        return text.codePointCount(0, text.length());
    }

    static Object count(Map<?, ?> args) throws Failure {
        List<String> words = words(args);
        String longest = "";
        for (String word : words) if (characters(word) > characters(longest)) longest = word;
        return Map.of("words", words.size(), "characters", characters((String) args.get("text")), "longest", longest);
    }

    static Object report(Map<?, ?> args, Map<?, ?> resume) throws Failure {
        String tool = argument(args, "tool", String.class, "a string");
        List<?> texts = argument(args, "texts", List.class, "a list of strings");
        int asked = 0, words = 0;
        if (resume != null) {
            Map<?, ?> state = (Map<?, ?>) resume.get("state");
            Map<?, ?> counted = (Map<?, ?>) ((List<?>) resume.get("results")).get(0);
            asked = ((BigDecimal) state.get("asked")).intValue();
            words = ((BigDecimal) state.get("words")).intValue();
            if (!Boolean.TRUE.equals(counted.get("ok"))) {
                Map<?, ?> details = Map.of("cause", counted.get("error"));
                throw new Failure("report_failed", "text " + asked + " was not counted", details);
            }
            words += ((BigDecimal) ((Map<?, ?>) counted.get("result")).get("words")).intValue();
        }
        if (asked == texts.size()) return Map.of("words", words);
        Map<?, ?> text = Collections.singletonMap("text", texts.get(asked++)); // may hold null, which Map.of may not
        Map<?, ?> invoke = Map.of("path", tool, "op", "count", "args", text);
        Map<?, ?> emit = Map.of("event", "words:counted", "data", Map.of("text", asked));
        List<?> syscalls = List.of(Map.of("name", "invoke", "args", invoke), Map.of("name", "emit", "args", emit));
        return new Pending(syscalls, Map.of("asked", asked, "words", words));
    }

    static Object tell(Map<?, ?> args, Object id) throws Failure {
        List<String> words = words(args);
        for (String word : words) write(Map.of("id", id, "chunk", Map.of("word", word)));
        return Map.of("words", words.size());
    }

    static Object waitFor(Map<?, ?> args) throws Failure {
        BigDecimal seconds = argument(args, "seconds", BigDecimal.class, "a number");
        try {
            Thread.sleep(seconds.movePointRight(3).longValue());
        } catch (InterruptedException cancel) {
            throw new Failure("cancelled", "nobody waits any more");
        }
        return Map.of("seconds", seconds);
    }

    // The protocol

    static void answer(Object id, Map<?, ?> params) {
        try {
            Object result = invoke(id, params);
            if (result instanceof Pending) write(Map.of("id", id, "pending", result));
            else write(Map.of("id", id, "ok", true, "result", result));
        } catch (Failure failure) {
            write(Map.of("id", id, "ok", false, "error", failure.error));
        } catch (RuntimeException mistake) { // ours: without a reply the caller would wait for its deadline
            mistake.printStackTrace();
            write(Map.of("id", id, "ok", false, "error", Map.of("code", "internal", "message", mistake.toString())));
        } finally {
            RUNNING.remove(id);
        }
    }

    static void write(Map<?, ?> message) {
        StringBuilder line = new StringBuilder();
        Json.write(message, line);
        synchronized (OUT) {
            try {
                OUT.write(line.append('\n').toString().getBytes(UTF_8));
            } catch (IOException gone) {
                System.exit(1);
            }
        }
    }

    public static void main(String[] argv) throws IOException {
        Object description = new Json(Files.readString(Path.of("../describe.json"))).read();
        BufferedReader input = new BufferedReader(new InputStreamReader(new FileInputStream(FileDescriptor.in), UTF_8));
        for (String line; (line = input.readLine()) != null; ) {
            Map<?, ?> request = (Map<?, ?>) new Json(line).read();
            Object id = request.get("id");
            Map<?, ?> params = (Map<?, ?>) request.get("params");
            switch ((String) request.get("method")) {
                case "health" -> write(Map.of("id", id, "ok", true, "result", Map.of("status", "ok")));
                case "describe" -> write(Map.of("id", id, "ok", true, "result", description));
                case "cancel" -> {
                    Thread thread = RUNNING.get(params.get("id"));
                    if (thread != null) thread.interrupt();
                }
                default -> {
                    Thread thread = new Thread(() -> answer(id, params));
                    RUNNING.put(id, thread); // before it runs, or it could not remove itself
                    thread.start();
                }
            }
        }
        System.exit(0); // although threads may run
    }

    /** JSON, which the standard library does not know: maps, lists, strings, numbers, Boolean and null. */
    static final class Json {
        private final String text;
        private int at;

        Json(String text) {
            this.text = text;
        }

        private char next() {
            while (" \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
            return text.charAt(at);
        }

        Object read() {
            return switch (next()) {
                case '"' -> string();
                case '[' -> {
                    List<Object> list = new ArrayList<>();
                    items(']', () -> list.add(read()));
                    yield list;
                }
                case '{' -> {
                    Map<String, Object> map = new LinkedHashMap<>();
                    items('}', () -> {
                        next();
                        String key = string();
                        next();
                        at++; // the colon
                        return map.put(key, read());
                    });
                    yield map;
                }
                default -> word();
            };
        }

        private void items(char end, Supplier<Object> one) {
            at++;
            while (next() != end) {
                if (text.charAt(at) == ',') at++;
                one.get();
            }
            at++;
        }

        private Object word() {
            int start = at;
            while (at < text.length() && " \t\r\n,]}".indexOf(text.charAt(at)) < 0) at++;
            String word = text.substring(start, at);
            return switch (word) {
                case "null" -> null;
                case "true", "false" -> word.equals("true");
                default -> new BigDecimal(word);
            };
        }

        private String string() {
            StringBuilder string = new StringBuilder();
            for (at++; text.charAt(at) != '"'; at++) {
                char c = text.charAt(at);
                if (c == '\\') {
                    c = text.charAt(++at);
                    if (c == 'u') {
                        c = (char) Integer.parseInt(text.substring(at + 1, at + 5), 16);
                        at += 4;
                    } else if ("bfnrt".indexOf(c) >= 0) {
                        c = "\b\f\n\r\t".charAt("bfnrt".indexOf(c));
                    }
                }
                string.append(c);
            }
            at++;
            return string.toString();
        }

        static void write(Object value, StringBuilder to) {
            if (value instanceof Map<?, ?> map) {
                String before = "{";
                for (Map.Entry<?, ?> member : map.entrySet()) {
                    write(member.getKey(), to.append(before));
                    write(member.getValue(), to.append(':'));
                    before = ",";
                }
                to.append(map.isEmpty() ? "{}" : "}");
            } else if (value instanceof List<?> list) {
                String before = "[";
                for (Object item : list) {
                    write(item, to.append(before));
                    before = ",";
                }
                to.append(list.isEmpty() ? "[]" : "]");
            } else if (value instanceof Pending pending) {
                write(Map.of("syscalls", pending.syscalls, "state", pending.state), to);
            } else if (value instanceof String string) {
                quote(string, to);
            } else {
                to.append(value);
            }
        }

        private static void quote(String string, StringBuilder to) {
            to.append('"');
            for (char c : string.toCharArray()) {
                if (c == '"' || c == '\\') to.append('\\').append(c);
                else if (c < ' ') to.append(String.format("\\u%04x", (int) c));
                else to.append(c);
            }
            to.append('"');
        }
    }
}
