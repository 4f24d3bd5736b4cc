// The page: the controls, the keys, and what is said of the item that is selected.

const KINDS = ["kernel", "embedder", "module", "policy", "person"];
const CHOICES_MAX = 1000; // of a filter; the others can be searched for
const PAUSE = 150; // milliseconds after a key, before the whole log is searched

const ZOOM = new Map([["+", "closer"], ["=", "closer"], ["-", "wider"], ["0", "whole"]]); // the buttons of keys

const by = id => document.getElementById(id);

async function main() {
  const log = await readLog();
  const view = { rows: [], order: [], selected: null, found: null, tellRange };
  by("people").textContent = log.facts.people.map(shown).join(", ");
  by("notices").append(...log.facts.notices.map(notice => element("li", notice)));
  const chart = new Chart(by("timeline"), by("chart"), [log.first, log.last], view);
  const page = new Page(log, view, chart);
  page.fillFilters();
  page.listen();
  page.filter();
  log.lines = readLines();
  document.documentElement.dataset.ready = performance.now().toFixed(0); // milliseconds
}

function tellRange({ min, max }) {
  if (min !== null) by("range").textContent = [min, max].map(time => clock(time, (max - min) / 1000)).join(" to ");
}

class Page {
  constructor(log, view, chart) {
    [this.log, this.view, this.chart] = [log, view, chart];
  }

  fillFilters() {
    const { items } = this.log;
    const values = name => [...new Set(items.map(item => item[name]).filter(Boolean))];
    const fill = (id, words) => by(id).append(...words.slice(0, CHOICES_MAX).map(word => choice(shown(word), word)));
    for (const id of ["session", "module", "status", "kind"]) by(id).append(choice("all", ""));
    fill("session", values("session"));
    fill("module", values("module").sort());
    fill("status", ["ok", "error", "in flight"]);
    fill("kind", KINDS);
    by("legend").append(...KINDS.map(kind => {
      const swatch = element("span");
      swatch.className = kind;
      return element("li", null, swatch, kind);
    }), element("li", "a red edge: an error"));
  }

  // Lay out what the filters let through.
  filter() {
    const chosen = ["session", "module", "status", "kind"].map(name => [name, by(name).value]).filter(each => each[1]);
    Object.assign(this.view, layOut(this.log.items, item => chosen.every(([name, value]) => item[name] === value)));
    by("height").style.height = `${this.view.rows.length * ROW + 60}px`;
    const count = number => number.toLocaleString("en");
    const failed = this.view.order.filter(item => item.status === "error").length;
    const began = new Date(this.log.facts.origin * 1000);
    const zero = Number.isNaN(began.getTime()) ? "unknown" : began.toISOString();
    by("summary").textContent = `${count(this.view.order.length)} shown, ${count(failed)} failed; time 0 is ${zero}`;
    if (!this.view.selected?.row) this.view.selected = null;
    this.search();
  }

  async search() {
    const word = by("search").value;
    const pattern = word && new RegExp(word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "iu");
    const lines = pattern && await this.log.lines;
    const fits = item => pattern.test(item.title) || pattern.test(lines[item.index]);
    if (word !== by("search").value) return; // another search has begun meanwhile
    this.view.found = pattern ? new Set(this.view.order.filter(fits)) : null;
    by("found").textContent = pattern ? `${this.view.found.size.toLocaleString("en")} found` : "";
    this.chart.plot.redraw(false);
  }

  // Go to the next (1) or the previous (-1) item that the search found.
  step(by) {
    const { order, found, selected } = this.view;
    let at = selected ? selected.place + by : 0;
    for (let left = order.length; left > 0; left--, at += by) {
      const item = order[(at + order.length) % order.length];
      if (!found || found.has(item)) return this.select(item);
    }
  }

