// Figures and times as a planner says them.

export const HOUR_MS = 3_600_000;

export const percent = (share) =>
  share < 0.01 ? "< 1\u00a0%" : share > 0.99 ? "> 99\u00a0%" : `${Math.round(share * 100)}\u00a0%`;
export const inDigits = (number) => number.toLocaleString("en");
export const count = (number, thing) => `${inDigits(number)} ${thing}${number === 1 ? "" : "s"}`;
export const inUtc = (time) => `${new Date(time).toISOString().slice(0, 16).replace("T", " ")} UTC`;

export function ago(time) {
  const minutes = Math.round((Date.now() - new Date(time)) / 60_000);
  const size = Math.abs(minutes);
  if (size < 1) return "just now";
  const hours = Math.round(size / 60);
  const span = size < 60 ? `${size} min` : hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`;
  return minutes > 0 ? `${span} ago` : `in ${span}`;
}
