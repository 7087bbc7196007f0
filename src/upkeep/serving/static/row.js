// One machine: a line that says what to do about it, and the details behind it.

import { chart } from "./chart.js";
import { make, setText, timeAgo } from "./elements.js";
import { ask, tell } from "./service.js";
import { HOUR_MS, inUtc, percent } from "./words.js";

export function makeRow(machine) {
  const row = document.getElementById("row").content.firstElementChild.cloneNode(true);
  const slots = Object.fromEntries([...row.querySelectorAll("[data-slot]")].map((slot) => [slot.dataset.slot, slot]));
  Object.assign(row, { slots, details: row.querySelector("details") });
  row.details.addEventListener("toggle", () => row.details.open && explain(row));
  slots.visited.value = new Date().toISOString().slice(0, 16);
  slots.visit.addEventListener("submit", (event) => {
    event.preventDefault();
    tellFinding(row, event.submitter);
  });
  setText(slots.machine, machine.machine);
  setText(slots.plant, machine.plant);
  return row;
}

export function fillRow(row, machine, horizon, takesFindings) {
  const { slots } = row;
  const known = row.machine;
  row.machine = machine;
  setText(slots.risk, percent(machine.probability));
  setText(slots.horizon, `within ${horizon}\u00a0h`);
  setText(slots.reason, machine.reasons?.[0]?.words ?? "");
  setText(slots.warning, firstWarning(machine.warnings));
  slots.visit.hidden = !takesFindings || alarmBefore(machine, Infinity) === null;
  const isStale = Date.now() - new Date(machine.time) > horizon * HOUR_MS;
  slots.reading.replaceChildren(...timeAgo(isStale ? "⚠ Last reading " : "Reading ", machine.time));
  slots.reading.classList.toggle("warning", isStale);
  slots.maintenance.replaceChildren(...lastMaintenance(machine));
  if (known?.scored_at === machine.scored_at && known.history.length === machine.history.length) return;
  slots.spark.replaceChildren(chart(machine, 132, 34));
  if (row.details.open) explain(row);
}

function firstWarning(warnings) {
  if (!warnings.length) return "";
  return `⚠ ${warnings[0].message}${warnings.length > 1 ? ` (and ${warnings.length - 1} more)` : ""}`;
}

function lastMaintenance({ alarm, stands, maintained_since: since, last_maintenance: maintenance }) {
  if (alarm && !stands && !since) return ["Failed or serviced since"];
  if (!maintenance) return ["No maintenance on record"];
  const { time, code } = maintenance;
  return timeAgo("Maintained ", time, `${code ? `: ${code}` : ""}${since ? ", after the reading" : ""}`);
}

async function explain(row) {
  const { plant, machine } = row.machine;
  try {
    const found = await ask(`fleet/machine?${new URLSearchParams({ plant, machine })}`);
    row.slots.details.replaceChildren(course(found), facts(found));
  } catch (error) {
    row.slots.details.replaceChildren(make("p", `${error.message}. Close and open the row to try again.`));
  }
}

// When the last alarm before a time began, as far back as the history goes; null if there was none.
function alarmBefore({ history, threshold }, visited) {
  const seen = history.filter(([time]) => time <= visited);
  const last = seen.findLastIndex(([, risk]) => risk >= threshold);
  const calm = seen.slice(0, last + 1).findLastIndex(([, risk]) => risk < threshold);
  return last < 0 ? null : new Date(seen[calm + 1][0]).toISOString();
}

async function tellFinding(row, button) {
  const { plant, machine } = row.machine;
  const visited = new Date(`${row.slots.visited.value}Z`);
  const alarm = alarmBefore(row.machine, visited);
  const said = { plant, machine, alarm_at: alarm, visited_at: visited.toISOString(), finding: button.value };
  try {
    await tell("findings", said);
    const answers = alarm ? `, which answers the alarm of ${inUtc(alarm)}` : "";
    setText(row.slots.said, `Noted: ${button.textContent.toLowerCase()} on ${inUtc(visited)}${answers}. To correct it, say it again for the same time.`);
  } catch (error) {
    setText(row.slots.said, `${error.message}: nothing was noted.`);
  }
}

function course(machine) {
  const title = make("h3", `Risk until now; alarm from ${percent(machine.threshold)} on (dashed)`);
  const [first, last] = [machine.history[0], machine.history.at(-1)].map(([time]) => make("span", inUtc(time)));
  const axis = Object.assign(make("p", first, last), { className: "axis quiet" });
  return make("div", title, chart(machine, 480, 130), axis);
}

function facts(machine) {
  const reasons = machine.reasons.map(({ words }) => make("li", words));
  const warnings = machine.warnings.map(({ message }) => make("li", message));
  const { time, code } = machine.last_maintenance ?? {};
  const values = {
    "Last maintenance": time ? [inUtc(time), code].filter(Boolean).join(": ") : "none on record",
    "Newest reading": inUtc(machine.time),
    "Scored": inUtc(machine.scored_at),
    "Model": machine.model_version,
  };
  const list = make("dl", ...Object.entries(values).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  return make(
    "div",
    make("h3", "What raises the risk most"),
    reasons.length ? make("ol", ...reasons) : make("p", "Nothing, or the model that scored it is no longer loaded."),
    ...(warnings.length ? [make("h3", "Before you trust it"), make("ul", ...warnings)] : []),
    list,
  );
}
