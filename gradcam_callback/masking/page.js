// The page: a contact sheet, and one photograph after the other.

import { Editor } from "./editor.js";
import { Sheet, describe } from "./sheet.js";
import * as server from "./server.js";

const byId = (id) => document.getElementById(id);
const POLL = 600; // milliseconds, while proposals are being made
// A mask of --auto is done, but nobody has looked at it yet.
const isDone = (index) => {
  const { status, unseen } = state.photographs[index];
  return ["done", "nothing"].includes(status) && !unseen && !drafts.has(index);
};
// Nobody can decide on a photograph that cannot be read.
const isOpen = (index) => !isDone(index) && state.photographs[index].status !== "unreadable";

let state = null;
let current = null; // the index of the open photograph; null on the contact sheet
let busy = false;
let polling = false;
const drafts = new Map(); // changed masks that are not accepted, by index
const sent = new Map(); // masks as they were accepted, to go on from after an undo
// What the server calls the files of a photograph whose mask is shown here, or was before it was changed. Another tab may
// write others.
const seen = new Map();

function say(text, isError = false) {
  const message = byId("message");
  message.textContent = isError ? `Error: ${text}` : text;
  message.classList.toggle("error", isError);
}

// Run one task at a time, so that a key pressed twice does not decide twice.
async function run(task) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await task();
  } catch (error) {
    say(error.message, true);
  } finally {
    busy = false;
    document.body.setAttribute("aria-busy", "false");
  }
}

const sheet = new Sheet(byId("tiles"), (index) => run(() => open(index)));
const editor = new Editor(run, say);

function show(news) {
  state = news;
  const { photographs, done, missing } = state;
  const total = photographs.length;
  byId("bar").max = total;
  byId("bar").value = done;
  byId("count").textContent = `${done} of ${total} done`;
  const waiting = photographs.filter(({ status }) => status === "waiting").length;
  byId("network").textContent = missing
    ? `Box and brush alone. ${missing}`
    : waiting
      ? `Proposals are being made: ${total - waiting} of ${total}`
      : "";
  const ready = photographs.filter(({ status }, index) => status === "proposed" && !drafts.has(index)).length;
  byId("accept-all").disabled = !ready;
  byId("accept-all").firstElementChild.textContent = ready ? `Accept all ${ready} proposals` : "Accept all proposals";
  byId("open-next").disabled = findNext() === undefined;
  byId("undo-sheet").disabled = !state.undoable;
  sheet.show(photographs, drafts);
  if (current !== null) describeCurrent();
  if (state.working && !polling) {
    polling = true;
    setTimeout(poll, POLL);
  }
}

function describeCurrent() {
  const photograph = state.photographs[current];
  byId("name").textContent = `${current + 1} of ${state.photographs.length}: ${photograph.name}`;
  byId("status").textContent = describe(photograph);
  byId("status").className = photograph.status;
}

function view(index) {
  current = index;
  byId("sheet").hidden = index !== null;
  byId("editor").hidden = index === null;
}

// `said` is what has just been done. It makes room for it whatever was said of the photograph before.
async function open(index, said = "") {
  await leave();
  say(said);
  view(index);
  editor.canvas.close();
  editor.describe();
  describeCurrent();
  byId("stage").focus({ preventScroll: true });
  const { width, height, mask, seen: now } = await server.details(index);
  const photograph = await server.photograph(index);
  const draft = drafts.get(index);
  if (!draft || !seen.has(index)) seen.set(index, now);
  const drawn = draft ? await createImageBitmap(draft) : mask ? await server.mask(index) : null;
  await editor.open(index, [width, height], photograph, drawn);
  show(await server.state());
  // It was proposed in between.
  if (!drawn && state.photographs[index].status === "proposed") await fill(index);
}

async function fill(index) {
  const { mask } = await server.details(index);
  if (!mask) return;
  const drawn = await server.mask(index);
  if (current === index && !editor.canvas.edited && editor.canvas.isEmpty) {
    editor.canvas.put(drawn);
    editor.describe();
  }
}

// Keep what was drawn and not accepted.
async function leave() {
  if (current !== null && editor.canvas.photograph && editor.canvas.edited) {
    drafts.set(current, await editor.canvas.send());
  }
}

async function toSheet() {
  await leave();
  const from = current;
  view(null);
  say("");
  show(await server.state());
  sheet.focus(from);
}

// The next photograph that is not done, after the open one.
function findNext() {
  const { photographs } = state;
  const after = [...photographs.keys()].map((step) => (step + (current ?? -1) + 1) % photographs.length);
  return after.find(isOpen);
}

// `said` is what has just been done. It stays in sight in any case.
async function goOn(said = "") {
  const next = findNext();
  if (next !== undefined) return open(next, said);
  await toSheet();
  return say(`${said} ${finish()}`.trim());
}

function finish() {
  const { photographs, done } = state;
  const left = photographs.length - done;
  return left
    ? `All others are done. ${left} cannot be read: repair or remove the file, and start the command again.`
    : `All ${photographs.length} are done. Stop the command with Ctrl-C in the terminal; it says what to do next.`;
}

