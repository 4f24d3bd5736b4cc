//! Count words. A thread for each request; a cancel is a message to it.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::iter::Peekable;
use std::str::Chars;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// JSON, which the standard library does not know. A number keeps its digits.
#[derive(Clone)]
enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}
use Json::{Bool, List, Null, Number, Object, Text};

impl Json {
    /// A member of an object. What is absent is null.
    fn get(&self, name: &str) -> &Json {
        match self {
            Object(members) => members.iter().find(|(key, _)| key == name).map_or(&Null, |(_, value)| value),
            _ => &Null,
        }
    }

    fn text(&self) -> Option<&str> {
        if let Text(text) = self { Some(text) } else { None }
    }

    fn number(&self) -> Option<f64> {
        if let Number(digits) = self { digits.parse().ok() } else { None }
    }

    fn write(&self, out: &mut String) {
        match self {
            Null => out.push_str("null"),
            Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Number(digits) => out.push_str(digits),
            Text(text) => quote(text, out),
            List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Object(members) => {
                out.push('{');
                for (i, (key, value)) in members.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    quote(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

type Input<'a> = Peekable<Chars<'a>>;

/// Read a value. `None` if it is none.
fn read(input: &mut Input) -> Option<Json> {
    space(input);
    match *input.peek()? {
        '"' => Some(Text(read_text(input)?)),
        '[' => Some(List(read_items(input, ']', read)?)),
        '{' => Some(Object(read_items(input, '}', |input| {
            space(input);
            let key = read_text(input)?;
            space(input);
            input.next_if_eq(&':')?;
            Some((key, read(input)?))
        })?)),
        _ => {
            let mut word = String::new();
            while let Some(c) = input.next_if(|c| c.is_ascii_alphanumeric() || "+-.".contains(*c)) {
                word.push(c);
            }
            match word.as_str() {
                "null" => Some(Null),
                "true" => Some(Bool(true)),
                "false" => Some(Bool(false)),
                _ => word.parse::<f64>().ok().map(|_| Number(word)),
            }
        }
    }
}

fn space(input: &mut Input) {
    while input.next_if(|c| " \t\r\n".contains(*c)).is_some() {}
}

fn read_items<T>(input: &mut Input, end: char, one: impl Fn(&mut Input) -> Option<T>) -> Option<Vec<T>> {
    input.next();
    let mut items = vec![];
    space(input);
    while input.next_if_eq(&end).is_none() {
        if !items.is_empty() {
            input.next_if_eq(&',')?;
        }
        items.push(one(input)?);
        space(input);
    }
    Some(items)
}

fn read_text(input: &mut Input) -> Option<String> {
    let mut text = String::new();
    input.next_if_eq(&'"')?;
    loop {
        match input.next()? {
            '"' => return Some(text),
            '\\' => text.push(match input.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => read_escape(input)?,
                c => c,
            }),
            c => text.push(c),
        }
    }
}

/// What follows `\u`: four digits, or two times four for a character beyond U+FFFF.
fn read_escape(input: &mut Input) -> Option<char> {
    let mut unit = || u32::from_str_radix(&input.take(4).collect::<String>(), 16).ok();
    let high = unit()?;
    if !(0xD800..0xDC00).contains(&high) {
        return char::from_u32(high);
    }
    input.next_if_eq(&'\\')?;
    input.next_if_eq(&'u')?;
    let low = u32::from_str_radix(&input.take(4).collect::<String>(), 16).ok()?;
    char::from_u32(0x10000 + ((high - 0xD800) << 10) + low.checked_sub(0xDC00)?)
}

// What follows is the module.

fn text(text: impl Into<String>) -> Json {
    Text(text.into())
}

fn number(value: impl ToString) -> Json {
    Number(value.to_string())
}

fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
    Object(members.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

/// What a reply holds beside its id.
enum Reply {
    Result(Json),
    Pending(Json),
    Error(&'static str, String, Json), // code, message, details
}
use Reply::{Error, Pending, Result as Done};

/// Err: the reply to arguments that do not fit.
type Checked<T> = Result<T, Reply>;

fn expected<T>(value: Option<T>, name: &str, kind: &str) -> Checked<T> {
    value.ok_or_else(|| Error("bad_request", format!("args.{name}: expected {kind}"), Null))
}

fn words_of(args: &Json) -> Checked<(&str, Vec<&str>)> {
    let text = expected(args.get("text").text(), "text", "a string")?;
    let words = text.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty());
    Ok((text, words.collect()))
}

fn count(args: &Json) -> Checked<Reply> {
    let (all, words) = words_of(args)?;
    let mut longest = "";
    for word in &words {
        if word.chars().count() > longest.chars().count() {
            longest = word;
        }
    }
    Ok(Done(object([
        ("words", number(words.len())),
        ("characters", number(all.chars().count())),
        ("longest", text(longest)),
    ])))
}

fn report(args: &Json, resume: &Json) -> Checked<Reply> {
    let tool = expected(args.get("tool").text(), "tool", "a string")?;
    let texts = if let List(texts) = args.get("texts") { Some(texts) } else { None };
    let texts = expected(texts, "texts", "a list of strings")?;
    let state = |name| resume.get("state").get(name).number().unwrap_or(0.0) as usize;
    let (asked, mut words) = (state("asked"), state("words"));
    if let List(results) = resume.get("results") {
        let error = results[0].get("error");
        if !matches!(error, Null) {
            let details = object([("cause", error.clone())]);
            return Ok(Error("report_failed", format!("text {asked} was not counted"), details));
        }
        words += results[0].get("result").get("words").number().unwrap_or(0.0) as usize;
    }
    if asked == texts.len() {
        return Ok(Done(object([("words", number(words))])));
    }
    let args = object([("text", texts[asked].clone())]);
    let invoke = object([("path", text(tool)), ("op", text("count")), ("args", args)]);
    let emit = object([("event", text("words:counted")), ("data", object([("text", number(asked + 1))]))]);
    Ok(Pending(object([
        (
            "syscalls",
            List(vec![
                object([("name", text("invoke")), ("args", invoke)]),
                object([("name", text("emit")), ("args", emit)]),
            ]),
        ),
        ("state", object([("asked", number(asked + 1)), ("words", number(words))])),
    ])))
}

fn tell(args: &Json, id: &Json) -> Checked<Reply> {
    let (_, words) = words_of(args)?;
    for word in &words {
        write(object([("id", id.clone()), ("chunk", object([("word", text(*word))]))]));
    }
    Ok(Done(object([("words", number(words.len()))])))
}

fn wait(args: &Json, cancelled: &Receiver<()>) -> Checked<Reply> {
    let seconds = expected(args.get("seconds").number(), "seconds", "a number")?;
    match cancelled.recv_timeout(Duration::from_secs_f64(seconds.clamp(0.0, 1e9))) {
        Ok(()) => Ok(Error("cancelled", "nobody waits any more".into(), Null)),
        Err(_) => Ok(Done(object([("seconds", args.get("seconds").clone())]))),
    }
}

fn fail(args: &Json) -> Checked<Reply> {
    let details = args.get("details");
    expected(matches!(details, Object(_)).then_some(()), "details", "an object")?;
    Ok(Error("out_of_ink", "buy some".into(), details.clone()))
}

fn invoke(id: &Json, params: &Json, cancelled: &Receiver<()>) -> Json {
    let args = params.get("args");
    let reply = match params.get("op").text().unwrap_or("") {
        "count" => count(args),
        "report" => report(args, params.get("resume")),
        "tell" => tell(args, id),
        "wait" => wait(args, cancelled),
        "fail" => fail(args),
        op => Ok(Error("unsupported_op", format!("words does not know {op:?}"), Null)),
    };
    match reply.unwrap_or_else(|refusal| refusal) {
        Done(result) => object([("id", id.clone()), ("ok", Bool(true)), ("result", result)]),
        Pending(calls) => object([("id", id.clone()), ("pending", calls)]),
        Error(code, message, details) => {
            let error = object([("code", text(code)), ("message", text(message)), ("details", details)]); // or null
            object([("id", id.clone()), ("ok", Bool(false)), ("error", error)])
        }
    }
}

fn write(message: Json) {
    let mut line = String::new();
    message.write(&mut line);
    line.push('\n');
    let mut stdout = io::stdout().lock();
    if stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1); // nobody reads any more
    }
}

fn main() {
    let description = read(&mut include_str!("../describe.json").chars().peekable()).expect("a description");
    let running = Arc::new(Mutex::new(HashMap::<String, Sender<()>>::new()));
    for line in io::stdin().lock().lines() {
        let request = read(&mut line.expect("UTF-8").chars().peekable()).expect("JSON");
        let (id, params) = (request.get("id").clone(), request.get("params").clone());
        let answer = |result| write(object([("id", id.clone()), ("ok", Bool(true)), ("result", result)]));
        match request.get("method").text().unwrap_or("") {
            "health" => answer(object([("status", text("ok"))])),
            "describe" => answer(description.clone()),
            "invoke" => {
                let (cancel, cancelled) = channel();
                let (key, running) = (id.text().unwrap_or("").to_string(), running.clone());
                running.lock().unwrap().insert(key.clone(), cancel);
                thread::spawn(move || {
                    write(invoke(&id, &params, &cancelled));
                    running.lock().unwrap().remove(&key);
                });
            }
            "cancel" => {
                if let Some(cancel) = running.lock().unwrap().get(params.get("id").text().unwrap_or("")) {
                    let _ = cancel.send(()); // it may just have been answered
                }
            }
            _ => {}
        }
    }
}
