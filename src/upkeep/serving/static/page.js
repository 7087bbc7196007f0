// The planner's page: asks for the fleet each minute and draws it.

import { make, setText } from "./elements.js";
import { fillRow, makeRow } from "./row.js";
import { ask, TOKEN, TokenNeeded } from "./service.js";
import { count, HOUR_MS, inDigits, inUtc } from "./words.js";

const REFRESH_MS = 60_000;
const STALE_LOG_MS = 3 * REFRESH_MS;
const ROWS = 50;
const MOST_ROWS = 1000;
const MOST_STANDINGS = 10;
const STATUSES = { act: "Act", watch: "Watch", unknown: "Unknown" };

const byId = (id) => document.getElementById(id);
const [plant, search, more, tokenForm] = ["plant", "search", "more", "token-form"].map(byId);
const rows = new Map();
let shown = ROWS;
let pending = new AbortController();

async function refresh() {
  pending.abort();
  pending = new AbortController();
  const query = new URLSearchParams({ plant: plant.value, search: search.value, limit: shown });
  try {
    drawFleet(await ask(`fleet?${query}`, { signal: pending.signal }));
  } catch (error) {
    if (error instanceof TokenNeeded) askForToken();
    else if (error.name !== "AbortError") showNotices([`${error.message}. The page tries again each minute.`]);
  }
}

function askForToken() {
  const refused = sessionStorage.getItem(TOKEN) !== null;
  sessionStorage.removeItem(TOKEN);
  if (refused) setText(byId("token-answer"), "The service does not accept this token.");
  setText(byId("verdict"), "This service asks for a token");
  for (const id of ["rule", "filters", "fleet", "more", "empty", "notices", "standings"]) byId(id).hidden = true;
  if (tokenForm.hidden || refused) {
    tokenForm.hidden = false;
    byId("token").focus();
  }
}

function drawFleet(fleet) {
  const kept = anchor();
  tokenForm.hidden = true;
  byId("rule").hidden = byId("notices").hidden = false;
  byId("filters").hidden = byId("fleet").hidden = !fleet.plants.length;
  byId("empty").hidden = fleet.plants.length > 0;
  setText(byId("verdict"), verdict(fleet));
  setText(byId("rule"), rule(fleet));
  drawPlants(fleet.plants);
  drawStandings(fleet.monitoring);
  drawRows(fleet);
  more.hidden = fleet.total <= fleet.machines.length || shown >= MOST_ROWS;
  setText(more, `Show ${Math.min(ROWS, fleet.total - fleet.machines.length)} more of ${inDigits(fleet.total)}`);
  showNotices(notices(fleet));
  kept?.();
}

function verdict({ plants }) {
  const seen = plants.filter((one) => ["", one.plant].includes(plant.value));
  const [alarms, machines] = ["alarms", "machines"].map((key) => seen.reduce((sum, one) => sum + one[key], 0));
  if (!plants.length) return "No predictions yet";
  const where = plant.value ? ` in ${plant.value}` : "";
  const some = alarms ? inDigits(alarms) : "None";
  return `${some} of ${count(machines, "machine")}${where} ${alarms > 1 ? "need" : "needs"} you`;
}

function rule({ plants, horizon_hours, as_of, total }) {
  if (!plants.length) return "";
  if (!total) return "No machine matches.";
  const when = as_of ? ` As of ${inUtc(as_of).slice(11)}.` : "";
  return `Alarms first, then the highest risk of a failure within ${horizon_hours} h. Each plant alarms from its own level on, the dashed line.${when}`;
}

function drawPlants(plants) {
  const wanted = plant.value;
  const label = ({ plant: name, alarms }) => (alarms ? `${name} (${count(alarms, "alarm")})` : name);
  const options = [["", "All plants"], ...plants.map((one) => [one.plant, label(one)])];
  if (!options.some(([value]) => value === wanted)) options.push([wanted, wanted]);
  // A list that somebody has open would close if it were filled anew.
  if (JSON.stringify(options) === JSON.stringify([...plant].map(({ value, text }) => [value, text]))) return;
  plant.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === wanted)));
}