// Send a decision. If it is refused, the person is told why and may decide again.
async function decide(index, send) {
  try {
    return await send(seen.get(index));
  } catch (error) {
    seen.delete(index);
    throw error;
  }
}

async function accept() {
  const index = current;
  const untouched = !editor.canvas.edited && !drafts.has(index);
  if (untouched && isDone(index)) return goOn();
  if (!editor.canvas.photograph) return goOn(`${state.photographs[index].name} cannot be read.`);
  if (editor.canvas.isEmpty) {
    return say("Nothing is marked. Drag a box around the object, or press N if there is no object.");
  }
  const mask = await editor.canvas.send();
  const news = await decide(index, (shown) => server.accept(index, mask, shown));
  return decided(index, news, mask, "Accepted");
}

async function nothing() {
  const index = current;
  const news = await decide(index, (shown) => server.nothing(index, shown));
  return decided(index, news, null, "Noted: no object in");
}

async function decided(index, news, mask, what) {
  if (mask) sent.set(index, mask);
  drafts.delete(index);
  seen.delete(index);
  editor.canvas.close();
  show(news);
  await goOn(`${what} ${state.photographs[index].name}. U undoes it.`);
}

async function acceptAll() {
  // A changed mask in place of a proposal is for the person to accept.
  const news = await server.acceptAll([...drafts.keys()]);
  show(news);
  const left = [...state.photographs.keys()].filter((index) => isOpen(index)).length;
  const rest = left ? `${left} left: press Enter to go through them.` : finish();
  say(`Accepted ${news.accepted}. U undoes it. ${rest}`);
}

async function undo() {
  if (current !== null && editor.undo()) return say("");
  if (drafts.delete(current)) {
    editor.canvas.close();
    await open(current);
    return say("Undone: all changes of this mask.");
  }
  const news = await server.undo();
  const [first] = news.undone;
  if (first === undefined) return say("There is nothing to undo.");
  const wasAll = current === null;
  for (const index of news.undone) seen.delete(index);
  if (sent.has(first) && news.photographs[first].status !== "done") {
    drafts.set(first, sent.get(first));
    sent.delete(first);
  }
  if (news.undone.includes(current)) editor.canvas.close();
  show(news);
  if (!wasAll) await open(first);
  const what = news.undone.length === 1 ? `decision on ${state.photographs[first].name}` : `${news.undone.length} decisions`;
  return say(`Undone: the ${what}.`);
}

function step(by) {
  const index = current + by;
  return index >= 0 && index < state.photographs.length ? run(() => open(index)) : undefined;
}

const ON_SHEET = {
  a: () => byId("accept-all").disabled || run(acceptAll),
  u: () => run(undo),
  Enter: () => run(goOn),
  ArrowRight: () => sheet.step(1),
  ArrowLeft: () => sheet.step(-1),
};
const ON_ONE = {
  Enter: () => run(accept),
  n: () => run(nothing),
  u: () => run(undo),
  c: () => editor.clear(),
  b: () => editor.choose("box"),
  p: () => editor.choose("brush"),
  x: () => editor.toggleRemoving(),
  "[": () => editor.resize(-1),
  "]": () => editor.resize(1),
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  Escape: () => run(toSheet),
};
const REPEATS = new Set(["[", "]"]);

document.addEventListener("keydown", (event) => {
  const undoes = (event.ctrlKey || event.metaKey) && event.key === "z";
  if (!state || event.altKey || ((event.ctrlKey || event.metaKey) && !undoes)) return;
  const key = undoes ? "u" : event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = (current === null ? ON_SHEET : ON_ONE)[key];
  // A button or slider that the keyboard has chosen does what it says.
  const target = event.target;
  const isOwn = (key === "Enter" && target.tagName === "BUTTON") || (key.startsWith("Arrow") && target.tagName === "INPUT");
  if (!action || isOwn) return;
  event.preventDefault();
  if (!event.repeat || REPEATS.has(key)) action();
});

const BUTTONS = {
  "accept-all": acceptAll, "open-next": goOn, "undo-sheet": undo, accept, nothing, undo, all: toSheet,
};
for (const [id, task] of Object.entries(BUTTONS)) byId(id).addEventListener("click", () => run(task));
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
// After a click with the mouse, Enter accepts again and does not repeat the button.
byId("editor").addEventListener("click", (event) => event.detail && byId("stage").focus({ preventScroll: true }));
byId("size").addEventListener("change", () => byId("stage").focus({ preventScroll: true }));

window.addEventListener("beforeunload", (event) => {
  if (drafts.size || (current !== null && editor.canvas.photograph && editor.canvas.edited)) event.preventDefault();
});

async function poll() {
  try {
    if (!busy) {
      show(await server.state());
      const fits = current !== null && editor.canvas.photograph && editor.index === current;
      const proposes = fits && ["proposed", "doubtful"].includes(state.photographs[current].status);
      if (proposes && !editor.canvas.edited && editor.canvas.isEmpty) await run(() => fill(current));
    }
  } catch (error) {
    polling = false;
    say(error.message, true);
    return;
  }
  polling = state === null || state.working;
  if (polling) setTimeout(poll, POLL);
}
polling = true;
poll();
