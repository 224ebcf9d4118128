// An election, replayed: who stood, level by level, ballot by ballot, and what
// became of each. All that is drawn stands on one scale: what a candidate
// carries. A ballot says so for the whole jury: 0.7 of the jury times what the
// juror measured, which is how the score follows from the median.

import { el, svg, find, say, rate, short, clock, plural, still } from "./page.js";

const DISCOUNT = 0.7;
const [ROW, LEFT, RIGHT] = [52, 92, 224];
const NARROWEST = 600;
const BALLOT_MS = 70;
const STEP_MS = 650;

let listed = "";
let current = null;
let playing = null;

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length / 2;
  return sorted.length % 2 ? sorted[Math.floor(half)] : (sorted[half - 1] + sorted[half]) / 2;
};

/** Candidates in the order of their races, with their ballots. */
function candidates(reply) {
  const election = reply.elections[0];
  const mandates = new Map(reply.mandates.map((one) => [one.node_id, one]));
  const stood = (election?.contenders ?? []).filter((one) => one.race || one.elected);
  const others = reply.mandates.filter((one) => !stood.some((other) => other.node_id === one.node_id));
  const mandated = others.map((one) => ({ node_id: one.node_id, elected: true, why: `${one.basis}, ${rate(one.capacity_bps)}`, race: null }));
  return [...stood, ...mandated].map((one) => {
    const mandate = mandates.get(one.node_id);
    const ballots = [...(mandate?.ballots ?? [])].sort((a, b) => a.issued_ms - b.issued_ms);
    const worth = ballots.map((ballot) => ({ ...ballot, worth: DISCOUNT * ballots.length * ballot.goodput_bps }));
    const score = one.race?.score_bps ?? mandate?.capacity_bps ?? 0;
    return { ...one, mandate, ballots: worth, score };
  });
}

/** The moments of the replay: what is shown up to each, and what is said. */
function moments(all, election) {
  const steps = [{ said: election ? `Term ${election.term} opens: ${election.reason}.` : "", rest: STEP_MS }];
  all.forEach((one, row) => {
    const name = short(one.node_id);
    for (const level of one.race?.levels ?? []) {
      const juries = level.findings.map((found) => `${plural(found.ballots, "ballot")}, median ${rate(found.median_bps)}`).join("; ");
      const end = level.pass === null ? "undecided" : level.pass ? "carried" : "too much";
      steps.push({ row, level, rest: STEP_MS, said: `${name}, level ${level.level}: ${rate(level.share_bps)} for each juror — ${juries}: ${end}.` });
    }
    one.ballots.forEach((ballot, i) => {
      const so_far = median(one.ballots.slice(0, i + 1).map((other) => other.worth));
      const said = `${name}, ballot ${i + 1} of ${one.ballots.length} by ${short(ballot.voter)}: ${rate(ballot.goodput_bps)}. The median stands at ${rate(so_far)}.`;
      steps.push({ row, ballot: i, rest: BALLOT_MS, said });
    });
    steps.push({ row, done: true, rest: STEP_MS, said: `${name}: ${one.why}.` });
  });
  if (election?.closed_ms) {
    const elected = all.filter((one) => one.elected).length;
    steps.push({ rest: 0, said: `Term ${election.term} closed after ${((election.closed_ms - election.opened_ms) / 1000).toFixed(1)} s: ${elected} elected.` });
  }
  return steps;
}

/** From bits a second to a place on a logarithmic scale. */
function axis(all, width) {
  const values = all.flatMap((one) => [
    ...one.ballots.map((ballot) => ballot.worth),
    one.score,
    one.race?.floor_bps ?? 0,
    ...(one.race?.levels ?? []).flatMap((level) => level.findings.map((found) => DISCOUNT * found.ballots * found.median_bps)),
  ]).filter((value) => value > 0);
  const low = Math.max(1, Math.min(...values, 1e9)) / 1.4;
  const high = Math.max(...values, low * 10) * 1.4;
  const span = Math.log(high / low);
  const room = width - LEFT - RIGHT;
  const x = (bps) => LEFT + (Math.log(Math.max(bps, low) / low) / span) * room;
  const marks = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power < high; power *= 10) {
    for (const factor of [1, 2, 5]) if (power * factor >= low && power * factor <= high) marks.push(power * factor);
  }
  const few = marks.length * 56 < room ? marks : marks.filter((mark) => /^10*$/.test(String(mark)));
  return { x, width, marks: few };
}

