// The log: its items, and text of it that may be shown. Nothing here knows the page.
//
// Whatever a log says is hostile. It gets into the page by `textContent` and by a canvas alone, and keys of it are in
// Maps, or read with `own`.

const ENDS = new Set(["module:invoke", "mount:add", "session:span"]);

async function readLog() {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const rows = await inflated("rows");
  const read = JSON.parse(`[${rows.trimEnd().replaceAll("\n", ",")}]`);
  return { facts, lines: null, ...connected(read.flatMap(itemsOf)) };
}

// The lines of the events. They are most of the log, and nobody needs them before the first look at an item.
async function readLines() {
  return (await inflated("lines")).split("\n");
}

async function inflated(id) {
  const element = document.getElementById(id);
  const text = atob(element.textContent);
  element.remove();
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = text.charCodeAt(n);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).text();
}

// A row becomes an item, and one more for each policy hook whose time is known: they were asked one after the other.
function itemsOf(row, index) {
  const [event, kind, status, kernel, session, module, span, parent, began, took, title, hooks] = row;
  const ids = { index, event, kernel, session, module, span, parent };
  const item = { ...ids, kind, status, began, took, title, ended: began + (took ?? 0), above: undefined };
  let from = began;
  const asked = hooks.filter(hook => hook[3] > 0).map(([name, kind, decision, took]) => {
    const title = `${name}: ${decision}`;
    const hook = { ...ids, kind, status: "ok", began: from, took, title, ended: from + took, above: item };
    from += took;
    return hook;
  });
  return [item, ...asked];
}

// Find what each item is in. A call that began and whose end is not here is open until the log ends.
function connected(all) {
  const kernels = new Map(); // each has the items of its spans
  const spansOf = item => kernels.get(item.kernel) ?? kernels.set(item.kernel, new Map()).get(item.kernel);
  for (const item of all) if (item.span && ENDS.has(item.event)) spansOf(item).set(item.span, item);
  const items = all.filter(item => item.status !== "in flight" || !spansOf(item).has(item.span));
  let first = Infinity, last = -Infinity;
  for (const { began, ended } of items) [first, last] = [Math.min(first, began), Math.max(last, ended)];
  if (!items.length) [first, last] = [0, 1];
  last = Math.max(last, first + 1);
  for (const item of items) {
    if (item.status !== "in flight") continue;
    [item.ended, item.took] = [last, NaN];
    spansOf(item).set(item.span, item);
  }
  for (const item of items) {
    if (item.above || !item.span) continue;
    const spans = spansOf(item), inside = spans.get(item.span);
    item.above = inside === item ? spans.get(item.parent) : inside;
  }
  return { items, first, last };
}

// Text as it may be shown: what turns the direction of text, or is not seen, is escaped. Ends of lines stay.
function shown(text) {
  return String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, char =>
    char === "\n" || char === "\t" ? char : `\\u{${char.codePointAt(0).toString(16)}}`);
}

// Read JSON. Numbers stay as they are written, where the browser can do that.
function readJson(text) {
  const exact = JSON.rawJSON && ((key, value, context) =>
    typeof value === "number" && context ? JSON.rawJSON(context.source) : value);
  try {
    return JSON.parse(text, exact);
  } catch {
    return undefined;
  }
}

function own(value, name) {
  return value !== null && typeof value === "object" && Object.hasOwn(value, name) ? value[name] : undefined;
}

function duration(ms) {
  if (Number.isNaN(ms)) return "its end is not here";
  const three = value => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
  if (ms < 1000) return `${three(ms)} ms`;
  return ms < 60000 ? `${three(ms / 1000)} s` : `${Math.floor(ms / 60000)} min ${Math.floor(ms / 1000) % 60} s`;
}

function labelOf(item) {
  const mark = item.status === "error" ? "✗ " : item.status === "in flight" ? "… " : "";
  return mark + shown(item.title);
}
