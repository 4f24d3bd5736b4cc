// The details of an item: what its event says, each part as text.

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = shown(text);
  made.append(...children);
  return made;
}

function button(text, act) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

// `go` shows another item, `close` ends it.
function fillDetails(panel, item, line, go, close) {
  const event = readJson(line);
  const title = element("h2", labelOf(item));
  title.id = "details-title";
  title.classList.toggle("error", item.status === "error");
  const buttons = element("div", null, button("Close", close));
  if (item.above?.row) buttons.prepend(button("What it is in", () => go(item.above)));
  buttons.className = "buttons";
  panel.replaceChildren(buttons, title, facts(item), ...sections(event), part("Raw event", line));
  panel.scrollTop = 0;
}

function facts(item) {
  const told = [
    ["kind", item.kind], ["status", item.status], ["event", item.event],
    ["begins at", `${(item.began / 1000).toFixed(6)} s`], ["takes", item.took === null ? "" : duration(item.took)],
    ["module", item.module], ["session", item.session], ["kernel", item.kernel],
    ["span", item.span], ["is in span", item.parent],
  ].filter(each => each[1]);
  return element("dl", null, ...told.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

// The parts of an event that people look for. An event of another shape has its raw text alone.
function sections(event) {
  const data = own(event, "data"), error = own(event, "error"), about = own(error, "details");
  const found = [];
  if (own(data, "args") !== undefined) found.push(part("Arguments", pretty(own(data, "args"))));
  if (own(data, "result") !== undefined) found.push(part("Result", pretty(own(data, "result"))));
  if (error) found.push(part("Error", `${text(own(error, "code"))}: ${text(own(error, "message"))}`));
  for (const name of ["stderr", "earlier_stderr"]) {
    if (own(about, name)) found.push(part(name.replace("_", " "), text(own(about, name))));
  }
  if (about) found.push(part("Details of the error", pretty(about)));
  if (own(data, "reason")) found.push(part("Reason", text(own(data, "reason"))));
  if (Array.isArray(own(data, "hooks"))) found.push(hookTable(own(data, "hooks")));
  return found;
}

function hookTable(hooks) {
  const columns = ["hook", "decision", "reason", "duration_ms"];
  const head = element("tr", null, ...columns.map(name => element("th", name.replace("_", " in "))));
  const cells = hook => columns.map(name => element("td", text(own(hook, name))));
  const rows = hooks.slice(0, 64).map(hook => element("tr", null, ...cells(hook)));
  return element("section", null, element("h3", "Policy hooks"), element("table", null, head, ...rows));
}

function part(name, text) {
  const body = element("pre", text);
  body.tabIndex = 0; // so that it can be scrolled with the keyboard
  body.setAttribute("aria-label", name);
  return element("section", null, element("h3", name), body);
}

function pretty(value) {
  return JSON.stringify(value, null, 2) ?? "";
}

function text(value) {
  return typeof value === "string" ? value : value === undefined || value === null ? "" : pretty(value);
}
