// The keyspace as a ring: each shard as bright as it is asked for, with a spoke
// as long as the records it holds. One shard is told in words; arrows move it.

import { el, svg, find, say, number, bytes, plural } from "./page.js";

const SIZE = 340;
const [INNER, OUTER, REACH] = [92, 122, 158];
const STEPS = 6;
let parts = null;
let chosen = 0;
let latest = [];

const name = (shard) => shard.toString(16).padStart(2, "0");

const point = (radius, turn) => {
  const angle = turn * 2 * Math.PI - Math.PI / 2;
  return `${(SIZE / 2 + radius * Math.cos(angle)).toFixed(2)},${(SIZE / 2 + radius * Math.sin(angle)).toFixed(2)}`;
};

function arc(from, to, inner, outer) {
  const [a, b] = [from + (to - from) * 0.06, to - (to - from) * 0.06];
  return (
    `M${point(inner, a)} L${point(outer, a)} A${outer},${outer} 0 0 1 ${point(outer, b)} ` +
    `L${point(inner, b)} A${inner},${inner} 0 0 0 ${point(inner, a)} Z`
  );
}

function choose(shard) {
  chosen = (shard + latest.length) % latest.length;
  tell();
}

/** The ring once; later only classes and spokes change. */
function build(body, count) {
  const shards = Array.from({ length: count }, (_, i) => {
    const [from, to] = [i / count, (i + 1) / count];
    const work = svg("path", { d: arc(from, to, INNER, OUTER), class: "shard" });
    const spoke = svg("path", { class: "spoke" });
    const hit = svg("path", { d: arc(from, to, INNER, REACH), class: "hit" });
    hit.addEventListener("pointerenter", () => choose(i));
    hit.addEventListener("click", () => choose(i));
    return { work, spoke, hit, from, to };
  });
  const at = (y, text, kind) => svg("text", { x: SIZE / 2, y: SIZE / 2 + y, "text-anchor": "middle", class: kind });
  const centre = [at(-8, "", "big"), at(14, "", "muted"), at(32, "", "muted")];
  const pointer = svg("path", { class: "pointer" });
  const quarters = [0, 0.25, 0.5, 0.75].map((turn) => {
    const [x, y] = point(INNER - 12, turn).split(",");
    return svg("text", { x, y: Number(y) + 4, "text-anchor": "middle", class: "tick" }, name(turn * count));
  });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${SIZE} ${SIZE}`, tabindex: 0, role: "application", "aria-describedby": "shard-told" },
    ...shards.map((one) => one.spoke),
    ...shards.map((one) => one.work),
    pointer,
    ...quarters,
    ...centre,
    ...shards.map((one) => one.hit),
  );
  picture.setAttribute("aria-label", "Shards of the keyspace; left and right arrow move from one to the next");
  picture.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    choose(chosen + by);
  });
  const told = el("p", { id: "shard-told", role: "status" });
  const scale = el("p", { class: "scale" }, "quiet ", ...Array.from({ length: STEPS }, (_, i) => el("i", { class: `heat${i}` })), " asked for most");
  body.replaceChildren(picture, told, scale);
  return { shards, centre, pointer, told };
}

function tell() {
  const shard = latest[chosen];
  if (!shard || !parts) return;
  const { from, to } = parts.shards[chosen];
  parts.pointer.setAttribute("d", arc(from, to, INNER - 3, OUTER + 3));
  const records = `${plural(shard.records, "record")} in ${plural(shard.copies, "copy", "copies")}, ${bytes(shard.bytes)}`;
  const why = shard.under_replicated ? ` — ${shard.why}` : "";
  say(parts.told, `Shard ${name(shard.shard)}: ${number(shard.operations_per_s)} operations/s, ${records}, ${plural(shard.owners, "owner")}${why}`);
}

export function showRing(state) {
  const { shards, overview } = state;
  if (overview.counts.super_nodes === 0) {
    parts = null;
    find("#ring .body").replaceChildren(el("p", { class: "note" }, "Nobody owns a key while nobody serves."));
    return;
  }
  if (parts?.shards.length !== shards.length) parts = build(find("#ring .body"), shards.length);
  latest = shards;
  const busiest = Math.max(...shards.map((one) => one.operations_per_s), 1e-9);
  const largest = Math.max(...shards.map((one) => one.records), 1);
  const quiet = busiest < 0.01;
  shards.forEach((one, i) => {
    const { work, spoke, from, to } = parts.shards[i];
    // By its root: a shard that is asked for a tenth as much is still to be seen.
    const heat = quiet ? 0 : Math.round(Math.sqrt(one.operations_per_s / busiest) * (STEPS - 1));
    const wanted = `shard heat${heat}${one.under_replicated ? " lacking" : ""}`;
    if (work.getAttribute("class") !== wanted) work.setAttribute("class", wanted);
    const end = OUTER + 4 + (REACH - OUTER - 4) * (one.records / largest);
    spoke.setAttribute("d", one.records > 0 ? arc(from, to, OUTER + 3, end) : "");
    spoke.setAttribute("class", one.under_replicated ? "spoke lacking" : "spoke");
  });
  const sum = (of) => shards.reduce((all, one) => all + one[of], 0);
  const lacking = shards.filter((one) => one.under_replicated).length;
  say(parts.centre[0], number(sum("records")));
  say(parts.centre[1], "records");
  say(parts.centre[2], lacking > 0 ? `${plural(lacking, "shard lacks", "shards lack")} copies` : `${number(sum("operations_per_s"))} operations/s`);
  parts.centre[2].setAttribute("class", lacking > 0 ? "warn" : "muted");
  tell();
}
