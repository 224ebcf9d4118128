// Super-nodes: capacity against use, with the bands; more of each when opened.

import { el, find, say, band, rate, number, bytes, perCent, short, clock, duration, words } from "./page.js";

const FIRST = 13;
/** As many have room for larger bars. */
const FEW = 6;
const DIMENSIONS = ["connections", "operations", "bytes", "memory", "cpu"];
const rows = new Map();
let all = false;
let last = null;

const use = (node) => node.figures?.utilisation?.worst_milli;
const orders = {
  capacity: (a, b) => b.capacity_bps - a.capacity_bps,
  use: (a, b) => (use(b) ?? -1) - (use(a) ?? -1),
  leaves: (a, b) => (b.figures?.leaves ?? -1) - (a.figures?.leaves ?? -1),
  name: () => 0,
};

function dimension(node) {
  const figures = node.figures.utilisation;
  return DIMENSIONS.reduce((worst, name) => (figures[`${name}_milli`] > figures[`${worst}_milli`] ? name : worst));
}

function make(id) {
  const more = el("dl", { class: "more", hidden: "" });
  const tags = el("span", { class: "tags" });
  const bar = el("span", { class: "bar" }, el("span", { class: "fill" }));
  ["shrink", "grow", "survive"].forEach((name) => bar.append(el("i", { class: name })));
  const head = el(
    "button",
    { type: "button", class: "head", "aria-expanded": "false" },
    el("span", { class: "name" }, short(id)),
    tags,
    bar,
    el("span", { class: "figure" }),
  );
  head.addEventListener("click", () => {
    more.hidden = !more.hidden;
    head.setAttribute("aria-expanded", String(!more.hidden));
  });
  return el("li", { "data-id": id }, head, more);
}

function tagsOf(node) {
  const tags = [];
  if (node.state !== "serving") tags.push(node.state);
  if (node.basis === "designated") tags.push("designated");
  if (node.figures?.cordoned) tags.push("cordoned");
  if (node.figures?.settling) tags.push("settling");
  if (node.figures?.failure) tags.push("store failed");
  if (node.figures?.election) tags.push("runs an election");
  return tags;
}

/** Everything about one, name by name. */
function details(node, now) {
  const figures = node.figures;
  const pairs = [["id", node.node_id]];
  if (figures?.utilisation) {
    const of = figures.utilisation;
    pairs.push(["load", DIMENSIONS.map((name) => `${name} ${perCent(of[`${name}_milli`])}`).join(", ")]);
  }
  if (figures) {
    pairs.push(["work", `${number(figures.operations_per_s)} operations/s, sends ${rate(figures.sent_bps)}`]);
    pairs.push(["holds", `${number(figures.records)} records, ${bytes(figures.record_bytes)}, ${number(figures.items)} items`]);
    pairs.push(["leaves", `${figures.leaves}, ${figures.sessions} sessions`]);
    pairs.push(["program", `${figures.version}, up ${duration(figures.uptime_ms)}`]);
    if (figures.failure) pairs.push(["failure", figures.failure]);
  }
  pairs.push(["share", `${(node.share_ppm / 1e4).toFixed(1)} % of the keyspace, ${node.seats} seats`]);
  pairs.push(["mandate", `${node.basis} in term ${node.term} at ${clock(node.issued_ms)}, ends in ${duration(node.expires_ms - now)}`]);
  pairs.push(["domain", node.domain || "one of its own"]);
  pairs.push(["reached at", node.addrs.join(", ") || "not known"]);
  return pairs.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]);
}

/** What the three lines in every bar mean. */
function legend(bands) {
  const one = (mark, text) => el("span", {}, el("i", { class: mark }), `${perCent(bands[mark])}: ${text}`);
  const parts = [
    one("shrink", "below it on average, the overlay shrinks"),
    one("grow", "above it, it grows"),
    one("survive", "the most that a loss may leave"),
  ];
  find("#bands").replaceChildren(...parts);
}

function update(row, node, widest, state) {
  const milli = use(node);
  const name = band(milli, state.bands);
  row.dataset.band = name;
  row.dataset.state = node.state;
  const tags = tagsOf(node);
  say(row.querySelector(".tags"), tags.join(", "));
  const bar = row.querySelector(".bar");
  bar.style.width = `${Math.max(6, (node.capacity_bps / widest) * 100)}%`;
  bar.querySelector(".fill").style.width = `${Math.min(100, (milli ?? 0) / 10)}%`;
  for (const mark of ["shrink", "grow", "survive"]) bar.querySelector(`.${mark}`).style.left = `${state.bands[mark] / 10}%`;
  const missing = state.overview.freshness.missing.find((one) => one.node_id === node.node_id);
  const told = milli === undefined ? missing?.reason ?? (node.state === "serving" ? "no figures" : rate(node.capacity_bps)) : `${perCent(milli)} of ${rate(node.capacity_bps)}`;
  say(row.querySelector(".figure"), told);
  const head = row.querySelector(".head");
  const why = milli === undefined ? told : `${told}, ${words[name]}, most in ${dimension(node)}`;
  head.setAttribute("aria-label", [`Super-node ${short(node.node_id)}`, ...tags, why].join(", "));
  head.title = why;
  const more = row.querySelector(".more");
  if (!more.hidden) more.replaceChildren(...details(node, state.overview.at_ms));
  head.onclick = () => more.replaceChildren(...details(node, state.overview.at_ms));
}

/** Moves rows only where the order differs, so that focus stays. */
function arrange(list, wanted) {
  wanted.forEach((row, index) => {
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
  while (list.children.length > wanted.length) list.lastChild.remove();
}

export function showNodes(state) {
  if (!last) legend(state.bands);
  last = state;
  const order = orders[find("#order").value] ?? orders.capacity;
  const idle = (node) => Number(node.state !== "serving");
  const nodes = [...state.super_nodes, ...state.deputies].sort((a, b) => idle(a) - idle(b) || order(a, b) || a.node_id.localeCompare(b.node_id));
  const widest = Math.max(1, ...nodes.map((node) => node.capacity_bps));
  const shown = all ? nodes : nodes.slice(0, FIRST);
  const wanted = shown.map((node) => {
    if (!rows.has(node.node_id)) rows.set(node.node_id, make(node.node_id));
    const row = rows.get(node.node_id);
    update(row, node, widest, state);
    return row;
  });
  const list = find("#nodes .body");
  list.classList.toggle("few", wanted.length <= FEW);
  if (wanted.length === 0) {
    const nobody = "Nobody serves. Peers elect super-nodes as soon as four of them can reach one another.";
    list.replaceChildren(el("li", { class: "note" }, nobody));
  } else {
    arrange(list, wanted);
  }
  const present = new Set(nodes.map((node) => node.node_id));
  [...rows.keys()].filter((id) => !present.has(id)).forEach((id) => rows.delete(id));
  const { counts } = state.overview;
  const more = find("#more");
  more.hidden = nodes.length <= FIRST;
  const total = Math.max(nodes.length, counts.super_nodes + counts.down + counts.deputies);
  const listed = nodes.length < total ? `the ${nodes.length} busiest of ${total}` : `all ${total}`;
  say(more, all ? "Show fewer" : `Show ${listed}`);
}

find("#more").addEventListener("click", () => {
  all = !all;
  if (last) showNodes(last);
});
find("#order").addEventListener("change", () => last && showNodes(last));
