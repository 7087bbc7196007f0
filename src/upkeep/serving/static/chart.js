// A machine's risk over time, with the threshold of its alarm.

import { inUtc, percent } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

export function chart({ history, threshold }, width, height) {
  const highest = Math.max(1.3 * threshold, ...history.map(([, risk]) => risk), 0.01);
  const [first, last] = [history[0], history.at(-1)];
  const x = (time) => (last[0] > first[0] ? ((time - first[0]) / (last[0] - first[0])) * (width - 4) : width - 4);
  const y = (risk) => 2 + (1 - risk / highest) * (height - 4);
  const line = history.map(([time, risk]) => `${x(time).toFixed(1)},${y(risk).toFixed(1)}`).join(" ");
  const limit = y(threshold);
  const label = `Risk ${percent(first[1])} at ${inUtc(first[0])}, ${percent(last[1])} at ${inUtc(last[0])}`;
  return draw(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
    draw("polygon", { class: "area", points: `${x(first[0])},${height} ${line} ${x(last[0])},${height}` }),
    draw("line", { class: "threshold", x1: 0, x2: width, y1: limit, y2: limit }),
    draw("polyline", { class: "line", points: line }),
    draw("circle", { class: "dot", cx: x(last[0]), cy: y(last[1]), r: 2.75 }),
  );
}

function draw(name, attributes, ...content) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...content);
  return element;
}
