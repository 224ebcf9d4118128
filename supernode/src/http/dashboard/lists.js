// What happened, and what is hot.

import { el, find, say, clock, number, perCent, rate, short } from "./page.js";

const KEPT = 200;
const moods = {
  super_node_up: "good",
  election_closed: "good",
  super_node_down: "bad",
  home_lost: "bad",
  warning: "bad",
  operated: "told",
  role_changed: "told",
  election_opened: "told",
};
const kinds = { key: "record", term: "word", publisher: "publisher", topic: "topic", flow: "relayed flow" };

/** Adds what is new at the top. `anew`: the host has begun another log. */
export function showEvents(events, anew) {
  const list = find("#events .body");
  if (anew) list.replaceChildren();
  for (const event of events) {
    const at = el("time", { datetime: new Date(event.at_ms).toISOString() }, clock(event.at_ms));
    list.prepend(el("li", { class: moods[event.name] ?? "" }, at, el("span", {}, event.text)));
  }
  while (list.children.length > KEPT) list.lastChild.remove();
  const note = list.querySelector(".note");
  if (events.length > 0) note?.remove();
  else if (list.children.length === 0) list.append(el("li", { class: "note" }, "Nothing has happened yet."));
}

/** The name of a hot key: a word or topic as it is, an id short with what it is of. */
function named(key) {
  if (key.kind === "term" || key.kind === "topic") return `“${key.id}”`;
  return key.what ? key.what : short(key.id);
}

export function showHot(state) {
  const keys = state.hot.keys;
  // Kinds count different things: each is compared with its own. They come kind by
  // kind, the heaviest first.
  const ofKind = Map.groupBy(keys, (key) => key.kind);
  const each = Math.max(3, Math.floor(12 / ofKind.size));
  const heaviest = [...ofKind.values()].flatMap((some) => some.slice(0, each));
  const list = find("#hot .body");
  if (heaviest.length === 0) {
    list.replaceChildren(el("li", { class: "note" }, "Nothing was asked for of late."));
    return;
  }
  const items = heaviest.map((key) => {
    const bar = el("i", { class: "heat" });
    const most = ofKind.get(key.kind)[0].per_s || 1;
    bar.style.width = `${Math.max(1, (key.per_s / most) * 100)}%`;
    const total = state.hot.totals.find((one) => one.kind === key.kind)?.count ?? 0;
    const part = total > 0 ? `, ${perCent((key.count / total) * 1000)} of its kind` : "";
    const told = `${key.kind === "flow" ? rate(key.per_s * 8) : `${number(key.per_s)}/s`}${part}`;
    return el("li", { title: key.id }, el("span", { class: "kind" }, kinds[key.kind] ?? key.kind), el("span", { class: "name" }, named(key)), el("span", { class: "figure" }, told), bar);
  });
  list.replaceChildren(...items);
}
