// Elements, whose content is text and never markup: names and messages come from outside.

import { ago, inUtc } from "./words.js";

export function make(name, ...content) {
  const element = document.createElement(name);
  element.append(...content);
  return element;
}

// Untouched where nothing changed, so that a screen reader does not say it again.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function timeAgo(before, time, after = "") {
  const element = make("time", ago(time));
  element.dateTime = time;
  element.title = inUtc(time);
  return [before, element, after];
}
