// Asks this host for the overlay every second while somebody looks, and hands
// what it says to the parts of the page.

import { find, plural, say, perCent, band, words, duration } from "./page.js";
import { showTiles } from "./overview.js";
import { showRing } from "./ring.js";
import { showNodes } from "./nodes.js";
import { showFlow } from "./flow.js";
import { showElections } from "./election.js";
import { showEvents, showHot } from "./lists.js";

const EVERY = 1000;
const ELECTIONS_EVERY = 5000;
const PATIENCE = 6000;

let seenAt = 0;
let log = 0;
let revision = 0;
let electionsAt = 0;

async function ask(path) {
  const answer = await fetch(`dashboard/${path}`, { signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer.json();
}

/** What a person wants to know first, in one sentence. */
function sentence({ overview, bands }) {
  const { counts, replication } = overview;
  if (counts.super_nodes === 0) {
    return counts.deputies > 0
      ? `Nobody serves; ${plural(counts.deputies, "deputy", "deputies")} in reserve.`
      : "Nobody serves yet. It takes four peers that can reach one another to elect somebody.";
  }
  const milli = overview.utilisation_milli;
  const load = milli === null ? "" : `, ${words[band(milli, bands)]} at ${perCent(milli)} on average`;
  const copies =
    replication.settling > 0
      ? `${plural(replication.settling, "super-node")} still settling`
      : `each record has room for ${plural(replication.possible, "copy", "copies")}`;
  const serve = counts.super_nodes === 1 ? "1 super-node serves" : `${counts.super_nodes} super-nodes serve`;
  return `${serve} ${plural(counts.leaf_homes, "leaf home")}${load}; ${copies}.`;
}

function showHead(state) {
  const { overview } = state;
  const { reached, of, missing } = overview.freshness;
  say(find("#network"), overview.network);
  say(find("#sentence"), sentence(state));
  document.title = `${overview.network} · Canopy`;
  const partial = reached < of;
  document.body.dataset.state = of === 0 ? "empty" : partial ? "partial" : "live";
  say(find("#pulse-text"), partial ? `${reached} of ${of} answered` : of === 0 ? "live" : `live, all ${of} answered`);
  const reasons = [...new Set(missing.map((one) => one.reason))].slice(0, 2).join("; ");
  const banner = partial
    ? `${plural(of - reached, "super-node")} did not answer (${reasons}): sums are without them.`
    : "";
  find("#banner").hidden = !partial;
  say(find("#banner"), banner);
}

function showLost(error) {
  const after = seenAt ? `, what you see is ${duration(Date.now() - seenAt)} old` : "";
  document.body.dataset.state = "lost";
  say(find("#pulse-text"), "no answer");
  find("#banner").hidden = false;
  const reason = error instanceof TypeError || error.name === "TimeoutError" ? "it does not answer" : error.message;
  say(find("#banner"), `This host cannot be asked (${reason})${after}. Trying again…`);
}

async function look() {
  const [state, happened] = await Promise.all([ask("state"), ask(`events/${log}/${revision}`)]);
  seenAt = Date.now();
  showHead(state);
  showTiles(state);
  showRing(state);
  showNodes(state);
  showFlow(state);
  showHot(state);
  const anew = log !== happened.history.log;
  log = happened.history.log;
  revision = happened.history.latest;
  showEvents(happened.events, anew);
  if (Date.now() - electionsAt > ELECTIONS_EVERY) {
    electionsAt = Date.now();
    await showElections(state, ask);
  }
}

async function keepLooking() {
  try {
    if (!document.hidden) await look();
  } catch (error) {
    console.warn(error);
    showLost(error);
  }
  setTimeout(keepLooking, EVERY);
}

function theme() {
  const button = find("#theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const name = () => say(button, isDark() ? "Light" : "Dark");
  try {
    const chosen = localStorage.getItem("theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be off; then the choice lasts as long as the page.
  }
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // As above.
    }
    name();
  });
  dark.addEventListener("change", name);
  name();
}

theme();
keepLooking();
