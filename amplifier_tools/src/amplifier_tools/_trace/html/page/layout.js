// The layout: which row each item is drawn in. A session is a heading with rows below it; what an item is in is above.

const ROWS_MAX = 400; // of a session; what happens at the same time beyond them shares the last one

function layOut(items, wanted) {
  const groups = new Map();
  const order = items.filter(wanted).sort((a, b) => a.began - b.began || b.ended - a.ended || a.index - b.index);
  for (const item of items) item.row = null;
  order.forEach((item, n) => [item.row, item.place] = [undefined, n]);
  for (const item of order) {
    const waiting = [];
    for (let each = item; each && each.row === undefined; each = each.above) {
      each.row = null; // so that a circle ends here
      waiting.push(each);
    }
    while (waiting.length) seat(waiting.pop(), groups);
  }
  const rows = [...groups.values()].flatMap(finished);
  rows.forEach((row, n) => row.place = n);
  return { order, rows };
}

function seat(item, groups) {
  const key = JSON.stringify([item.kernel, item.session]);
  let group = groups.get(key);
  if (!group) groups.set(key, group = { rows: [], session: item.session, kernel: item.kernel });
  let at = item.above?.row?.group === group ? item.above.row.at + 1 : 0;
  if (item.took !== null) while (at < ROWS_MAX && group.rows[at]?.free > item.began) at++;
  at = Math.min(at, ROWS_MAX);
  while (group.rows.length <= at) group.rows.push({ group, at: group.rows.length, items: [], free: -Infinity });
  const row = item.row = group.rows[at];
  row.items.push(item);
  if (item.took !== null) row.free = Math.max(row.free, item.ended);
}

function finished(group) {
  for (const row of group.rows) {
    row.items.sort((a, b) => a.began - b.began || b.ended - a.ended);
    row.bars = row.items.filter(item => item.took !== null);
    row.marks = row.items.filter(item => item.took === null);
    row.failed = row.items.filter(item => item.status === "error");
  }
  const session = group.session ? `session ${group.session}, kernel ${group.kernel}` : `kernel ${group.kernel}`;
  return [{ heading: shown(session), items: [] }, ...group.rows];
}

// The first item of a row that begins at `time` or later.
function indexFrom(items, time) {
  let low = 0, high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (items[middle].began < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The item of a row that is at `time`, or nearest to it.
function nearest(items, time) {
  const after = indexFrom(items, time);
  const near = items.slice(Math.max(0, after - 2), after + 1);
  const distance = item => Math.max(item.began - time, time - item.ended, 0);
  return near.reduce((best, item) => (best && distance(best) < distance(item) ? best : item), undefined);
}
