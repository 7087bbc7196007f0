// What the page asks the service for.

export const TOKEN = "upkeep-token";

export class TokenNeeded extends Error {}

export async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" }).catch(explainFailure);
  if (answer.status === 401) throw new TokenNeeded("The service asks for a token");
  if (!answer.ok) throw new Error(`The service answered with status ${answer.status}`);
  return answer.json();
}

export function tell(path, content) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });
}

function explainFailure(error) {
  throw error.name === "AbortError" ? error : new Error("The service cannot be reached");
}