/** Dots that would cover one another are set beside each other. */
function scatter(ballots, x) {
  const taken = [];
  return ballots.map((ballot) => {
    const at = x(ballot.worth);
    let lane = 0;
    while (taken.some((other) => other.lane === lane && Math.abs(other.at - at) < 7)) lane = lane > 0 ? -lane : 1 - lane;
    lane = Math.max(-3, Math.min(3, lane));
    taken.push({ at, lane });
    return { at, lane };
  });
}

function drawRow(one, row, scale) {
  const y = 34 + row * ROW + ROW / 2;
  const name = svg("text", { x: LEFT - 14, y: y + 4, "text-anchor": "end", class: "name" }, short(one.node_id));
  const track = svg("line", { x1: LEFT, x2: scale.width - RIGHT, y1: y, y2: y, class: "track" });
  const floor = one.race ? [svg("line", { x1: scale.x(one.race.floor_bps), x2: scale.x(one.race.floor_bps), y1: y - 20, y2: y + 20, class: "floor" })] : [];
  const levels = (one.race?.levels ?? []).map((level) => {
    const marks = level.findings.map((found) => {
      const at = scale.x(DISCOUNT * found.ballots * found.median_bps);
      return svg("path", { d: `M${at},${y - 6} l6,6 l-6,6 l-6,-6 Z`, class: found.carried ? "jury carried" : "jury failed" });
    });
    return svg("g", { class: "late" }, ...marks);
  });
  const dots = scatter(one.ballots, scale.x).map(({ at, lane }) => svg("circle", { cx: at, cy: y + lane * 6.5, r: 3.4, class: "ballot late" }));
  const line = svg("line", { y1: y - 22, y2: y + 22, class: "median late" });
  const score = svg("path", { d: `M${scale.x(one.score)},${y - 16} v32`, class: one.elected ? "score late" : "score lost late" });
  const text = wrap(one.why, 34).map((part, i, parts) => {
    const at = y + 4 + (i - (parts.length - 1) / 2) * 15;
    return svg("text", { x: scale.width - RIGHT + 16, y: at, class: one.elected ? "verdict won" : "verdict" }, part);
  });
  const verdict = svg("g", { class: "late" }, ...text);
  const group = svg("g", {}, track, ...floor, name, ...levels, ...dots, line, score, verdict);
  return { group, levels, dots, line, score, verdict };
}

