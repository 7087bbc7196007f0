// What the page asks the service for.

export const TOKEN = "upkeep-token";

export class TokenNeeded extends Error {}

export async function ask(path, signal) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, signal, cache: "no-store" }).catch(explainFailure);
  if (answer.status === 401) throw new TokenNeeded("The service asks for a token");
  if (!answer.ok) throw new Error(`The service answered with status ${answer.status}`);
  return answer.json();
}

function explainFailure(error) {
  throw error.name === "AbortError" ? error : new Error("The service cannot be reached");
}
