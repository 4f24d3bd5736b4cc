// The chart: uPlot draws the axis and zooms, and this draws the items between.

const ROW = 20; // pixels of a row
const BAR = 17; // pixels of a bar in it
const COLOURS = ["front", "panel", "error", "on", "kernel", "embedder", "module", "policy", "person"];

class Chart {
  // `view` has what is drawn: rows, the item that is selected, and what a search found. It is told the times in view.
  constructor(scroller, holder, span, view) {
    [this.scroller, this.holder, this.view] = [scroller, holder, view];
    const lines = { stroke: () => colour("--line"), width: 1 };
    const values = (plot, times, axis, space, step) => times.map(time => clock(time, step));
    const axis = { side: 0, size: 34, space: 90, stroke: () => colour("--front"), grid: lines, ticks: lines, values };
    this.plot = new uPlot({
      ...this.size(), legend: { show: false }, series: [{}, {}], axes: [axis, { show: false }], padding: [0, 12, 0, 12],
      scales: { x: { time: false, range: (plot, min, max) => this.within(span, min, max) }, y: { range: [0, 1] } },
      cursor: { y: false, points: { show: false }, drag: { dist: 4 } },
      hooks: { draw: [() => this.paint()], setScale: [plot => view.tellRange(plot.scales.x)] },
    }, [span, [null, null]], holder);
    scroller.addEventListener("scroll", () => this.plot.redraw(false));
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(scroller);
    view.tellRange(this.plot.scales.x);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plot.redraw(false));
  }

  size() {
    return { width: Math.max(this.scroller.clientWidth, 100), height: Math.max(this.scroller.clientHeight, 80) };
  }

  zoom(min, max) {
    this.plot.setScale("x", { min, max });
  }

  // Times that can be shown: within the log, and so far apart that a number of JavaScript tells them apart.
  within([first, last], min, max) {
    const least = Math.max(0.001, Math.abs(first) / 1e10, Math.abs(last) / 1e10);
    const width = Math.min(Math.max(max - min, least), last - first);
    const from = Math.min(Math.max(min, first), last - width);
    return [from, from + width];
  }

  zoomBy(factor, around) {
    const { min, max } = this.plot.scales.x;
    const middle = around >= min && around <= max ? around : (min + max) / 2;
    this.zoom(middle - (middle - min) * factor, middle + (max - middle) * factor);
  }

  // Move to where an item can be seen.
  reveal(item) {
    const { min, max } = this.plot.scales.x;
    const width = max - min;
    if (item.ended < min || item.began > max) this.zoom(item.began - width / 4, item.began + width * 3 / 4);
    const top = item.row.place * ROW;
    const room = this.plot.bbox.height / devicePixelRatio;
    if (top < this.scroller.scrollTop + ROW) this.scroller.scrollTop = top - ROW;
    else if (top + ROW > this.scroller.scrollTop + room) this.scroller.scrollTop = top + ROW - room;
    this.plot.redraw(false);
  }

  // The item at a place of the plot, in pixels.
  at(left, top) {
    const row = this.view.rows[Math.floor((this.scroller.scrollTop + top) / ROW)];
    const item = row && nearest(row.items, this.plot.posToVal(left, "x"));
    if (!item) return undefined;
    const [from, to] = [item.began, item.ended].map(time => this.plot.valToPos(time, "x"));
    return left >= from - 4 && left <= to + 4 ? item : undefined;
  }

  paint() {
    const { ctx, bbox } = this.plot;
    this.colours = Object.fromEntries(COLOURS.map(name => [name, colour(`--${name}`)]));
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.translate(bbox.left, bbox.top);
    ctx.scale(devicePixelRatio, devicePixelRatio);
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    const first = Math.floor(this.scroller.scrollTop / ROW);
    const last = first + Math.ceil(bbox.height / devicePixelRatio / ROW);
    for (const row of this.view.rows.slice(first, last + 1)) {
      this.paintRow(ctx, row, row.place * ROW - this.scroller.scrollTop);
    }
    ctx.restore();
  }

  paintRow(ctx, row, top) {
    const width = this.plot.bbox.width / devicePixelRatio;
    if (row.heading) {
      ctx.fillStyle = this.colours.panel;
      ctx.fillRect(0, top + 1, width, ROW - 2);
      ctx.fillStyle = this.colours.front;
      ctx.font = "bold 12px system-ui, sans-serif";
      ctx.fillText(row.heading, 6, top + ROW / 2);
      return;
    }
    ctx.font = "12px ui-monospace, monospace";
    for (const items of [row.bars, row.marks, row.failed]) this.paintItems(ctx, items, width, top); // the last on top
    const { selected } = this.view, { x } = this.plot.scales;
    const [left, right] = [selected?.began, selected?.ended].map(time => (time - x.min) / (x.max - x.min) * width);
    if (selected?.row === row) this.paintFrame(ctx, left, right, top);
  }

  // Paint what can be seen of items that are in the order of their begins. Of those that begin on one pixel, the first
  // and the last are painted: bars are apart, so that only the last one may reach further.
  paintItems(ctx, items, width, top) {
    const { min, max } = this.plot.scales.x, scale = width / (max - min);
    let n = Math.max(0, indexFrom(items, min) - 1);
    while (n < items.length && items[n].began <= max) {
      const left = (items[n].began - min) * scale, right = (items[n].ended - min) * scale;
      if (right >= 0) this.paintItem(ctx, items[n], Math.max(left, -4), Math.min(right, width + 4), top);
      const following = this.view.found ? 0 : indexFrom(items, min + (Math.floor(left) + 1) / scale);
      n = Math.max(n + 1, following - 1);
    }
  }

  paintItem(ctx, item, left, right, top) {
    const width = Math.max(right - left - 1, item.took === null ? 3 : 1.5); // bars that follow each other have a gap
    ctx.globalAlpha = this.view.found && !this.view.found.has(item) ? 0.25 : 1;
    ctx.fillStyle = item.status === "error" && width < 6 ? this.colours.error : this.colours[item.kind];
    ctx.fillRect(left, top + (ROW - BAR) / 2, width, BAR);
    if (item.status === "error") {
      ctx.fillStyle = this.colours.error;
      ctx.fillRect(left, top + ROW - 5, width, 4);
    }
    const room = Math.floor((width - 8) / 7.3);
    if (room > 2) {
      const label = labelOf(item).replace(/\/mnt\/\w+\//, "");
      ctx.fillStyle = this.colours.on;
      const text = label.length > room ? `${label.slice(0, room - 1)}…` : label;
      ctx.fillText(text, left + 4, top + ROW / 2 - (item.status === "error"));
    }
    ctx.globalAlpha = 1;
  }

  paintFrame(ctx, left, right, top) {
    ctx.strokeStyle = this.colours.front;
    ctx.lineWidth = 2.5;
    const from = Math.max(left, -9) - 2, to = Math.min(Math.max(right, left + 3), 1e5) + 2;
    ctx.strokeRect(from, top, to - from, ROW);
  }
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A time in seconds, with as many digits as tell it from another one that is `step` later.
function clock(ms, step) {
  const digits = Math.min(6, Math.max(0, -Math.floor(Math.log10(step / 1000))));
  return `${(Math.round(ms * 10 ** (digits - 3)) / 10 ** digits + 0).toFixed(digits)} s`; // the sum is never -0
}
