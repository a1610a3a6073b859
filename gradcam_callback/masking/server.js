// Questions to the local server. An answer that holds an error is a sentence for the person.

export class Refusal extends Error {}

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", body, headers: { "X-Masks": "1" } };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal("The server does not answer. Start the command again to go on; what you accepted is saved.");
  }
  if (!response.ok) {
    throw new Refusal("The server refused. Open the address again that the terminal shows.");
  }
  const isJson = response.headers.get("Content-Type").startsWith("application/json");
  const content = isJson ? await response.json() : await response.blob();
  if (isJson && content.error) throw new Refusal(content.error);
  return content;
}

const image = async (path, body) => createImageBitmap(await ask(path, body));
// What `details` has called the files of a photograph, if it was asked.
const naming = (seen) => new URLSearchParams(seen === undefined ? {} : { seen });

export const state = () => ask("/state");
export const details = (index) => ask(`/details/${index}`);
export const photograph = (index) => image(`/photograph/${index}`);
export const mask = (index) => image(`/mask/${index}`);
export const box = (index, sides) => image(`/box/${index}`, JSON.stringify(sides));
export const accept = (index, blob, seen) => ask(`/accept/${index}?${naming(seen)}`, blob);
export const acceptAll = (without) => ask("/accept", JSON.stringify(without));
export const nothing = (index, seen) => ask(`/nothing/${index}?${naming(seen)}`, "");
export const undo = () => ask("/undo", "");
