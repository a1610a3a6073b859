// The contact sheet: every photograph with its mask or proposal, and how far it is.

const SIGNS = {
  waiting: "… waiting for its proposal",
  open: "○ to do",
  proposed: "○ proposal",
  doubtful: "? doubtful",
  done: "✓ done",
  nothing: "✓ done: no object",
  unreadable: "! cannot be read",
};

export function describe({ status, reason }) {
  return reason ? `${SIGNS[status]}: ${reason}` : SIGNS[status];
}

// A file name of more letters than this may be wider than a tile. Its last ones tell it from the others.
const SHORT = 18;
const LAST = 12;

/** Return a name in two parts. Where there is no room, the end of the first one is cut off. */
function halve(name) {
  const letters = [...name];
  const file = letters.lastIndexOf("/") + 1;
  const cut = letters.length - file > SHORT ? letters.length - LAST : file;
  return [letters.slice(0, cut).join(""), letters.slice(cut).join("")];
}

export class Sheet {
  constructor(list, open) {
    this.list = list;
    this.open = open;
    this.tiles = [];
  }

  // Names of files are text, and never anything else.
  show(photographs, drafts) {
    while (this.tiles.length < photographs.length) this.add(this.tiles.length);
    photographs.forEach((photograph, index) => {
      const { button, picture, name, said } = this.tiles[index];
      const { status, version } = photograph;
      button.className = `tile ${status}`;
      name.title = photograph.name;
      [name.firstChild.textContent, name.lastChild.textContent] = halve(photograph.name);
      said.textContent = drafts.has(index) ? "✎ changed, not accepted yet" : describe(photograph);
      said.title = said.textContent;
      const visible = status !== "unreadable";
      picture.hidden = !visible;
      const source = `/small/${index}?version=${version}`;
      if (visible && picture.getAttribute("src") !== source) picture.src = source;
    });
  }

  add(index) {
    const [item, button, frame, picture, name, said] = ["li", "button", "span", "img", "span", "span"].map((kind) =>
      document.createElement(kind),
    );
    button.type = "button";
    frame.className = "frame";
    name.className = "name";
    name.append(document.createElement("span"), document.createElement("span"));
    said.className = "state";
    picture.alt = "";
    picture.loading = "lazy";
    frame.append(picture);
    button.append(frame, name, said);
    button.addEventListener("click", () => this.open(index));
    item.append(button);
    this.list.append(item);
    this.tiles.push({ button, picture, name, said });
  }

  focus(index) {
    this.tiles[index]?.button.focus();
  }

  // Move from tile to tile.
  step(by) {
    const now = this.tiles.findIndex(({ button }) => button === document.activeElement);
    this.focus(Math.min(this.tiles.length - 1, Math.max(0, now + by)));
  }
}