// Which plants are not as usual, by `upkeep monitor`; all of it is on a page of its own, where that is published.
function drawStandings(monitoring) {
  const list = byId("standings");
  list.hidden = !monitoring;
  if (!monitoring) return;
  const { as_of, page, standings } = monitoring;
  const seen = Object.entries(standings).filter(([name]) => name && ["", name].includes(plant.value));
  const found = Object.keys(STATUSES).flatMap((status) => seen.filter(([, one]) => one.status === status));
  const lines = found.slice(0, MOST_STANDINGS).map(([name, one]) => {
    const why = (one.why[0] ?? "").split("`").map((part, row) => (row % 2 ? make("code", part) : part));
    const line = make("li", linkTo(page, name), ` ${STATUSES[one.status]} since ${inUtc(one.since).slice(0, 10)}: `, ...why);
    line.className = one.status;
    return line;
  });
  const others = seen.length - found.length;
  const hidden = found.length - lines.length;
  const rest = [hidden && `${hidden} more`, others && `${count(others, "plant")} fine`, as_of && `as of ${inUtc(as_of)}`];
  const last = make("li", as_of ? rest.filter(Boolean).join(", ") : "How the plants stand is not known: monitoring.json cannot be read");
  last.className = "quiet";
  list.replaceChildren(...lines, last);
}

function linkTo(page, text) {
  if (!/^https?:/.test(page ?? "")) return make("strong", text);
  return Object.assign(make("a", text), { href: page });
}

function drawRows({ machines, horizon_hours, takes_findings }) {
  const lists = { true: [], false: [] };
  for (const machine of machines) {
    const key = JSON.stringify([machine.plant, machine.machine]);
    const row = rows.get(key) ?? makeRow(machine);
    rows.set(key, row);
    fillRow(row, machine, horizon_hours, takes_findings);
    lists[machine.stands].push(row);
  }
  const listed = new Set([...lists.true, ...lists.false]);
  for (const [key, row] of rows) {
    if (listed.has(row)) continue;
    row.remove();
    rows.delete(key);
  }
  place(byId("alarm"), lists.true);
  place(byId("calm"), lists.false);
}

function place(list, wanted) {
  wanted.forEach((row, index) => {
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
  list.parentElement.hidden = !wanted.length;
}

// What the reader looks at stays where it is, however the ranking changes around it.
function anchor() {
  const summary = document.activeElement?.closest?.("#fleet summary");
  if (!summary) return null;
  const top = summary.getBoundingClientRect().top;
  return () => {
    if (!summary.isConnected) return;
    summary.focus({ preventScroll: true });
    scrollBy(0, summary.getBoundingClientRect().top - top);
  };
}

function notices({ as_of, machines, horizon_hours, generated_at, open }) {
  const found = [];
  if (open) found.push("This service is open: it asks for no token, so whoever reaches it sees and adds predictions.");
  if (!as_of) found.push("Some machines may be missing: the prediction log has not been read yet.");
  else if (new Date(generated_at) - new Date(as_of) > STALE_LOG_MS)
    found.push(`Some machines may be out of date: the prediction log was last read at ${inUtc(as_of)}.`);
  const newest = Math.max(...machines.map(({ time }) => new Date(time)));
  if (machines.length && Date.now() - newest > horizon_hours * HOUR_MS)
    found.push(`Each risk is for the ${horizon_hours} h after its reading; the newest reading is from ${inUtc(newest)}.`);
  return found;
}

function showNotices(texts) {
  const box = byId("notices");
  if ([...box.children].map((notice) => notice.textContent).join() === texts.join()) return;
  box.replaceChildren(...texts.map((text) => Object.assign(make("p", text), { className: "notice" })));
}

const bookmarked = new URLSearchParams(location.search).get("plant");
if (bookmarked) plant.add(new Option(bookmarked, bookmarked, false, true));
plant.addEventListener("change", () => {
  // The address names the plant, so that it can be bookmarked.
  history.replaceState(null, "", plant.value ? `?plant=${encodeURIComponent(plant.value)}` : location.pathname);
  refresh();
});
search.addEventListener("input", refresh);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", () => {
  shown += ROWS;
  refresh();
});
tokenForm.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value);
  byId("token").value = "";
  setText(byId("token-answer"), "");
  refresh();
});
document.addEventListener("visibilitychange", () => document.hidden || refresh());
setInterval(() => document.hidden || refresh(), REFRESH_MS);
refresh();
