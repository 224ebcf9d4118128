// What every part of the page uses: elements, numbers as people read them, and
// the three bands of load. Text from peers goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** An element with attributes and children; strings become text. */
export const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

/** The same of SVG. */
export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

export const find = (selector) => document.querySelector(selector);

/** Changes text only where it differs, so that nothing is read out again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The part of the overlay's rule that a load falls into, thousandths. */
export function band(milli, bands) {
  if (milli === undefined || milli === null) return "unknown";
  if (milli < bands.shrink) return "idle";
  if (milli <= bands.grow) return "steady";
  return milli <= bands.survive ? "busy" : "over";
}

export const words = {
  idle: "with room to spare",
  steady: "steady",
  busy: "busy",
  over: "overloaded",
  unknown: "not known",
};

const scaled = (value, units, base) => {
  let step = 0;
  while (value >= base && step < units.length - 1) {
    value /= base;
    step += 1;
  }
  const digits = step > 0 && value < 10 ? 1 : 0;
  return `${value.toFixed(digits)}${units[step]}`;
};

export const number = (of) =>
  of < 10 && of % 1 ? of.toFixed(1) : scaled(of, ["", " k", " M", " G"], 1e3);
export const rate = (bps) => scaled(bps, [" bit/s", " kbit/s", " Mbit/s", " Gbit/s", " Tbit/s"], 1e3);
export const bytes = (of) => scaled(of, [" B", " kB", " MB", " GB", " TB"], 1e3);
export const perCent = (milli) =>
  milli < 100 ? `${(milli / 10).toFixed(1)} %` : `${Math.round(milli / 10)} %`;
export const short = (id) => id.slice(0, 8);
export const plural = (of, one, many = `${one}s`) => `${of} ${of === 1 ? one : many}`;
export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

/** Whether the person asked for less movement. */
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
