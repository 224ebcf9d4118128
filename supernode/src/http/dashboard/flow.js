// Leaves on the left, their homes on the right: a ribbon for each home, as wide
// as it is wanted, with leaves that drift along it.

import { el, svg, find, number, short, band, still } from "./page.js";

const HOMES = 9;
const [NARROWEST, WIDEST, HEIGHT] = [320, 580, 250];
const LEFT = 78;
const LABEL = 17;
let drawn = "";

/** Homes with leaves, the largest first; what does not fit is one. */
function homes(state) {
  const all = state.super_nodes
    .filter((node) => node.figures && node.state === "serving")
    .map((node) => ({
      id: node.node_id,
      name: short(node.node_id),
      leaves: node.figures.leaves,
      band: band(node.figures.utilisation?.worst_milli, state.bands),
    }))
    .sort((a, b) => b.leaves - a.leaves || a.id.localeCompare(b.id));
  const rest = all.slice(HOMES);
  const shown = all.slice(0, HOMES);
  const more = state.overview.counts.leaf_homes - shown.reduce((sum, one) => sum + one.leaves, 0);
  if (rest.length > 0) shown.push({ id: "rest", name: `${rest.length} more`, leaves: Math.max(0, more), band: "idle" });
  return shown;
}

function ribbon(from, to, width, right) {
  const bend = (LEFT + right) / 2;
  return (
    `M${LEFT},${from} C${bend},${from} ${bend},${to} ${right},${to} ` +
    `v${width} C${bend},${to + width} ${bend},${from + width} ${LEFT},${from + width} Z`
  );
}

/** A few leaves on their way; how many follows the width. */
function drift(from, to, width, right) {
  const bend = (LEFT + right) / 2;
  const count = Math.max(1, Math.min(8, Math.round(width / 6)));
  return Array.from({ length: count }, (_, i) => {
    const shift = width * ((i + 0.5) / count);
    const path = `M${LEFT},${from + shift} C${bend},${from + shift} ${bend},${to + shift} ${right},${to + shift}`;
    const seconds = 7 + ((i * 37) % 50) / 10;
    const motion = svg("animateMotion", { dur: `${seconds}s`, begin: `${-((i * 61) % 100) / 10}s`, repeatCount: "indefinite", path });
    return svg("circle", { r: 2, class: "leaf" }, motion);
  });
}

function picture(shown, total, wide) {
  const right = wide - 132;
  const gap = 6;
  // Labels need their room, however narrow a ribbon is.
  const room = HEIGHT - 20 - gap * (shown.length - 1);
  const scale = room / Math.max(1, total);
  const trunk = total * scale;
  let from = (HEIGHT - trunk) / 2;
  const top = from;
  let to = 10;
  const least = 4;
  const parts = [];
  for (const one of shown) {
    const width = one.leaves * scale;
    if (width > 0) {
      parts.push(svg("path", { d: ribbon(from, to, width, right), class: `ribbon ${one.band}` }));
      if (!still()) parts.push(...drift(from, to, width, right));
    }
    const height = Math.max(width, least);
    parts.push(svg("rect", { x: right, y: to, width: 7, height, rx: 2, class: `home ${one.band}` }));
    const label = svg("text", { x: right + 14, y: to + height / 2 + 4 }, one.name);
    label.append(svg("tspan", { class: "muted", dx: 8 }, number(one.leaves)));
    parts.push(label);
    from += width;
    to += Math.max(height + gap, LABEL);
  }
  parts.push(svg("rect", { x: LEFT - 7, y: top, width: 7, height: Math.max(trunk, least), rx: 2, class: "trunk" }));
  parts.push(svg("text", { x: LEFT - 14, y: HEIGHT / 2 - 2, "text-anchor": "end", class: "big" }, number(total)));
  parts.push(svg("text", { x: LEFT - 14, y: HEIGHT / 2 + 15, "text-anchor": "end", class: "muted" }, "homes"));
  const told = shown.map((one) => `${one.name}: ${one.leaves}`).join(", ");
  const high = Math.max(HEIGHT, to + 4);
  return svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `Leaves by home: ${told}` }, ...parts);
}

export function showFlow(state) {
  const shown = homes(state);
  const total = shown.reduce((sum, one) => sum + one.leaves, 0);
  // Leaves drift on undisturbed while nothing changes.
  const body = find("#flow .body");
  const wide = Math.max(NARROWEST, Math.min(WIDEST, body.clientWidth));
  const now = JSON.stringify([wide, shown]);
  if (now === drawn) return;
  drawn = now;
  if (total === 0) {
    body.replaceChildren(el("p", { class: "note" }, "No leaf has a home yet."));
  } else {
    body.replaceChildren(picture(shown, total, wide));
  }
}
