// The tiles: the overlay in six figures, with how the last minutes went.

import { el, svg, find, say, number, rate, perCent, band, bytes } from "./page.js";

const KEPT = 180;
const history = { use: [], operations: [], sent: [] };
const tiles = new Map();

/** The line of the last minutes. */
function spark(values) {
  const [width, height] = [120, 26];
  const top = Math.max(...values, 1e-9);
  const at = (value, index) => {
    const x = width - ((values.length - 1 - index) * width) / (KEPT - 1);
    return `${x.toFixed(1)},${(height - 2 - (value / top) * (height - 4)).toFixed(1)}`;
  };
  const points = values.map(at);
  const start = points[0]?.split(",")[0] ?? width;
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "spark", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { d: `M${start},${height} L${points.join(" L")} L${width},${height} Z`, class: "under" }),
    svg("polyline", { points: points.join(" "), class: "line" }),
  );
}

/** Mean and worst on a scale with the bands. */
function gauge(mean, worst, bands) {
  const full = 1000;
  const x = (milli) => (Math.min(milli, full) / full) * 120;
  const part = (from, to, name) =>
    svg("rect", { x: x(from), y: 8, width: x(to) - x(from) - 1, height: 8, rx: 1.5, class: `band ${name}` });
  return svg(
    "svg",
    { viewBox: "0 4 120 22", class: "gauge", "aria-hidden": "true" },
    part(0, bands.shrink, "idle"),
    part(bands.shrink, bands.grow, "steady"),
    part(bands.grow, bands.survive, "busy"),
    part(bands.survive, full, "over"),
    svg("line", { x1: x(worst), x2: x(worst), y1: 6, y2: 18, class: "worst" }),
    svg("path", { d: `M${x(mean)},17 l-4,7 h8 Z`, class: "mean" }),
  );
}

function tile(name, title, value, note, picture, mood = "") {
  let one = tiles.get(name);
  if (!one) {
    const parts = [el("h3", {}, title), el("p", { class: "value" }), el("div", { class: "picture" }), el("p", { class: "note" })];
    one = el("div", { class: "tile" }, ...parts);
    tiles.set(name, one);
    find("#tiles").append(one);
  }
  one.dataset.mood = mood;
  say(one.querySelector(".value"), value);
  say(one.querySelector(".note"), note);
  one.querySelector(".picture").replaceChildren(...(picture ? [picture] : []));
}

function remember(state) {
  const { totals, utilisation_milli: use } = state.overview;
  const done = state.load.super_nodes.reduce((sum, one) => sum + one.operations_per_s, 0);
  const sent = state.load.super_nodes.reduce((sum, one) => sum + one.sent_bps, 0);
  history.use.push(use ?? 0);
  history.operations.push(done);
  history.sent.push(sent);
  Object.values(history).forEach((values) => values.splice(0, values.length - KEPT));
  return { done, sent, totals };
}

function balance(overview) {
  const of = (name) => overview.imbalance.find((one) => one.of === name);
  const work = of("operations");
  const worst = work?.max_over_mean ?? 0;
  const rest = ["records", "leaves"].filter(of).map((name) => `${name} ${of(name).max_over_mean.toFixed(2)}`);
  const value = work && worst > 0 ? `${worst.toFixed(2)} ×` : "–";
  const note = work && worst > 0 ? `its due at the busiest; ${rest.join(", ")}` : rest.join(", ") || "no work to share";
  return [value, note, worst > 2 ? "busy" : ""];
}

function headroom(overview) {
  const [first] = overview.domains;
  if (!first) return ["–", "nobody serves", ""];
  const name = first.domain || "one super-node";
  const rest = first.rest_utilisation_milli;
  if (first.survives) return ["safe", `without ${name} the rest is at ${perCent(rest)}`, ""];
  if (rest === null) return ["at risk", `nobody would serve without ${name}`, "over"];
  const copies = overview.counts.super_nodes - first.super_nodes < 3 ? ", too few for three copies" : "";
  return ["at risk", `without ${name} the rest is at ${perCent(rest)}${copies}`, "busy"];
}

export function showTiles(state) {
  const { overview, bands } = state;
  const { done, sent, totals } = remember(state);
  const [mean, worst] = [overview.utilisation_milli, overview.worst];
  const use = worst ? `busiest ${perCent(worst.utilisation_milli)} (${worst.dimension})` : "no figures yet";
  const picture = worst ? gauge(mean, worst.utilisation_milli, bands) : null;
  tile("use", "Utilisation", mean === null ? "–" : perCent(mean), use, picture, band(mean ?? 0, bands) === "over" ? "over" : "");
  tile("operations", "Operations", `${number(done)}/s`, `${number(totals.operations.total)} since the start`, spark(history.operations));
  tile("sent", "Sent", rate(sent), `of ${rate(totals.capacity_bps)} elected`, spark(history.sent));
  const [ratio, others, mood] = balance(overview);
  tile("balance", "Balance", ratio, others, null, mood);
  const { possible, wanted, settling, under_replicated_shards: lacking } = overview.replication;
  const records = `${number(totals.records)} held, ${bytes(totals.record_bytes)}${lacking ? `; of ${lacking} of 256 shards a copy may be missing` : settling ? `, ${settling} settling` : ""}`;
  tile("copies", "Copies", `${possible} of ${wanted}`, records, null, possible < wanted || lacking > 0 ? "busy" : "");
  tile("loss", "A loss", ...headroom(overview).toSpliced(2, 0, null));
}