function wrap(text, width) {
  const lines = [""];
  for (const word of text.replace(/(\d+) bit\/s/g, (_, bps) => rate(Number(bps))).split(" ")) {
    const last = lines.at(-1);
    if (last && last.length + word.length + 1 > width) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines.length > 3 ? [...lines.slice(0, 2), `${lines[2]} …`] : lines;
}

function draw(all, width) {
  const scale = axis(all, width);
  const rows = all.map((one, row) => drawRow(one, row, scale));
  const high = 40 + all.length * ROW;
  const marks = scale.marks.flatMap((mark) => [
    svg("line", { x1: scale.x(mark), x2: scale.x(mark), y1: 28, y2: high, class: "grid" }),
    svg("text", { x: scale.x(mark), y: 18, "text-anchor": "middle", class: "tick" }, rate(mark)),
  ]);
  const label = `Election of ${plural(all.length, "candidate")}: ${all.map((one) => `${short(one.node_id)} ${one.why}`).join("; ")}`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${high}`, width, height: high, role: "img", "aria-label": label }, ...marks, ...rows.map((row) => row.group));
  return { picture, rows, scale };
}

/** Shows everything up to a moment. */
function moment(index) {
  const { all, steps, rows, scale } = current;
  rows.forEach((row, r) => {
    const past = steps.slice(0, index + 1).filter((step) => step.row === r);
    const shown = past.filter((step) => step.ballot !== undefined).length;
    const levels = past.filter((step) => step.level).length;
    const done = past.some((step) => step.done);
    const show = (node, on) => node.classList.toggle("on", on);
    row.levels.forEach((node, i) => show(node, i < levels));
    row.dots.forEach((node, i) => show(node, i < shown));
    show(row.line, shown > 0 && !done);
    if (shown > 0) {
      const at = scale.x(median(all[r].ballots.slice(0, shown).map((ballot) => ballot.worth)));
      row.line.setAttribute("x1", at);
      row.line.setAttribute("x2", at);
    }
    show(row.score, done && all[r].score > 0);
    show(row.verdict, done);
  });
  find("#step").value = index;
  say(find("#said"), steps[index].said);
}

function stop() {
  clearTimeout(playing);
  playing = null;
  say(find("#play"), "Replay");
}

function play(index) {
  moment(index);
  if (index + 1 >= current.steps.length) return stop();
  say(find("#play"), "Pause");
  const rest = still() ? Math.max(current.steps[index].rest, STEP_MS) : current.steps[index].rest;
  playing = setTimeout(() => play(index + 1), rest);
  return undefined;
}

function players(on) {
  document.querySelectorAll("#election .player, #election .keys").forEach((part) => {
    part.hidden = !on;
  });
}

/** Draws a term as it ended. */
function open(reply) {
  stop();
  const body = find("#election .body");
  const all = candidates(reply).slice(0, 16);
  players(all.length > 0);
  if (all.length === 0) {
    body.replaceChildren(el("p", { class: "note" }, "Nobody was measured in this election: see its reason above."));
    return;
  }
  const steps = moments(all, reply.elections[0]);
  find("#step").max = steps.length - 1;
  current = { all, steps };
  fit(steps.length - 1);
}

/** Draws as wide as there is room. */
function fit(index) {
  const body = find("#election .body");
  Object.assign(current, draw(current.all, Math.max(NARROWEST, body.clientWidth)));
  body.replaceChildren(current.picture);
  moment(index);
}

let asker = null;

async function choose() {
  const term = find("#term").value;
  if (term === "") return;
  try {
    open(await asker(`elections/${term}`));
  } catch (error) {
    players(false);
    find("#election .body").replaceChildren(el("p", { class: "note" }, `Cannot be told: ${error.message}`));
  }
}

function title(election) {
  const won = election.contenders.filter((one) => one.elected).length;
  const state = election.running ? "under way" : won > 0 ? `${won} elected` : "nobody elected";
  return `term ${election.term}, ${clock(election.opened_ms)}: ${election.founding ? "founding, " : ""}${state}`;
}

/** Lists terms; opens the last of note where none is open. */
export async function showElections(state, ask) {
  asker = ask;
  const { elections } = await ask("elections");
  const now = JSON.stringify(elections.map(title));
  if (now === listed) return;
  listed = now;
  const list = find("#term");
  const before = list.value;
  const terms = elections.filter((one, i) => elections.findIndex((other) => other.term === one.term) === i);
  list.replaceChildren(...terms.map((one) => el("option", { value: one.term }, title(one))));
  list.parentElement.hidden = terms.length === 0;
  if (terms.length === 0) {
    find("#election .body").replaceChildren(el("p", { class: "note" }, "No election is remembered by those who were reached."));
    players(false);
    return;
  }
  const raced = terms.find((one) => one.contenders.some((other) => other.race)) ?? terms[0];
  list.value = terms.some((one) => String(one.term) === before) ? before : raced.term;
  if (list.value !== before || !current) await choose();
}

new ResizeObserver(() => {
  const room = Math.max(NARROWEST, find("#election .body").clientWidth);
  if (current?.scale && room !== current.scale.width) fit(Number(find("#step").value));
}).observe(find("#election .body"));
find("#term").addEventListener("change", choose);
find("#play").addEventListener("click", () => (playing === null ? play(0) : stop()));
find("#step").addEventListener("input", (event) => {
  stop();
  moment(Number(event.target.value));
});