  select(item) {
    if (!item) return;
    this.view.selected = item;
    this.chart.reveal(item);
    const takes = item.took === null ? "" : `, ${duration(item.took)}`;
    const words = `${labelOf(item)}, ${item.status}, ${item.kind}, begins at ${clock(item.began, 1)}${takes}`;
    by("said").textContent = `${words}; ${item.place + 1} of ${this.view.order.length}`;
    if (!by("details").hidden) this.open();
  }

  async open() {
    const item = this.view.selected;
    if (!item) return;
    by("details").hidden = false;
    const lines = await this.log.lines;
    if (item !== this.view.selected) return; // another one was chosen meanwhile
    fillDetails(by("details"), item, lines[item.index], other => this.select(other), () => this.close());
  }

  close() {
    by("details").hidden = true;
    by("timeline").focus();
  }

  // The item that an arrow leads to.
  neighbour(key) {
    const { selected, order, rows } = this.view;
    if (!selected || key === "Home") return order[0];
    if (key === "End") return order.at(-1);
    const { items } = selected.row, at = items.indexOf(selected);
    if (key === "ArrowLeft") return items[at - 1];
    if (key === "ArrowRight") return items[at + 1];
    if (key === "ArrowUp" && selected.above?.row) return selected.above;
    const child = key === "ArrowDown" && order.find(item => item.above === selected);
    if (child) return child;
    const step = key === "ArrowDown" ? 1 : -1;
    let row = selected.row.place + step;
    while (rows[row] && !rows[row].items.length) row += step;
    return rows[row] && nearest(rows[row].items, selected.began);
  }

  listen() {
    for (const id of ["session", "module", "status", "kind"]) by(id).addEventListener("change", () => this.filter());
    let timer;
    by("search").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.search(), PAUSE);
    });
    by("search").addEventListener("keydown", async event => {
      if (event.key !== "Enter") return;
      clearTimeout(timer);
      await this.search();
      by("timeline").focus();
      this.step(1);
    });
    const middle = () => this.view.selected?.began;
    by("closer").addEventListener("click", () => this.chart.zoomBy(0.5, middle()));
    by("wider").addEventListener("click", () => this.chart.zoomBy(2, middle()));
    by("whole").addEventListener("click", () => this.chart.zoom(this.log.first, this.log.last));
    by("timeline").addEventListener("keydown", event => this.press(event));
    document.addEventListener("keydown", event => this.pressAnywhere(event));
    this.listenToPointer(this.chart.plot.over);
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (/^(Arrow|Home$|End$)/.test(event.key)) this.select(this.neighbour(event.key));
    else if (event.key === "n" || event.key === "p") this.step(event.key === "n" ? 1 : -1);
    else if (event.key === "Enter") this.open().then(() => by("details").focus());
    else if (ZOOM.has(event.key)) by(ZOOM.get(event.key)).click();
    else return;
    event.preventDefault();
  }

  pressAnywhere(event) {
    const types = /^(INPUT|SELECT)$/.test(event.target.tagName);
    if (event.key === "Escape") {
      if (event.target === by("search")) { by("search").value = ""; this.search(); }
      this.close();
    } else if (event.key === "/" && !types) {
      event.preventDefault();
      by("search").focus();
    }
  }

  listenToPointer(over) {
    let from = null;
    over.addEventListener("mousedown", event => { from = event.clientX; });
    over.addEventListener("click", event => {
      const box = over.getBoundingClientRect();
      const item = this.chart.at(event.clientX - box.left, event.clientY - box.top);
      if (!item || Math.abs(event.clientX - from) >= 4) return; // it was dragged
      this.select(item);
      this.open();
    });
    over.addEventListener("mousemove", event => {
      const box = over.getBoundingClientRect();
      const item = this.chart.at(event.clientX - box.left, event.clientY - box.top);
      over.title = item ? `${labelOf(item)}\n${item.took === null ? "" : duration(item.took)}` : "";
    });
  }
}

function choice(text, value) {
  const made = element("option", text);
  made.value = value;
  return made;
}

main();
